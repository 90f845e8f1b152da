//! The two methods: authenticated, authorized, bounded, and each refusal told to the caller, the log and a counter.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use mesh_core::{SpiffeId, TrustDomain};
use mesh_transport::csr::{CertificateRequest, MAX_REQUEST};
use mesh_transport::{CaError, CertificateSource, LocalAuthority};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::gatekeeper::{self, Caller, Gatekeeper, refusal};
use crate::proto::{
    CREATE_CERTIFICATE, CreateCertificateRequest, CreateCertificateResponse, TrustBundleMessage, WATCH_TRUST_BUNDLE,
    WatchTrustBundleRequest,
};
use crate::rate::Rates;
use crate::wire;

/// The longest message that is read: a request, and what goes around it.
const MAX_MESSAGE: usize = 2 * MAX_REQUEST;
/// Bundles that may wait for a slow watcher.
const QUEUE: usize = 4;

/// What became of a request: a closed set, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Signed.
    Signed,
    /// The request cannot be understood, or is not one that is signed.
    Invalid,
    /// The caller is nobody known here.
    Unauthenticated,
    /// The caller may not have what it asks for.
    Denied,
    /// The caller asks too often.
    TooMany,
    /// The authority could not sign.
    Failed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] =
        [Self::Signed, Self::Invalid, Self::Unauthenticated, Self::Denied, Self::TooMany, Self::Failed];

    /// A metric's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::TooMany => "too_many",
            Self::Failed => "failed",
        }
    }

    fn of(code: Code) -> Self {
        match code {
            Code::InvalidArgument => Self::Invalid,
            Code::Unauthenticated => Self::Unauthenticated,
            Code::PermissionDenied => Self::Denied,
            Code::ResourceExhausted => Self::TooMany,
            _ => Self::Failed,
        }
    }
}

/// How many requests came to what.
#[derive(Debug, Default)]
pub struct Outcomes([AtomicU64; Outcome::ALL.len()]);

impl Outcomes {
    /// So many requests came to this.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize].load(Ordering::Relaxed)
    }

    fn add(&self, outcome: Outcome) {
        self.0[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// The CA's methods over gRPC. Clones share everything.
pub struct CaService<G>(Arc<Shared<G>>);

struct Shared<G> {
    authority: Arc<LocalAuthority>,
    gatekeeper: G,
    trust_domain: TrustDomain,
    longest: Duration,
    rates: Rates,
    outcomes: Arc<Outcomes>,
}

impl<G> Clone for CaService<G> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<G: Gatekeeper> CaService<G> {
    /// Signs for identities of `trust_domain`, certificates that live for up to `longest`.
    #[must_use]
    pub fn new(authority: Arc<LocalAuthority>, gatekeeper: G, trust_domain: TrustDomain, longest: Duration) -> Self {
        let (rates, outcomes) = (Rates::default(), Arc::default());
        Self(Arc::new(Shared { authority, gatekeeper, trust_domain, longest, rates, outcomes }))
    }

    /// What requests have come to so far.
    #[must_use]
    pub fn outcomes(&self) -> Arc<Outcomes> {
        self.0.outcomes.clone()
    }

    async fn create(
        self,
        request: Request<CreateCertificateRequest>,
    ) -> Result<Response<CreateCertificateResponse>, Status> {
        let peer = request.extensions().get::<std::net::SocketAddr>().copied();
        let wanted = request.get_ref().impersonated().unwrap_or("nobody").chars().take(300).collect::<String>();
        let result = self.0.create(request).await;
        let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
        match &result {
            Ok((caller, _)) => {
                self.0.outcomes.add(Outcome::Signed);
                tracing::info!(peer, %caller, identity = wanted, "certificate signed");
            }
            Err(status) => {
                let outcome = Outcome::of(status.code());
                self.0.outcomes.add(outcome);
                let (outcome, reason) = (outcome.as_str(), status.message());
                tracing::warn!(peer, identity = wanted, outcome, reason, "certificate refused");
            }
        }
        result.map(|(_, response)| Response::new(response))
    }

    async fn watch(self, request: Request<WatchTrustBundleRequest>) -> Result<Response<Bundles>, Status> {
        self.0.caller(&request).await?;
        let (sender, receiver) = tokio::sync::mpsc::channel(QUEUE);
        let mut trust = self.0.authority.trust();
        tokio::spawn(async move {
            loop {
                let message = wire::message(trust.borrow_and_update().bundle());
                // A watcher that went away, while it was sent to or waited for.
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
                tokio::select! {
                    changed = trust.changed() => if changed.is_err() { return },
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

impl<G: Gatekeeper> Shared<G> {
    /// Who asks, if it may ask now.
    async fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = gatekeeper::caller(&self.gatekeeper, request.metadata()).await?;
        if self.rates.take(&caller, Instant::now()) {
            Ok(caller)
        } else {
            Err(Status::resource_exhausted(format!("{caller} asks too often; wait a second")))
        }
    }

    async fn create(
        &self,
        request: Request<CreateCertificateRequest>,
    ) -> Result<(Caller, CreateCertificateResponse), Status> {
        let caller = self.caller(&request).await?;
        let request = request.into_inner();
        let wanted = request.impersonated().ok_or_else(|| {
            Status::invalid_argument("metadata has no text ImpersonatedIdentity: for which account is the certificate?")
        })?;
        let identity = SpiffeId::parse(wanted).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !identity.is_of(&self.trust_domain) {
            let own = &self.trust_domain;
            return Err(Status::permission_denied(format!("{identity} is not of trust domain {own}")));
        }
        self.gatekeeper.authorize(&caller, &identity).await.map_err(|denial| refusal(&denial))?;
        let lifetime = self.lifetime(request.validity_duration)?;
        let authority = self.authority.current();
        let csr = CertificateRequest::from_pem(&request.csr).map_err(CaError::from);
        let signed = csr.and_then(|csr| authority.sign(&csr, &identity, lifetime, SystemTime::now()));
        let signed = signed.map_err(|error| match error {
            CaError::Request(error) => Status::invalid_argument(error.to_string()),
            other => Status::unavailable(other.to_string()),
        })?;
        Ok((caller, wire::response(&signed, authority.trust())))
    }

    /// Longer lives than are granted are shortened, as Istio's CA refuses them only by its own flag.
    fn lifetime(&self, seconds: i64) -> Result<Duration, Status> {
        match u64::try_from(seconds) {
            Ok(0) => Ok(self.longest),
            Ok(seconds) => Ok(Duration::from_secs(seconds).min(self.longest)),
            Err(_) => Err(Status::invalid_argument(format!("validity_duration is {seconds} seconds"))),
        }
    }
}

type Bundles = ReceiverStream<Result<TrustBundleMessage, Status>>;
type Answer<T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send>>;

struct Create<G>(CaService<G>);
struct Watch<G>(CaService<G>);

impl<G: Gatekeeper> UnaryService<CreateCertificateRequest> for Create<G> {
    type Response = CreateCertificateResponse;
    type Future = Answer<CreateCertificateResponse>;

    fn call(&mut self, request: Request<CreateCertificateRequest>) -> Self::Future {
        Box::pin(self.0.clone().create(request))
    }
}

impl<G: Gatekeeper> ServerStreamingService<WatchTrustBundleRequest> for Watch<G> {
    type Response = TrustBundleMessage;
    type ResponseStream = Bundles;
    type Future = Answer<Bundles>;

    fn call(&mut self, request: Request<WatchTrustBundleRequest>) -> Self::Future {
        Box::pin(self.0.clone().watch(request))
    }
}

impl<G: Gatekeeper> Service<http::Request<Body>> for CaService<G> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        match request.uri().path() {
            CREATE_CERTIFICATE => Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_MESSAGE);
                Ok(grpc.unary(Create(service), request).await)
            }),
            WATCH_TRUST_BUNDLE => Box::pin(async move {
                let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_MESSAGE);
                Ok(grpc.server_streaming(Watch(service), request).await)
            }),
            other => Box::pin(unknown(other)),
        }
    }
}

fn unknown(path: &str) -> Ready<Result<http::Response<Body>, Infallible>> {
    ready(Ok(Status::unimplemented(format!("there is no method {path} here")).into_http()))
}
