//! What Prometheus is told of the authority and of the configuration that is served.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_admin::DISTRIBUTION;
use mesh_ca::{Outcome, Outcomes};
use mesh_transport::LocalAuthority;
use mesh_xds::{State, Subscribers};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::distribution;

/// How long a scrape may take, all in all: they are served one after another.
const SCRAPE: Duration = Duration::from_secs(2);
/// The longest request line and headers that are read, in bytes.
const MAX_REQUEST: usize = 8 << 10;
/// Pause after accept() failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What is told of, beside the authority.
pub(crate) struct Told {
    pub(crate) outcomes: Arc<Outcomes>,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) subscribers: Subscribers,
}

/// Answers every request with the metrics, and one for the distribution with that. Runs until dropped.
pub(crate) async fn serve(listener: TcpListener, told: &Told, authority: &LocalAuthority) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // A scraper that breaks off, or dawdles, is no news.
        let _ = timeout(SCRAPE, answer(stream, told, authority)).await;
    }
}

async fn answer(mut stream: TcpStream, told: &Told, authority: &LocalAuthority) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") && request.len() < MAX_REQUEST {
        let mut part = [0; 1024];
        match stream.read(&mut part).await? {
            0 => return Ok(()),
            count => request.extend_from_slice(&part[..count]),
        }
    }
    let path = request.split(|octet| *octet == b' ').nth(1);
    let (kind, body) = if path == Some(DISTRIBUTION.as_bytes()) {
        let told = distribution::told(&told.state.borrow(), &told.subscribers);
        ("application/json", serde_json::to_string(&told)?)
    } else {
        ("text/plain; version=0.0.4", text(told, authority))
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

fn text(told: &Told, authority: &LocalAuthority) -> String {
    let mut text = String::from(
        "# HELP mesh_ca_requests_total Requests for certificates by what they came to\n# TYPE mesh_ca_requests_total counter\n",
    );
    for outcome in Outcome::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "mesh_ca_requests_total{{outcome=\"{}\"}} {}",
            outcome.as_str(),
            told.outcomes.count(outcome)
        );
    }
    let current = authority.current();
    let left = current.not_after().duration_since(SystemTime::now()).unwrap_or(Duration::ZERO).as_secs();
    let (roots, lists) = (current.roots().len(), current.trust().crls.len());
    let distribution = distribution::told(&told.state.borrow(), &told.subscribers);
    let subscribers = &distribution.subscribers;
    let behind = subscribers.iter().filter(|subscriber| !subscriber.current).count();
    let rejecting = subscribers.iter().filter(|subscriber| subscriber.rejected.is_some()).count();
    for (name, help, value) in [
        ("mesh_control_config_generation", "Generation of the configuration that is served", distribution.generation),
        ("mesh_control_subscribers", "Programs that are told of the configuration", subscribers.len() as u64),
        (
            "mesh_control_subscribers_behind",
            "Those that have not put the generation that is served in force",
            behind as u64,
        ),
        ("mesh_control_subscribers_rejecting", "Those that have rejected something of it", rejecting as u64),
        ("mesh_ca_signer_expiry_seconds", "Seconds until the signing certificate ends", left),
        ("mesh_ca_roots", "Roots in the trust bundle", roots as u64),
        ("mesh_ca_revocation_lists", "Revocation lists in the trust bundle", lists as u64),
    ] {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use mesh_core::TrustDomain;
    use mesh_transport::CertificateAuthority;

    use super::*;

    #[test]
    fn reference_has_every_metric() {
        let authority = CertificateAuthority::generate(&TrustDomain::default(), SystemTime::now()).unwrap();
        let authority = LocalAuthority::fixed(authority).unwrap();
        let (_sender, state) = watch::channel(State::default());
        let told = Told { outcomes: Arc::default(), state, subscribers: Subscribers::default() };
        mesh_docs::hold_metrics_text("mesh-control", &text(&told, &authority));
    }
}
