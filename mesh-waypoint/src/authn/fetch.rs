//! Fetches an issuer's keys: one small document by HTTP or HTTPS, within bounds.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    Request, StatusCode, Uri,
    header::{ACCEPT, HOST, USER_AGENT},
    uri::Scheme,
};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mesh_core::policy::KeySource;
use mesh_jwt::{KeySet, KeySetError};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

/// Octets that a document may have.
const MAX_DOCUMENT: usize = 1 << 20;
/// How long a fetch may take where no rule says: Istio's default.
const USUAL_LIMIT: Duration = Duration::from_secs(5);

/// Why keys could not be fetched. All of it may be over at the next try.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The address is none.
    #[error("{0:?} is no address with http or https")]
    Address(String),
    /// The server cannot be connected.
    #[error("{host} cannot be connected")]
    Connect { host: String, source: std::io::Error },
    /// There is nobody to trust.
    #[error("no root certificates were found in the system; SSL_CERT_FILE may name them")]
    NoRoots,
    /// The library takes no configuration like this.
    #[error("TLS cannot be configured")]
    Tls(#[from] rustls::Error),
    /// The exchange ended before its end.
    #[error("the exchange of HTTP failed")]
    Exchange(#[from] hyper::Error),
    /// The server has nothing for us.
    #[error("the server answered {0}; redirects are not followed")]
    Status(StatusCode),
    /// The document is too long, or broken off.
    #[error("the document was not read to its end, or is over {MAX_DOCUMENT} octets")]
    Document(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The issuer does not say where its keys are.
    #[error("the issuer's configuration is not of its form")]
    Configuration(#[from] serde_json::Error),
    /// Somebody else's configuration.
    #[error("the configuration is of the issuer {0:?}")]
    OtherIssuer(String),
    /// The document is no key set.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
    /// It took too long.
    #[error("it took longer than {0:?}")]
    Timeout(Duration),
}

/// What an issuer says of itself (OpenID Connect Discovery 1.0, section 3), as far as it matters here.
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// Fetches a key set: its text, and what it says.
///
/// # Errors
/// See [`FetchError`].
pub(super) async fn key_set(source: &KeySource, limit: Option<Duration>) -> Result<(Bytes, KeySet), FetchError> {
    let limit = limit.unwrap_or(USUAL_LIMIT);
    let fetched = timeout(limit, fetch(source)).await.map_err(|_| FetchError::Timeout(limit))?;
    let text = fetched?;
    let keys = KeySet::parse(&text)?;
    Ok((text, keys))
}

async fn fetch(source: &KeySource) -> Result<Bytes, FetchError> {
    match source {
        KeySource::Inline(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
        KeySource::Url(url) => get(url).await,
        KeySource::Issuer(issuer) => {
            let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
            let configuration: Configuration = serde_json::from_slice(&get(&address).await?)?;
            if *configuration.issuer != **issuer {
                return Err(FetchError::OtherIssuer(configuration.issuer));
            }
            get(&configuration.jwks_uri).await
        }
    }
}

async fn get(url: &str) -> Result<Bytes, FetchError> {
    let malformed = || FetchError::Address(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| malformed())?;
    let authority = uri.authority().ok_or_else(malformed)?.clone();
    let is_https = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return Err(malformed()),
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = authority.port_u16().unwrap_or(if is_https { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path)
        .header(HOST, authority.as_str())
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("mesh-waypoint/", env!("CARGO_PKG_VERSION")))
        .body(Empty::new())
        .map_err(|_| malformed())?;
    let connect = |source| FetchError::Connect { host: authority.to_string(), source };
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(connect)?;
    if !is_https {
        return exchange(stream, request).await;
    }
    let name = ServerName::try_from(host).map_err(|_| malformed())?;
    let stream = TlsConnector::from(Arc::new(tls().await?)).connect(name, stream).await.map_err(connect)?;
    exchange(stream, request).await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Bytes, FetchError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with its sender; what fails of it fails the response as well.
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await.map_err(FetchError::Document)?;
    connection.abort();
    Ok(body.to_bytes())
}

/// TLS as the system trusts others. Its roots are read each time: they are renewed more often than this program.
async fn tls() -> Result<ClientConfig, FetchError> {
    let load = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
    let found = load.await.map_err(|_| FetchError::NoRoots)?;
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        return Err(FetchError::NoRoots);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
