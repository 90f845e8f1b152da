//! What a ServiceEntry says of a host beyond what every Service has.

use std::sync::Arc;

use crate::label_set::LabelSet;
use crate::locality::{Hints, Locality};

/// A host of a ServiceEntry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The ServiceEntry's name; the Service is named as the host.
    pub object: Arc<str>,
    /// How endpoints are found.
    pub resolution: Resolution,
    /// Endpoints that DNS has the addresses of.
    pub names: Vec<NamedEndpoint>,
    /// The namespaces whose clients it is there for; none for all.
    pub exported_to: Option<Vec<Arc<str>>>,
    /// Of these the certificates of its endpoints have one, where TLS is begun to them.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Whether pods may be told of it when they ask DNS: not of a name of the cluster's own that is another namespace's.
    pub may_be_told: bool,
}

/// How the endpoints of a ServiceEntry are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// There are none: connections go to the address that was asked for.
    None,
    /// They are listed, or selected.
    Static,
    /// DNS has them; every address is an endpoint.
    Dns,
    /// DNS has them; the first address of an answer is the endpoint.
    DnsRoundRobin,
}

impl Resolution {
    /// Whether DNS has to be asked.
    #[must_use]
    pub const fn is_dns(self) -> bool {
        matches!(self, Self::Dns | Self::DnsRoundRobin)
    }
}

/// An endpoint that DNS has the addresses of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedEndpoint {
    /// The port of the host that it is an endpoint of.
    pub of_port: u16,
    /// The name to ask for.
    pub name: Arc<str>,
    /// The port to connect.
    pub port: u16,
    /// What is said of it.
    pub traits: Arc<EndpointTraits>,
}

/// What is said of an endpoint that no Pod says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EndpointTraits {
    /// Its labels, for subsets.
    pub labels: LabelSet,
    /// Where it is.
    pub locality: Option<Locality>,
    /// Its share, in relation to the others'; none for that of one.
    pub weight: Option<u32>,
    /// Whom it is meant for; none where nothing is said.
    pub hints: Option<Hints>,
}
