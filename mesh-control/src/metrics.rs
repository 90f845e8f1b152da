//! What Prometheus is told of the authority and of the configuration that is served.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use mesh_admin::DISTRIBUTION;
use mesh_admin_server::{EndpointAnswer, serve_endpoint};
use mesh_ca::{Outcome, Outcomes};
use mesh_transport::LocalAuthority;
use tokio::net::TcpListener;

use crate::distribution::Audience;

/// Tells of the metrics and of the distribution, until dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    outcomes: Arc<Outcomes>,
    audience: Audience,
    authority: Arc<LocalAuthority>,
) {
    let handler = move |path: &str| match path {
        "/metrics" | "/stats/prometheus" => EndpointAnswer::metrics(text(&outcomes, &audience, &authority)),
        DISTRIBUTION => match serde_json::to_string(&audience.standing()) {
            Ok(text) => EndpointAnswer::new(StatusCode::OK, "application/json", text),
            Err(error) => EndpointAnswer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        _ => EndpointAnswer::text(StatusCode::NOT_FOUND, format!("try /metrics or {DISTRIBUTION}\n")),
    };
    serve_endpoint(listener, handler).await;
}

fn text(outcomes: &Outcomes, audience: &Audience, authority: &LocalAuthority) -> String {
    let mut text = String::from(
        "# HELP mesh_ca_requests_total Requests for certificates by what they came to\n# TYPE mesh_ca_requests_total counter\n",
    );
    for outcome in Outcome::ALL {
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "mesh_ca_requests_total{{outcome=\"{}\"}} {}", outcome.as_str(), outcomes.count(outcome));
    }
    let current = authority.current();
    let left = current.not_after().duration_since(SystemTime::now()).unwrap_or(Duration::ZERO).as_secs();
    let (roots, lists) = (current.roots().len(), current.trust().crls.len());
    let distribution = audience.standing();
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
    use mesh_xds::{State, Subscribers};
    use tokio::sync::watch;

    use super::*;

    #[test]
    fn reference_has_every_metric() {
        let authority = CertificateAuthority::generate(&TrustDomain::default(), SystemTime::now()).unwrap();
        let authority = LocalAuthority::fixed(authority).unwrap();
        let (_sender, state) = watch::channel(State::default());
        let audience = Audience { state, subscribers: Subscribers::default() };
        mesh_docs::hold_metrics_text("mesh-control", &text(&Outcomes::default(), &audience, &authority));
    }
}
