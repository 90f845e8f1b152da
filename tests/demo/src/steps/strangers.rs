//! A client outside the mesh is served in plaintext, as PERMISSIVE says; one with a certificate that the mesh's
//! authority did not sign is refused, whatever name it bears; and a server that is somebody else is not talked to.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use mesh_lab::{Daemon, Place as _, wait_until};
use serde_json::Value;

use crate::claim::claim;
use crate::knock::{Answer, Knock};
use crate::screen::Screen;
use crate::stage::{LAPTOP, PATIENCE, Stage, TRUST_DOMAIN};
use crate::traffic::{OPENED, plaintext};

/// Tunnels that a daemon turned away, by reason.
const REJECTED: &str = "mesh_tunnels_rejected_total";
/// The payment service's port, which order alone dials in the shop.
const PAYMENT: u16 = 9090;

pub fn show(stage: &mut Stage, screen: &Screen) -> Result<String> {
    plaintext_is_served(stage, screen)?;
    let refused = forgery_is_refused(stage, screen)?;
    let unexpected = impostor_is_not_talked_to(stage, screen)?;
    Ok(format!("plaintext served; {refused}, {unexpected} refused"))
}

/// The frontend's pod by its own address: through a Service, the node's translation would hide the client's.
fn plaintext_is_served(stage: &Stage, screen: &Screen) -> Result<()> {
    let server = "frontend-v1";
    let counted = || Ok::<_, anyhow::Error>(plaintext(stage.daemon(0)?)?.get(server).copied().unwrap_or(0));
    let before = counted()?;
    let frontend = SocketAddr::new(stage.pod(server)?.ipv4(), 8080).to_string();
    screen.command(LAPTOP, &format!("curl '{}'", stage.purchase.url(&frontend)));
    let answer = stage.purchase.buy_at(&stage.outside, &frontend)?.served()?;
    screen.say(answer.summary());
    let peer = answer.hops.first().map(|hop| hop.peer.clone()).unwrap_or_default();
    let own = stage.outside.addresses();
    let seen: SocketAddr = peer.parse().with_context(|| format!("{peer} is no address"))?;
    claim(own.contains(&seen.ip()), format!("the frontend to see the laptop's address, {own:?}"), seen)?;
    let more = wait_until("the connection to be counted", PATIENCE, || {
        let now = counted()?;
        Ok((now > before).then_some(now - before))
    })?;
    screen.say(format!("the frontend saw {seen}, the laptop's own address; its daemon's metrics:"));
    screen.quote(format!("{OPENED}{{destination_workload=\"{server}\",connection_security_policy=\"none\"}} +{more}"));
    Ok(())
}

/// Another authority, order's name: refused. The mesh's authority, the same name: let in. Returns the reason.
fn forgery_is_refused(stage: &Stage, screen: &Screen) -> Result<String> {
    let (true_ca, false_ca) = (stage.lab.ca_dir()?, stage.lab.ca_dir_of("forgers-ca", TRUST_DOMAIN)?);
    let payment = stage.pod("payment-v1")?;
    let daemon = stage.daemon(0)?;
    let forged = Knock {
        signer: false_ca,
        trusted: true_ca.clone(),
        identity: name_of("order"),
        expected: name_of("payment"),
        target: SocketAddr::new(payment.ipv4(), PAYMENT),
    };
    let genuine = Knock { signer: true_ca, ..forged.clone() };
    screen.say(format!("the laptop makes a certificate for {} with an authority of its own", forged.identity));
    let (answer, told) = knock_at(stage, daemon, &forged)?;
    claim(!answer.opened, "payment's daemon to refuse the forged certificate", "it opened a tunnel")?;
    let told = told.context("the daemon gave no reason")?;
    claim(told.reason == "certificate_untrusted", "the reason certificate_untrusted", &told.reason)?;
    screen.say("payment's daemon refuses it; its metrics and its log:");
    screen.quote(format!("{REJECTED}{{reason=\"{}\"}} +1", told.reason));
    screen.quote(&told.error);
    let (answer, told) = knock_at(stage, daemon, &genuine)?;
    let seen = format!("refused: {}, {:?}", answer.error, told.map(|told| told.reason));
    claim(answer.opened, "the same name, signed by the mesh's authority, to be let in", seen)?;
    screen.say("the same client and name with a certificate of the mesh's authority: let in");
    Ok("a forged name".to_owned())
}

/// A client that dials payment's address and meets cart: a true certificate, but another's.
fn impostor_is_not_talked_to(stage: &Stage, screen: &Screen) -> Result<String> {
    let ca = stage.lab.ca_dir()?;
    let cart = SocketAddr::new(stage.pod("cart-v1")?.ipv4(), 8080);
    let (identity, expected) = (name_of("order"), name_of("payment"));
    let knock = Knock { signer: ca.clone(), trusted: ca, identity, expected, target: cart };
    let (answer, told) = knock_at(stage, stage.daemon(1)?, &knock)?;
    claim(!answer.opened, "a client that wants payment to refuse cart", "it opened a tunnel")?;
    claim(answer.reason == "identity_unexpected", "the client's reason identity_unexpected", format!("{answer:?}"))?;
    screen.say(format!("a client that wants payment and meets cart's true certificate hangs up: {}", answer.reason));
    if let Some(told) = told {
        screen.quote(format!("{REJECTED}{{reason=\"{}\"}} +1  (at cart's daemon)", told.reason));
    }
    Ok("a wrong one".to_owned())
}

fn name_of(account: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/ns/shop/sa/{account}")
}

/// What a daemon told of a tunnel that it turned away.
struct Told {
    reason: String,
    error: String,
}

/// Knocks from the laptop; with a refusal comes what the daemon's metrics and log say of it.
fn knock_at(stage: &Stage, daemon: &Daemon, knock: &Knock) -> Result<(Answer, Option<Told>)> {
    let before = (daemon.metrics()?, daemon.logs().lines().count());
    let answer = knock.from(&stage.outside)?;
    if answer.opened {
        return Ok((answer, None));
    }
    let told = wait_until("the daemon to tell of the refusal", PATIENCE, || {
        let metrics = daemon.metrics()?;
        let risen = metrics.of(REJECTED, &[]).find(|sample| {
            let reason = sample.labels.get("reason").map_or("", String::as_str);
            sample.value > before.0.sum(REJECTED, &[("reason", reason)])
        });
        let Some(reason) = risen.and_then(|sample| sample.labels.get("reason")) else { return Ok(None) };
        let log = daemon.logs();
        let line = log.lines().skip(before.1).find_map(|line| rejection(line, reason));
        Ok(line.map(|error| Told { reason: reason.clone(), error }))
    })?;
    Ok((answer, Some(told)))
}

/// The log line of a rejected tunnel, as a person reads it.
fn rejection(line: &str, reason: &str) -> Option<String> {
    let json: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| json[name].as_str().unwrap_or_default();
    let of_it = field("message") == "tunnel rejected" && field("reason") == reason;
    of_it.then(|| format!("{}: {} from {}: {}", field("message"), field("pod"), field("peer"), field("error")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_is_found_by_its_reason() {
        let line = r#"{"level":"INFO","message":"tunnel rejected","pod":"shop/p","peer":"10.0.0.1:5","reason":"alpn","error":"no h2"}"#;
        assert_eq!(rejection(line, "alpn").as_deref(), Some("tunnel rejected: shop/p from 10.0.0.1:5: no h2"));
        assert_eq!(rejection(line, "not_tls"), None);
        assert_eq!(rejection("no JSON", "alpn"), None);
    }
}
