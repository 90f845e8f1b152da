//! Where things run, and which of a destination's endpoints are preferred for that.
//!
//! Semantics: Kubernetes' `internalTrafficPolicy`, `trafficDistribution` and the hints of EndpointSlices (as kube-proxy takes
//! them), and Istio's `localityLbSetting` (istio.io, reference/config/networking/destination-rule).

mod candidates;
mod divide;
mod rendezvous;
mod setting;

use std::fmt;
use std::sync::Arc;

pub use candidates::{Candidates, candidates};
pub use divide::{Division, Standpoint, divide};
pub use rendezvous::rendezvous;
pub use setting::{Distribute, Failover, LocalityPattern, LocalitySetting, Priority};

use crate::l7::TrafficPolicy;
use crate::model::{NodeName, Service};

/// The label of a Node that names its region.
pub const REGION: &str = "topology.kubernetes.io/region";
/// The label of a Node that names its zone.
pub const ZONE: &str = "topology.kubernetes.io/zone";
/// The label of a Node that names its sub-zone.
pub const SUBZONE: &str = "topology.istio.io/subzone";
/// The label of a Node that names it.
pub const HOSTNAME: &str = "kubernetes.io/hostname";
/// The label of a Pod that says where it is, in the place of its Node.
pub const OF_POD: &str = "istio-locality";

/// Where something runs. A part that is not known is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Locality {
    /// The region.
    pub region: Arc<str>,
    /// The zone in the region.
    pub zone: Arc<str>,
    /// The sub-zone in the zone.
    pub subzone: Arc<str>,
}

impl Locality {
    /// Reads `region/zone/subzone`, of which later parts may be left out.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut parts = text.splitn(3, '/').map(Arc::from);
        let mut next = || parts.next().unwrap_or_default();
        Self { region: next(), zone: next(), subzone: next() }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        [&self.region, &self.zone, &self.subzone].into_iter().all(|part| part.is_empty())
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = match (&*self.region, &*self.zone, &*self.subzone) {
            (_, "", "") => 1,
            (_, _, "") => 2,
            _ => 3,
        };
        let parts = [&self.region, &self.zone, &self.subzone];
        for (index, part) in parts.into_iter().take(known).enumerate() {
            let slash = if index == 0 { "" } else { "/" };
            write!(f, "{slash}{part}")?;
        }
        Ok(())
    }
}

/// Whom an endpoint is meant for, by its slice (`hints`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Hints {
    /// Clients in these zones.
    pub zones: Vec<Arc<str>>,
    /// Clients on these nodes.
    pub nodes: Vec<NodeName>,
}

/// What a Service says of where its clients are led.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Placement {
    /// To their own node and nowhere else (`internalTrafficPolicy: Local`).
    pub node_only: bool,
    /// To what is near, where something is (`trafficDistribution`).
    pub nearest: Option<Nearest>,
    /// Whether any of its endpoints has hints.
    pub is_hinted: bool,
    /// To the same endpoint each time, as long as that is one of those that they may get (`sessionAffinity: ClientIP`).
    pub is_sticky: bool,
}

/// What counts as near, the nearest last: region, zone and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nearest {
    /// The region, the zone, the sub-zone.
    Close,
    /// The region, the zone.
    Zone,
    /// The region, the zone, the sub-zone, the node.
    Node,
}

impl Nearest {
    /// As a Service says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Close => "PreferClose",
            Self::Zone => "PreferSameZone",
            Self::Node => "PreferSameNode",
        }
    }
}

/// By what a destination's endpoints are told apart. What a DestinationRule says comes before what the Service says, and that
/// before the mesh's setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preference<'a> {
    /// By nothing.
    None,
    /// By what the Service says, and its endpoints' hints.
    Service(Option<Nearest>),
    /// By a setting; whether its failover counts, which takes outlier detection.
    Setting(&'a LocalitySetting, bool),
}

impl<'a> Preference<'a> {
    /// What holds for a Service, under a DestinationRule's policy if there is one.
    #[must_use]
    pub fn of(service: &Service, policy: Option<&'a TrafficPolicy>, of_mesh: &'a LocalitySetting) -> Self {
        let of_rule = policy.and_then(|policy| policy.load_balancer.as_ref()?.locality.as_deref());
        let fails_over = policy.is_some_and(|policy| policy.outlier.is_some());
        match of_rule {
            Some(setting) if !setting.enabled => return Self::None,
            Some(setting) => return Self::Setting(setting, fails_over),
            None => {}
        }
        let Placement { nearest, is_hinted, .. } = service.placement;
        if nearest.is_some() || is_hinted {
            return Self::Service(nearest);
        }
        let says_something = fails_over || !of_mesh.distribute.is_empty();
        if of_mesh.enabled && says_something { Self::Setting(of_mesh, fails_over) } else { Self::None }
    }
}

/// Why endpoints are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The Service serves the client's node alone.
    NodeOnly,
    /// Slices mean them for the client's node.
    NodeHints,
    /// Slices mean them for the client's zone.
    ZoneHints,
    /// The Service asks for what is near.
    Nearest(Nearest),
    /// A setting divides them by shares.
    Distribute,
    /// A setting's labels.
    FailoverPriority,
    /// Near ones come first, and others stand in for them.
    Failover,
    /// It is the client's own.
    ClientAddress,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NodeOnly => f.write_str("internalTrafficPolicy: Local"),
            Self::NodeHints => f.write_str("EndpointSlice hints for its node"),
            Self::ZoneHints => f.write_str("EndpointSlice hints for its zone"),
            Self::Nearest(nearest) => write!(f, "trafficDistribution: {}", nearest.as_str()),
            Self::Distribute => f.write_str("localityLbSetting.distribute"),
            Self::FailoverPriority => f.write_str("localityLbSetting.failoverPriority"),
            Self::Failover => f.write_str("localityLbSetting.failover"),
            Self::ClientAddress => f.write_str("sessionAffinity: ClientIP"),
        }
    }
}
