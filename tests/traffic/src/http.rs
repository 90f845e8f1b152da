//! A server of HTTP/1.1 that does what a request's path asks for, so that a test can say from outside what an application does.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::report;
use crate::socket;

/// What the requests so far have told the server.
#[derive(Clone, Debug)]
struct Application {
    name: Arc<str>,
    /// The status of every response, in place of what is asked for.
    always: Option<u16>,
    /// How often each path was asked for.
    seen: Arc<Mutex<HashMap<String, u32>>>,
}

/// Serves until the process is killed.
///
/// `/status/CODE` answers with that status, `/fail/N/...` with 503 the first N times that this very path is asked for, `/slow/MS/...`
/// after so many milliseconds; `/seen/PATH` says how often PATH was asked for, `/echo/...` what the request's header was. Every
/// response names the server in `x-served-by`.
pub(crate) async fn run(listen: std::net::SocketAddr, name: &str, always: Option<u16>) -> Result<()> {
    let listener = socket::listen(listen).with_context(|| format!("listening at {listen}"))?;
    report::print(&format!("listening {}", listener.local_addr()?));
    let application = Application { name: name.into(), always, seen: Arc::default() };
    accept(listener, application).await
}

async fn accept(listener: TcpListener, application: Application) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("accepting")?;
        stream.set_nodelay(true)?;
        let application = application.clone();
        tokio::spawn(async move {
            let serve = hyper::service::service_fn(move |request| answer(application.clone(), request));
            let connection = hyper::server::conn::http1::Builder::new();
            // A client that goes away in the middle is its own affair.
            let _ = connection.serve_connection(TokioIo::new(stream), serve).await;
        });
    }
}

async fn answer(application: Application, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut parts = path.trim_start_matches('/').splitn(3, '/');
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok()).unwrap_or_default();
    let (status, text) = match parts.next() {
        Some("seen") => {
            let asked = format!("/{}", path.trim_start_matches("/seen/"));
            (200, application.times(&asked).to_string())
        }
        Some("status") => (number(parts.next()), String::new()),
        Some("fail") => {
            let failing = application.note(&path) <= number(parts.next());
            (if failing { 503 } else { 200 }, String::new())
        }
        Some("slow") => {
            application.note(&path);
            tokio::time::sleep(Duration::from_millis(number(parts.next()).into())).await;
            (200, String::new())
        }
        Some("echo") => {
            let fields = head.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")));
            let fields: Vec<_> = fields.collect();
            (200, format!("{} {}\n{}\n\n{}", head.method, head.uri, fields.join("\n"), String::from_utf8_lossy(&body)))
        }
        _ => {
            application.note(&path);
            (200, String::new())
        }
    };
    let status = application.always.map_or(status, u32::from);
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() =
        u16::try_from(status).ok().and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or_default();
    if let Ok(name) = hyper::header::HeaderValue::from_str(&application.name) {
        response.headers_mut().insert("x-served-by", name);
    }
    Ok(response)
}

impl Application {
    /// Counts a request for a path, and says how many there were with it.
    fn note(&self, path: &str) -> u32 {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let times = seen.entry(path.to_owned()).or_default();
        *times += 1;
        *times
    }

    fn times(&self, path: &str) -> u32 {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied().unwrap_or_default()
    }
}
