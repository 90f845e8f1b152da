//! A request's hold on its endpoint's connection.

use std::rc::Rc;

use super::other::Upstream;
use crate::upstream::{Cluster, ClusterState, Count, Endpoint, EndpointState, Http1Line, Http2Place};

/// Held until the response has all come. Dropping it without giving it back closes an HTTP/1.1 connection: nobody knows what
/// would come by it next.
pub(crate) struct Lease {
    pub(super) cluster: Rc<Cluster>,
    pub(super) endpoint: Rc<Endpoint>,
    pub(super) hold: Hold,
    pub(super) _active: (Count<ClusterState>, Count<EndpointState>),
}

/// The connection.
pub(super) enum Hold {
    Http1(Http1Line),
    /// Others share it; the place on it is free again when dropped.
    Http2 {
        _place: Http2Place,
    },
}

impl Lease {
    /// The connection's stream, which stops being HTTP's; of HTTP/1.1 alone.
    pub(super) fn other(&self) -> Option<Upstream> {
        match &self.hold {
            Hold::Http1(line) => Some(Upstream::Http1(line.other())),
            Hold::Http2 { .. } => None,
        }
    }

    /// The connection is free for the next request.
    pub(super) fn give_back(self) {
        if let Hold::Http1(line) = self.hold {
            self.endpoint.lines.give_back(line, &self.cluster.policy());
        }
        self.cluster.freed.notify_one();
    }
}
