//! Payment: gRPC, `shop.v1.Payment/Charge` (payment.proto).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpListener;
use tonic::{Code, Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::about::{About, Ends, LogLine};
use crate::server::accept_all;
use crate::tracing_headers::TracingHeaders;

pub(crate) const CHARGE: &str = "/shop.v1.Payment/Charge";
/// How often an HTTP/2 connection is probed, and how long it may owe the answer.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(10);
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// `shop.v1.ChargeRequest`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ChargeRequest {
    /// The order; charged once, however often asked.
    #[prost(string, tag = "1")]
    pub order_id: String,
    /// The amount, in cents.
    #[prost(uint64, tag = "2")]
    pub amount_cents: u64,
    /// The secret that must not be seen on the wire.
    #[prost(string, tag = "3")]
    pub card_number: String,
    /// What a capture is searched for.
    #[prost(string, tag = "4")]
    pub marker: String,
}

/// `shop.v1.ChargeReply`
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ChargeReply {
    /// Follows from the order, so that a repeated charge is seen to be the same.
    #[prost(string, tag = "1")]
    pub receipt: String,
    /// A [`Hop`](crate::Hop) as JSON.
    #[prost(string, tag = "2")]
    pub hop: String,
    /// The request's marker.
    #[prost(string, tag = "3")]
    pub marker: String,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, about: About) {
    let about = Arc::new(about);
    accept_all(listener, |stream, ends| {
        let about = Arc::clone(&about);
        async move {
            let service = service_fn(|request| {
                let about = Arc::clone(&about);
                async move { Ok::<_, Infallible>(respond(about, request, ends).await) }
            });
            // A broken connection concerns its client alone.
            let _ = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await;
}

async fn respond(
    about: Arc<About>,
    request: http::Request<hyper::body::Incoming>,
    ends: Ends,
) -> http::Response<tonic::body::Body> {
    if request.uri().path() != CHARGE {
        return Status::unimplemented("only shop.v1.Payment/Charge is served").into_http();
    }
    let headers = TracingHeaders::from_request(request.headers());
    let charge = Charge { about, ends, headers };
    tonic::server::Grpc::new(ProstCodec::default()).unary(charge, request).await
}

/// One call of `Charge`.
struct Charge {
    about: Arc<About>,
    ends: Ends,
    headers: TracingHeaders,
}

impl tonic::server::UnaryService<ChargeRequest> for Charge {
    type Response = ChargeReply;
    type Future = std::future::Ready<Result<Response<ChargeReply>, Status>>;

    fn call(&mut self, request: Request<ChargeRequest>) -> Self::Future {
        let started = Instant::now();
        let request = request.into_inner();
        let answer = self.answer(&request);
        let outcome = match &answer {
            Ok(_) => Code::Ok,
            Err(status) => status.code(),
        };
        self.about.log(&LogLine {
            ends: self.ends,
            request: CHARGE,
            outcome: &format!("{outcome:?}"),
            marker: &request.marker,
            took: started.elapsed(),
        });
        std::future::ready(answer.map(Response::new))
    }
}

impl Charge {
    fn answer(&self, request: &ChargeRequest) -> Result<ChargeReply, Status> {
        if request.order_id.is_empty() || request.card_number.is_empty() {
            return Err(Status::invalid_argument("order_id and card_number must be given"));
        }
        Ok(ChargeReply {
            receipt: format!("r-{}-{}", request.order_id, request.amount_cents),
            hop: json!(self.about.hop(self.ends, &self.headers)).to_string(),
            marker: request.marker.clone(),
        })
    }
}
