//! The way to the control plane for one who has a token: TLS to whoever has its name, and gRPC in it.

use std::error::Error as _;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use mesh_transport::TrustFeed;
use rustls_pki_types::ServerName;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::authority::{AuthorityError, RemoteSettings};
use crate::connector::Connector;

/// Between pings, and how long one may stay unanswered.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// A connection that is made when it is needed, and the token that is shown in it. Clones share the connection.
#[derive(Clone)]
pub struct Link {
    address: String,
    token: PathBuf,
    channel: Channel,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Link {
    /// To a server that is judged by the roots of the settings' file and by those that `trust` tells of. Must be called within
    /// the runtime that drives the connection.
    ///
    /// # Errors
    /// The server's name is none.
    pub fn new(settings: &RemoteSettings, trust: TrustFeed) -> Result<Self, AuthorityError> {
        let name = ServerName::try_from(settings.name.clone());
        let name = name.map_err(|_| AuthorityError::Name(settings.name.clone()))?;
        Ok(Self::to(settings, name, trust))
    }

    pub(crate) fn to(settings: &RemoteSettings, name: ServerName<'static>, trust: TrustFeed) -> Self {
        let (address, root) = (settings.address.clone(), settings.root.clone());
        let connector = Connector { address: address.clone(), name, root, trust };
        // The connector knows where to go; the URI is what HTTP/2 says to the server.
        let channel = Endpoint::from_static("https://mesh-ca")
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .connect_with_connector_lazy(connector);
        Self { address, token: settings.token.clone(), channel }
    }

    /// `HOST:PORT`
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What calls are made with.
    #[must_use]
    pub fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone())
    }

    /// A request with the token, which is read anew each time: projected tokens are replaced while we run.
    ///
    /// # Errors
    /// There is no token in the file.
    pub async fn with_token<T>(&self, message: T) -> Result<Request<T>, Status> {
        let path = self.token.display();
        let token = tokio::fs::read_to_string(&self.token).await;
        let token =
            token.map_err(|error| Status::failed_precondition(format!("cannot read the token {path}: {error}")))?;
        let mut header: AsciiMetadataValue = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| Status::failed_precondition(format!("the token {path} is not one line of ASCII")))?;
        header.set_sensitive(true);
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", header);
        Ok(request)
    }
}

/// What a status says, with what lies beneath it: "transport error" alone helps nobody.
#[must_use]
pub fn explain(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
