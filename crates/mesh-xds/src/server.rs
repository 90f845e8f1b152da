//! The server: authenticated, bounded, a task for each stream.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mesh_ca::Gatekeeper;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::inquiry::{self, Answers, MAX_QUESTION};
use crate::proto::{
    DELTA_AGGREGATED_RESOURCES, DeltaDiscoveryRequest, DeltaDiscoveryResponse, IN_FORCE, InForceRequest,
    InForceResponse,
};
use crate::session::Session;
use crate::state::State;
use crate::subscribers::{Place, Subscribers};

/// The longest request that is read: the versions of a few hundred thousand resources.
const MAX_REQUEST: usize = 64 << 20;
/// Responses that may wait for one who does not read: each type has one on its way at most.
const QUEUE: usize = 1;
/// How long a stream lives at most. Its subscriber begins another where this one ended, with its token judged anew, and
/// perhaps at another replica: those that were started later get their share.
const LIFE: Duration = Duration::from_secs(30 * 60);

/// Serves what there is by delta xDS, and hands on to `next` what is asked by other methods. Clones share everything.
pub struct XdsService<G, N> {
    shared: Arc<Shared<G>>,
    next: N,
}

struct Shared<G> {
    gatekeeper: G,
    state: watch::Receiver<State>,
    subscribers: Subscribers,
}

impl<G, N: Clone> Clone for XdsService<G, N> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), next: self.next.clone() }
    }
}

impl<G: Gatekeeper, N> XdsService<G, N> {
    /// Serves `state` to those whom the gatekeeper knows.
    pub fn new(gatekeeper: G, state: watch::Receiver<State>, next: N) -> Self {
        Self { shared: Arc::new(Shared { gatekeeper, state, subscribers: Subscribers::default() }), next }
    }

    /// Who is told.
    #[must_use]
    pub fn subscribers(&self) -> Subscribers {
        self.shared.subscribers.clone()
    }
}

impl<G: Gatekeeper> Shared<G> {
    async fn stream(&self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Result<Response<Responses>, Status> {
        let peer = request.extensions().get::<std::net::SocketAddr>().copied();
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        let caller = mesh_ca::caller(&self.gatekeeper, request.metadata()).await;
        let caller = caller.inspect_err(|status| {
            tracing::warn!(peer, reason = status.message(), "configuration refused");
        })?;
        let place = self.subscribers.add(caller.clone());
        let place = place.ok_or_else(|| Status::resource_exhausted(format!("{caller} has too many streams open")))?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let stream = Stream { requests: request.into_inner(), responses: sender, state: self.state.clone(), place };
        tokio::spawn(async move {
            tracing::info!(peer, %caller, "configuration followed");
            let ended = stream.run().await;
            tracing::info!(peer, %caller, ended, "configuration followed no more");
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// One stream.
struct Stream {
    requests: Streaming<DeltaDiscoveryRequest>,
    responses: mpsc::Sender<Result<DeltaDiscoveryResponse, Status>>,
    state: watch::Receiver<State>,
    place: Place,
}

impl Stream {
    /// Runs until either side ends; says why.
    async fn run(mut self) -> &'static str {
        let mut session = Session::default();
        let end = Instant::now() + LIFE.mul_f64(0.75 + 0.5 * fastrand::f64());
        loop {
            let state = self.state.borrow_and_update().clone();
            while let Some(response) = session.next(&state) {
                self.place.note(&session);
                match timeout_at(end, self.responses.send(Ok(response))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return "the subscriber is gone",
                    Err(_) => return "the subscriber does not read",
                }
            }
            tokio::select! {
                request = self.requests.message() => {
                    let Ok(Some(request)) = request else { return "the subscriber has ended it" };
                    if let Some(node) = &request.node {
                        self.place.introduce(node);
                    }
                    let taken = session.take(&request, &self.state.borrow());
                    self.place.note(&session);
                    if let Err(error) = taken {
                        // Whoever does not read this finds the stream ended.
                        let _ = self.responses.try_send(Err(Status::invalid_argument(error.to_string())));
                        return "the subscriber asks for what cannot be";
                    }
                }
                changed = self.state.changed() => if changed.is_err() { return "nothing is served any more" },
                () = self.responses.closed() => return "the subscriber is gone",
                () = sleep_until(end) => return "its time is over",
            }
        }
    }
}

type Responses = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;

struct Delta<G>(Arc<Shared<G>>);

struct Inquiries<G>(Arc<Shared<G>>);

impl<G: Gatekeeper> StreamingService<InForceRequest> for Inquiries<G> {
    type Response = InForceResponse;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<InForceRequest>>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move { inquiry::answer(&shared.gatekeeper, shared.subscribers.clone(), request).await })
    }
}

impl<G: Gatekeeper> StreamingService<DeltaDiscoveryRequest> for Delta<G> {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = Responses;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Responses>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move { shared.stream(request).await })
    }
}

impl<G, N> Service<http::Request<Body>> for XdsService<G, N>
where
    G: Gatekeeper,
    N: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    N::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.next.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.shared.clone();
        match request.uri().path() {
            DELTA_AGGREGATED_RESOURCES => Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_REQUEST);
                Ok(grpc.streaming(Delta(shared), request).await)
            }),
            IN_FORCE => Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_QUESTION);
                Ok(grpc.streaming(Inquiries(shared), request).await)
            }),
            _ => Box::pin(self.next.call(request)),
        }
    }
}
