//! The span of one attempt at an endpoint.

use std::{cell::RefCell, net::SocketAddr, sync::Arc};

use mesh_core::{SpiffeId, TraceContext, Workload};
use mesh_otlp::Placed;

use super::{Finished, RequestFacts, Tracer};
use crate::upstream::{ClusterKey, Endpoint};

/// An endpoint, as spans tell of it.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) workload: Option<Arc<Workload>>,
    pub(super) identity: Option<SpiffeId>,
    pub(super) cluster: ClusterKey,
}

impl Upstream {
    /// An endpoint of a cluster.
    pub(crate) fn of(endpoint: &Endpoint, cluster: &ClusterKey) -> Self {
        Self {
            address: endpoint.address(),
            workload: endpoint.workload.clone(),
            identity: endpoint.identity().cloned(),
            cluster: cluster.clone(),
        }
    }
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum AttemptEnd {
    /// With that status.
    Answered(u16),
    /// Without an answer: why, from a closed set and in words.
    Failed(&'static str, String),
    /// Nobody waited for it any longer.
    Abandoned,
}

/// The span of an attempt; it ends when this is dropped, which for an answer is when all of it has come.
pub(crate) struct AttemptSpan {
    tracer: Arc<Tracer>,
    /// Taken at the end.
    open: RefCell<Option<(Placed, AttemptEnd)>>,
    request: Arc<RequestFacts>,
    number: u32,
    upstream: Upstream,
    context: TraceContext,
}

impl AttemptSpan {
    pub(super) fn new(
        tracer: Arc<Tracer>,
        request: Arc<RequestFacts>,
        placed: Placed,
        number: u32,
        upstream: Upstream,
    ) -> Self {
        let context = placed.context;
        let open = RefCell::new(Some((placed, AttemptEnd::Abandoned)));
        Self { tracer, open, request, number, upstream, context }
    }

    /// Its place, by which a tunnel that is made for it continues the trace.
    pub(crate) const fn context(&self) -> TraceContext {
        self.context
    }

    /// How it ended, as far as that can be told yet.
    pub(crate) fn note(&self, end: AttemptEnd) {
        if let Some((_, noted)) = &mut *self.open.borrow_mut() {
            *noted = end;
        }
    }
}

impl Drop for AttemptSpan {
    fn drop(&mut self) {
        if let Some((placed, end)) = self.open.take() {
            let (request, upstream) = (self.request.clone(), self.upstream.clone());
            self.tracer.put(Finished::attempt(placed, request, self.number, upstream, end));
        }
    }
}
