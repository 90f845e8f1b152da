//! Waypoints, and who is reached by one.

use std::fmt;
use std::sync::Arc;

/// A waypoint: a Gateway of a waypoint's class. The Service of the same name leads to its replicas.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Waypoint {
    /// The Gateway's namespace.
    pub namespace: Arc<str>,
    /// The Gateway's name.
    pub name: Arc<str>,
    /// Traffic to what it takes (`istio.io/waypoint-for`).
    pub serves: Served,
}

/// What a waypoint takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Served {
    /// What was sent to a Service.
    Services,
    /// What was sent to a workload's own address.
    Workloads,
    /// Both.
    All,
    /// Nothing, for now.
    Nothing,
}

impl Served {
    /// As the label `istio.io/waypoint-for` writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "service" => Some(Self::Services),
            "workload" => Some(Self::Workloads),
            "all" => Some(Self::All),
            "none" => Some(Self::Nothing),
            _ => None,
        }
    }

    /// Whether it takes what was sent to a Service.
    #[must_use]
    pub const fn takes_services(self) -> bool {
        matches!(self, Self::Services | Self::All)
    }

    /// Whether it takes what was sent to a workload's own address.
    #[must_use]
    pub const fn takes_workloads(self) -> bool {
        matches!(self, Self::Workloads | Self::All)
    }
}

impl fmt::Display for Waypoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}
