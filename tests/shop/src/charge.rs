//! The payment service, as its client sees it.

use std::time::Duration;

use http::uri::PathAndQuery;
use serde_json::Value;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::connections::SharedConnection;
use crate::failure::{Failure, chain};
use crate::payment::{CHARGE, ChargeReply, ChargeRequest, PING_EVERY, PING_TIMEOUT};
use crate::peers::Address;
use crate::tracing_headers::TracingHeaders;
use crate::upstream::{CONNECT_TIMEOUT, LEAF_TIMEOUT};

/// Charges over one HTTP/2 connection, which all orders share.
pub(crate) struct Payments {
    address: Address,
    connection: SharedConnection<Channel>,
}

/// A charge that was made.
pub(crate) struct Charged {
    pub(crate) receipt: String,
    pub(crate) hop: Value,
}

impl Payments {
    pub(crate) fn new(address: Address, max_age: Duration) -> Self {
        let connection = SharedConnection::new(max_age);
        Self { address, connection }
    }

    /// Charges; a kept connection that proves dead is replaced once.
    pub(crate) async fn charge(&self, charge: ChargeRequest, headers: &TracingHeaders) -> Result<Charged, Failure> {
        let limit = LEAF_TIMEOUT;
        let charging = self.charge_with_retry(charge, headers);
        let answered = tokio::time::timeout(limit, charging).await.unwrap_or_else(|_| {
            self.connection.forget();
            let reason = format!("no answer from {} within {} s", self.address, limit.as_secs());
            Err(self.failure(reason))
        })?;
        let hop = serde_json::from_str(&answered.hop)
            .map_err(|error| self.failure(format!("its hop is not JSON: {error}")))?;
        Ok(Charged { receipt: answered.receipt, hop })
    }

    async fn charge_with_retry(&self, charge: ChargeRequest, headers: &TracingHeaders) -> Result<ChargeReply, Failure> {
        if let Some(kept) = self.connection.current() {
            match charge_over(kept, &charge, headers).await {
                Ok(reply) => return Ok(reply),
                // What the transport makes of a dead connection; a refusal by the service itself is final.
                Err(status) if is_of_connection(&status) => self.connection.forget(),
                Err(status) => return Err(self.failure(said(&status))),
            }
        }
        let channel = self.open().await?;
        self.connection.keep(channel.clone());
        charge_over(channel, &charge, headers).await.map_err(|status| {
            self.connection.forget();
            self.failure(said(&status))
        })
    }

    async fn open(&self) -> Result<Channel, Failure> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        let endpoint = endpoint.map_err(|error| self.failure(chain(&error)))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        endpoint.connect().await.map_err(|error| {
            let reason = format!("connecting to {} failed: {}", self.address, chain(&error));
            self.failure(reason)
        })
    }

    fn failure(&self, reason: String) -> Failure {
        Failure { failed: "payment".to_owned(), reason, reported_by: "order".to_owned() }
    }
}

async fn charge_over(
    channel: Channel,
    charge: &ChargeRequest,
    headers: &TracingHeaders,
) -> Result<ChargeReply, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(chain(&error)))?;
    let mut metadata = http::HeaderMap::new();
    headers.copy_to(&mut metadata);
    let mut request = Request::new(charge.clone());
    *request.metadata_mut() = MetadataMap::from_headers(metadata);
    let path = PathAndQuery::from_static(CHARGE);
    let codec = ProstCodec::<ChargeRequest, ChargeReply>::default();
    Ok(client.unary(request, path, codec).await?.into_inner())
}

fn is_of_connection(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled)
}

fn said(status: &Status) -> String {
    format!("gRPC {:?}: {}", status.code(), status.message())
}
