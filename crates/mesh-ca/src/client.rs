//! The client: asks for certificates, and listens for changes of whom to trust.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::uri::PathAndQuery;
use mesh_core::SpiffeId;
use mesh_transport::source::Signing;
use mesh_transport::{CertificateSource, PeerVerifier, SignError, SignedCertificate, TrustBundle, TrustFeed};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::sync::watch;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::authority::RemoteSettings;
use crate::connector::ClockOff;
use crate::link::{Link, explain};
use crate::proto::{
    CREATE_CERTIFICATE, CreateCertificateRequest, CreateCertificateResponse, TrustBundleMessage, WATCH_TRUST_BUNDLE,
    WatchTrustBundleRequest,
};
use crate::wire;

/// How long the CA may take to answer; connections that wait for a certificate wait a little longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// The longest answer that is read, a trust bundle with its revocation lists.
const MAX_ANSWER: usize = 8 << 20;
/// Pauses before the trust bundle is asked for again; they double.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The same where the CA does not know the method.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(600);

/// The CA over the network.
pub struct CaClient {
    link: Link,
    trust: watch::Sender<Arc<PeerVerifier>>,
    /// The CA tells of its trust bundle by itself, so that what comes with certificates says nothing new.
    is_watched: AtomicBool,
}

impl fmt::Debug for CaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaClient").field("address", &self.link.address()).finish_non_exhaustive()
    }
}

impl CaClient {
    /// A client that connects when it is needed. Must be called within the runtime that drives its connection.
    #[must_use]
    pub fn new(settings: &RemoteSettings, name: ServerName<'static>) -> Self {
        let trust = watch::Sender::new(Arc::new(PeerVerifier::of_nobody()));
        let link = Link::to(settings, name, trust.subscribe());
        Self { link, trust, is_watched: AtomicBool::new(false) }
    }

    /// Listens for changes of the trust bundle. Runs until dropped.
    pub async fn follow(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let ended = self.watch().await;
            let was_watched = self.is_watched.swap(false, Ordering::Relaxed);
            match ended {
                // The server ended the stream in order: it restarts.
                Ok(()) => pause = FIRST_PAUSE,
                Err(status) if status.code() == Code::Unimplemented => {
                    tracing::info!("the CA tells of its roots with certificates alone");
                    pause = UNKNOWN_PAUSE;
                }
                Err(status) if was_watched => {
                    tracing::warn!(
                        address = self.link.address(),
                        error = explain(&status),
                        "trust bundle watched no more; the last one stays in force"
                    );
                    pause = FIRST_PAUSE;
                }
                Err(status) => tracing::debug!(error = explain(&status), "trust bundle not watched"),
            }
            tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64())).await;
            pause = (pause * 2).min(LONGEST_PAUSE.max(pause));
        }
    }

    async fn watch(&self) -> Result<(), Status> {
        let mut grpc = self.link.grpc().max_decoding_message_size(MAX_ANSWER);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let codec = ProstCodec::<WatchTrustBundleRequest, TrustBundleMessage>::default();
        let request = self.link.with_token(WatchTrustBundleRequest {}).await?;
        let path = PathAndQuery::from_static(WATCH_TRUST_BUNDLE);
        let mut stream = grpc.server_streaming(request, path, codec).await?.into_inner();
        while let Some(message) = stream.message().await? {
            self.is_watched.store(true, Ordering::Relaxed);
            self.put_in_force(wire::bundle(&message)).map_err(Status::internal)?;
        }
        Ok(())
    }

    async fn create(&self, csr: &str, identity: &SpiffeId, lifetime: Duration) -> Result<SignedCertificate, SignError> {
        let unreachable = |problem| SignError::Unreachable { address: self.link.address().to_owned(), problem };
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        let message = CreateCertificateRequest::new(csr.to_owned(), identity.as_str(), seconds);
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.call(message)).await;
        let answer = answer.map_err(|_| unreachable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())))?;
        let answer = answer.map_err(|status| match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => {
                match ClockOff::among(status.source()) {
                    Some(ClockOff { behind }) => {
                        SignError::Clock { address: self.link.address().to_owned(), behind: *behind }
                    }
                    None => unreachable(explain(&status)),
                }
            }
            _ => SignError::Refused(explain(&status)),
        })?;
        let (signed, roots) = wire::read(&answer).map_err(SignError::Refused)?;
        self.learn(roots).map_err(SignError::Refused)?;
        Ok(signed)
    }

    async fn call(&self, message: CreateCertificateRequest) -> Result<CreateCertificateResponse, Status> {
        let mut grpc = self.link.grpc().max_decoding_message_size(MAX_ANSWER);
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let codec = ProstCodec::<CreateCertificateRequest, CreateCertificateResponse>::default();
        let request = self.link.with_token(message).await?;
        Ok(grpc.unary(request, PathAndQuery::from_static(CREATE_CERTIFICATE), codec).await?.into_inner())
    }

    /// Takes the roots that came with a certificate, where the CA does not tell of them otherwise.
    fn learn(&self, roots: Vec<CertificateDer<'static>>) -> Result<(), String> {
        if self.is_watched.load(Ordering::Relaxed) {
            return Ok(());
        }
        let known = self.trust.borrow().bundle().clone();
        // Lists that were told of stay in force: a watch that broke is no word that nothing is revoked.
        self.put_in_force(TrustBundle { roots: roots.into(), ..known })
    }

    fn put_in_force(&self, bundle: TrustBundle) -> Result<(), String> {
        if bundle == *self.trust.borrow().bundle() {
            return Ok(());
        }
        let (roots, lists) = (bundle.roots.len(), bundle.crls.len());
        let verifier = PeerVerifier::new(bundle).map_err(|error| error.to_string())?;
        tracing::info!(roots, lists, "trust bundle in force");
        self.trust.send_replace(Arc::new(verifier));
        Ok(())
    }
}

impl CertificateSource for CaClient {
    fn sign<'a>(&'a self, request: &'a str, identity: &'a SpiffeId, lifetime: Duration) -> Signing<'a> {
        Box::pin(self.create(request, identity, lifetime))
    }

    fn trust(&self) -> TrustFeed {
        self.trust.subscribe()
    }
}
