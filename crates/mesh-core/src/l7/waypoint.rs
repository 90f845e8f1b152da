//! Waypoints, and who is reached by one.

use std::fmt;
use std::sync::Arc;

use crate::identity::SpiffeId;
use crate::model::Workload;

/// The label by which a waypoint's pods name their Gateway.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// The port at which a waypoint takes tunnels, as every HBONE server does.
pub const WAYPOINT_PORT: u16 = 15_008;

/// A waypoint: a Gateway of a waypoint's class. The Service of the same name leads to its replicas.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Waypoint {
    /// The Gateway's namespace.
    pub namespace: Arc<str>,
    /// The Gateway's name.
    pub name: Arc<str>,
    /// The Gateway's class.
    pub class: Arc<str>,
    /// The full host name of the Service that leads to its replicas.
    pub hostname: Arc<str>,
    /// Who its replicas are, ready or not.
    pub identities: Vec<SpiffeId>,
    /// Traffic to what it takes (`istio.io/waypoint-for`).
    pub serves: Served,
}

impl Waypoint {
    /// Whether the workload is one of its replicas.
    #[must_use]
    pub fn runs_as(&self, workload: &Workload) -> bool {
        workload.namespace == self.namespace && workload.labels.get(GATEWAY_NAME) == Some(&*self.name)
    }
}

/// A port of a workload at which only a waypoint may connect, since policies are enforced there that nobody else can judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guard {
    /// The port; none for all.
    pub port: Option<u16>,
    /// The waypoint.
    pub waypoint: Arc<Waypoint>,
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
