//! Serving: accepted connections to requests to a handler, and one log line each.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use crate::about::{About, Ends, LogLine};
use crate::exchange::{Exchange, Reply};
use crate::failure::Refusal;
use crate::tracing_headers::TracingHeaders;

/// Bound on a request's body, bytes.
const MOST_BODY: usize = 64 << 10;
/// How long a connection may stand without a whole request head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after a failed accept, which mostly means that descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a service does with a request.
pub(crate) trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: &Exchange) -> impl Future<Output = Result<Reply, Refusal>> + Send;
}

/// Accepts connections for ever, each served by `serve` on a task of its own.
pub(crate) async fn accept_all<F, S>(listener: TcpListener, serve: F)
where
    F: Fn(TcpStream, Ends) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    loop {
        let accepted = listener.accept().await;
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // A connection that is reset already has no local address any more.
        let Ok(local) = stream.local_addr() else {
            continue;
        };
        stream.set_nodelay(true).ok();
        tokio::spawn(serve(stream, Ends::new(peer, local)));
    }
}

/// Serves HTTP/1.1 for ever.
pub(crate) async fn serve_http<H: Handler>(listener: TcpListener, about: About, handler: H) {
    let shared = Arc::new((about, handler));
    accept_all(listener, |stream, ends| {
        let shared = Arc::clone(&shared);
        async move {
            let service = service_fn(|request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(respond(&shared.0, &shared.1, request, ends).await) }
            });
            // A broken connection concerns its client alone.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await;
}

async fn respond<H: Handler>(
    about: &About,
    handler: &H,
    request: Request<Incoming>,
    ends: Ends,
) -> Response<Full<Bytes>> {
    let started = Instant::now();
    let name = format!("{} {}", request.method(), request.uri().path());
    let headers = TracingHeaders::from_request(request.headers());
    let marker = headers.marker().to_owned();
    let reply = match read(request, headers, ends).await {
        Ok(exchange) => handler.answer(&exchange).await,
        Err(refusal) => Err(refusal),
    }
    .unwrap_or_else(Refusal::into_reply);
    about.log(&LogLine {
        ends,
        request: &name,
        outcome: reply.status.as_str(),
        marker: &marker,
        took: started.elapsed(),
    });
    let mut response = Response::new(Full::new(reply.body));
    *response.status_mut() = reply.status;
    let kind = header::HeaderValue::from_static(reply.content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

async fn read(request: Request<Incoming>, headers: TracingHeaders, ends: Ends) -> Result<Exchange, Refusal> {
    let (head, body) = request.into_parts();
    let query = head.uri.query().unwrap_or_default();
    let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let body = Limited::new(body, MOST_BODY).collect().await;
    let body = body.map_err(|error| Refusal::BadRequest(format!("the body could not be read: {error}")))?;
    Ok(Exchange { method: head.method, path: head.uri.path().to_owned(), query, headers, body: body.to_bytes(), ends })
}
