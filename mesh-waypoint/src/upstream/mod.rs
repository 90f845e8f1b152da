//! Where requests go: clusters of endpoints, which of them a request gets, and the connections to them.

mod answer_body;
mod balance;
mod cluster;
mod connect;
mod endpoint;
mod greeting;
mod http1;
mod line;
mod moves;
mod names;
mod open;
mod origination;
mod paced;
mod parts;
mod reach;
mod settled;
mod state;
mod untaken;
mod view;

pub(crate) use self::answer_body::{AnswerBody, AnswerError};
pub(crate) use self::balance::{Wish, hash_of};
pub(crate) use self::cluster::{Cluster, ClusterKey, Upstreams};
pub(crate) use self::connect::{Behalf, Dial, Stream, connect_timeout, connect_within};
pub(crate) use self::endpoint::Endpoint;
pub(crate) use self::http1::{Http1Error, Http1Line, Unanswered};
pub(crate) use self::line::{Http2Place, Needs, STREAM_WINDOW, Version, dial_http1, dial_http2};
pub(crate) use self::moves::Moves;
pub(crate) use self::names::Names;
pub(crate) use self::origination::Originations;
pub(crate) use self::reach::LOOK;
pub(crate) use self::state::{Answer, Cause, ClusterState, Count, EndpointHealth, EndpointState, SharedClusters};
pub(crate) use self::untaken::SharedBody;
pub(crate) use self::view::{ClusterView, EndpointView};

use std::net::SocketAddr;

/// Why no endpoint answers a request.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// There is none, or none that may be used.
    #[error("no healthy upstream")]
    NoEndpoint,
    /// The cluster does not exist: a route names what is not there.
    #[error("no Service {0}")]
    NoCluster(ClusterKey),
    /// A bound on connections or requests is reached.
    #[error("upstream overflow: {0}")]
    Overflow(&'static str),
    /// A DestinationRule asks for what is not done here.
    #[error(transparent)]
    Refused(#[from] Box<mesh_core::Refusal>),
    /// Policies refuse it.
    #[error(transparent)]
    Denied(#[from] Box<mesh_core::policy::Denial>),
    /// The endpoint cannot be connected.
    #[error("upstream connection failure: {0}")]
    Connect(String),
    /// Nothing at all comes back from it, and there is another.
    #[error("no answer from {0}")]
    Unanswered(SocketAddr),
    /// It took too long.
    #[error("upstream connection timeout")]
    ConnectTimeout,
    /// The endpoint's streams of HTTP/2 are HTTP's alone: it does not take CONNECT for another protocol (RFC 8441, section 3).
    #[error("the endpoint takes no other protocol on streams of HTTP/2")]
    NoProtocols,
}

impl UpstreamError {
    /// Whether another endpoint may do better.
    pub(crate) const fn is_worth_another_endpoint(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Unanswered(_) | Self::ConnectTimeout)
    }
}
