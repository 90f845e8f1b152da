//! Copies of requests to somewhere else, whose answers nobody waits for.

use std::{cell::Cell, future::poll_fn, pin::Pin, rc::Rc, time::Duration};

use http::uri::Authority;
use http_body::Body as _;
use hyper::Request;
use mesh_core::l7::rule::Mirror;
use tokio::{task::spawn_local, time::timeout};

use super::{RequestBody, attempt::Attempt, head::Head, route::Plan};
use crate::{
    inbound::Connection,
    telemetry::MirrorOutcome,
    upstream::{Cluster, ClusterKey, Version, Wish},
    worker::Worker,
};

/// How long a copy may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Copies of one thread under way; what is asked for beyond is not made.
const MAX_UNDER_WAY: usize = 1_024;
/// What a copy's host ends in, by which its server can tell it from a request (Envoy's, and so Istio's).
const SUFFIX: &str = "-shadow";

/// One copy under way.
struct UnderWay(Rc<Worker>);

impl UnderWay {
    fn begin(worker: &Rc<Worker>) -> Option<Self> {
        let count: &Cell<usize> = &worker.mirrors;
        (count.get() < MAX_UNDER_WAY).then(|| {
            count.set(count.get() + 1);
            Self(worker.clone())
        })
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.mirrors.set(self.0.mirrors.get() - 1);
    }
}

/// Sends the copies that a rule asks for. A body that is too long to be held has none, nor has one that is not there as a whole.
pub(super) fn send(connection: &Rc<Connection>, plan: &Plan, head: &Head, version: Version, body: &RequestBody) {
    for mirror in plan.mirrors() {
        if mirror.percent.includes(fastrand::u64(..)) {
            one(connection, mirror, head, version, body);
        }
    }
}

fn one(connection: &Rc<Connection>, mirror: &Mirror, head: &Head, version: Version, body: &RequestBody) {
    let worker = connection.worker.clone();
    let told = worker.shared.telemetry.clone();
    let Ok(key) = ClusterKey::of_backend(&mirror.target, connection.arrival.target.port()) else {
        return told.own.mirror(MirrorOutcome::Failed);
    };
    let (Some(under_way), Some(body)) = (UnderWay::begin(&worker), body.copy()) else {
        return told.own.mirror(MirrorOutcome::Dropped);
    };
    let parts = head.for_upstream(version, &shadow(&head.authority));
    spawn_local(async move {
        let copied = timeout(PATIENCE, copy(&worker, &key, version, Request::from_parts(parts, body))).await;
        told.own.mirror(if copied == Ok(true) { MirrorOutcome::Answered } else { MirrorOutcome::Failed });
        drop(under_way);
    });
}

/// Whether it was answered, whatever the answer was.
async fn copy(worker: &Rc<Worker>, key: &ClusterKey, version: Version, request: Request<RequestBody>) -> bool {
    let Ok(cluster) = Cluster::ready(worker, key).await else { return false };
    let Ok(endpoint) = cluster.pick(&Wish { node: cluster.only_node(worker, None), ..Wish::default() }) else {
        return false;
    };
    let attempt =
        Attempt { worker, cluster: &cluster, endpoint: &endpoint, avoid: &[], version, arrival: None, trace: None };
    let Ok(sent) = attempt.send(request).await else { return false };
    let mut response = sent.response.into_body();
    // Read to its end, so that its connection can be used again.
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut response).poll_frame(cx)).await {
        if frame.is_err() {
            return false;
        }
    }
    sent.lease.give_back();
    true
}

fn shadow(authority: &Authority) -> Authority {
    let host = authority.host();
    let port = authority.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    Authority::try_from(format!("{host}{SUFFIX}{port}")).unwrap_or_else(|_| authority.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suffix_stands_before_the_port() {
        for (authority, expected) in [("cart.shop", "cart.shop-shadow"), ("cart:80", "cart-shadow:80")] {
            assert_eq!(shadow(&Authority::from_static(authority)).as_str(), expected);
        }
    }
}
