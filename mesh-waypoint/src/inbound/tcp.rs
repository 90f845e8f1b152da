//! What is no HTTP: bytes, passed on as they come.

use std::rc::Rc;

use ::http::StatusCode;
use mesh_core::l7::{Backend, BackendTarget, split};
use mesh_transport::hbone::ConnectRequest;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};

use super::{Arrival, admission, stream_of, watch::Watch};
use crate::{
    upstream::{self, Cluster, ClusterKey, Endpoint, Stream, UpstreamError},
    worker::Worker,
};

/// Connects the destination, and only then accepts the client's tunnel.
pub(super) async fn connect_first(worker: &Rc<Worker>, arrival: &Arrival, mut request: ConnectRequest) {
    let connected = tokio::select! {
        connected = connect(worker, arrival) => connected,
        () = request.withdrawn() => return,
    };
    match connected {
        Ok(reached) => {
            let Ok(tunnel) = request.accept().await else { return };
            if let Some(stream) = stream_of(tunnel) {
                let watch = Watch::begin(worker, arrival, reached.cluster, reached.endpoint);
                relay(arrival, watch.of(stream), reached.stream).await;
            }
        }
        Err(error) => {
            refused(arrival, &error);
            let denied = matches!(error, UpstreamError::Denied(_));
            request.refuse(if denied { StatusCode::UNAUTHORIZED } else { StatusCode::SERVICE_UNAVAILABLE }).await;
        }
    }
}

/// Carries what a client has begun to say already.
pub(super) async fn carry(worker: &Rc<Worker>, arrival: &Arrival, stream: impl AsyncRead + AsyncWrite + Unpin) {
    match connect(worker, arrival).await {
        Ok(reached) => relay(arrival, stream, reached.stream).await,
        Err(error) => refused(arrival, &error),
    }
}

/// The same to one of several destinations, by weight.
pub(crate) async fn carry_by(
    worker: &Rc<Worker>,
    arrival: &Arrival,
    stream: impl AsyncRead + AsyncWrite + Unpin,
    backends: &[Backend],
) {
    let chosen = split::pick(backends, fastrand::u64(..)).map(|backend| &backend.target);
    let key = match chosen {
        Some(BackendTarget::Service { hostname, port: Some(port), subset }) => {
            Ok(ClusterKey::Service { hostname: hostname.clone(), port: *port, subset: subset.clone() })
        }
        Some(BackendTarget::Unresolved { reason, .. }) => Err(UpstreamError::Connect(reason.to_string())),
        Some(BackendTarget::Service { port: None, .. }) | None => Err(UpstreamError::NoEndpoint),
    };
    let connected = match key {
        Ok(key) => connect_to(worker, arrival, Some(&key)).await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(reached) => relay(arrival, stream, reached.stream).await,
        Err(error) => refused(arrival, &error),
    }
}

/// A destination that is connected.
struct Reached {
    cluster: Rc<Cluster>,
    endpoint: Rc<Endpoint>,
    stream: Stream,
}

async fn connect(worker: &Rc<Worker>, arrival: &Arrival) -> Result<Reached, UpstreamError> {
    connect_to(worker, arrival, ClusterKey::of_target(&arrival.target).as_ref()).await
}

async fn connect_to(
    worker: &Rc<Worker>,
    arrival: &Arrival,
    key: Option<&ClusterKey>,
) -> Result<Reached, UpstreamError> {
    admission::of_connection(worker, arrival).map_err(Box::new)?;
    let cluster = Cluster::ready(worker, key.ok_or(UpstreamError::NoEndpoint)?).await?;
    let node = cluster.only_node(worker, arrival.client.workload.as_deref());
    let endpoint = cluster.pick(&upstream::Wish { asked: arrival.asked, node, ..Default::default() })?;
    let stream = upstream::connect(worker, &endpoint, Some(arrival.client.address), arrival.trace, None).await?;
    Ok(Reached { cluster, endpoint, stream })
}

fn refused(arrival: &Arrival, error: &UpstreamError) {
    let client = &arrival.client;
    tracing::info!(
        target: "access", client = %client.address, identity = client.name(), port = arrival.target.port(), %error,
        "connection refused"
    );
}

/// Half-close stays half-close; whatever breaks one side resets the other.
async fn relay(arrival: &Arrival, mut stream: impl AsyncRead + AsyncWrite + Unpin, mut upstream: Stream) {
    let relayed = copy_bidirectional(&mut stream, &mut upstream).await;
    let client = &arrival.client;
    match relayed {
        Ok((sent, received)) => tracing::info!(
            target: "access", client = %client.address, identity = client.name(), sent, received, "connection"
        ),
        Err(error) => {
            upstream.reset();
            tracing::info!(
                target: "access", client = %client.address, identity = client.name(), %error, "connection reset"
            );
        }
    }
}
