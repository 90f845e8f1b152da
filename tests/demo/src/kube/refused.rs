//! STRICT refuses plaintext from outside; a policy refuses a pod of the mesh, and mesh-ctl says which.

use anyhow::Result;
use mesh_kube_cluster::ctl::Ctl;
use mesh_lab::wait_until;
use mesh_shop::catalogue::NAMESPACE;

use super::{Kube, shopper};
use crate::claim::{claim, unmet};
use crate::screen::Screen;
use crate::stage::{NODES, PATIENCE, SHOPPER};

/// A namespace outside the mesh, and its pod.
const OUTSIDE: &str = "outside";
const STRANGER: &str = "stranger";

const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\n\
                      spec: {mtls: {mode: STRICT}}\n";
const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: frontend, namespace: shop}\nspec:\n  \
                      selector: {matchLabels: {app: frontend}}\n  action: DENY\n  rules:\n  \
                      - from: [{source: {principals: [cluster.local/ns/shop/sa/shopper]}}]\n";

pub(super) fn show(kube: &mut Kube, screen: &Screen) -> Result<String> {
    kube.kubectl.run(&["create", "namespace", OUTSIDE])?;
    kube.kubectl.apply(&shopper::pod(OUTSIDE, STRANGER, NODES[0]))?;
    let ready = ["-n", OUTSIDE, "wait", "--for=condition=Ready", "--timeout=60s", &format!("pod/{STRANGER}")];
    kube.kubectl.run(&ready)?;
    let stranger = kube.try_to_buy(OUTSIDE, STRANGER, 1)?;
    claim(stranger.is_ok(), "a stranger to be served while plaintext is allowed", format!("{:?}", stranger.err()))?;
    screen.say("a pod outside the mesh buys in plaintext: allowed, as nobody said otherwise");

    kube.apply(screen, STRICT)?;
    let why = refused(kube, OUTSIDE, STRANGER)?;
    screen.say(format!("the stranger: {why}"));
    kube.buy(1)?;
    screen.say("the shopper, by mTLS: served; kubelet's probes go on:");
    let ready = ["-n", NAMESPACE, "wait", "--for=condition=Ready", "--timeout=10s", "pod", "--all"];
    kube.kubectl.run(&ready)?;

    kube.apply(screen, POLICY)?;
    let why = refused(kube, NAMESPACE, SHOPPER)?;
    screen.say(format!("the shopper: {why}"));
    let question = ["why", "shop/shopper", "frontend.shop:8080"];
    screen.command("you", &format!("mesh-ctl {}", question.join(" ")));
    let said = Ctl::on(&kube.cluster)?.run(&question)?;
    said.out.lines().for_each(|line| screen.quote(line));
    claim(said.code == 1 && said.out.contains("shop/frontend"), "the policy named", &said.out)?;
    kube.kubectl.run(&["-n", NAMESPACE, "delete", "authorizationpolicy", "frontend"])?;
    wait_until("the shopper to be served again", PATIENCE, || {
        Ok(kube.try_to_buy(NAMESPACE, SHOPPER, 1)?.is_ok().then_some(()))
    })?;
    Ok("plaintext reset under STRICT; a policy's refusal named by mesh-ctl".to_owned())
}

/// What is said once a pod's checkout is not served.
fn refused(kube: &Kube, namespace: &str, pod: &str) -> Result<String> {
    let refused =
        wait_until(&format!("{pod} to be refused"), PATIENCE, || Ok(kube.try_to_buy(namespace, pod, 1)?.err()));
    let said = refused.map_err(|_| unmet(format!("{namespace}/{pod} to be refused"), "it is served"))?;
    let reason = said.lines().find_map(|line| {
        let answer: serde_json::Value = serde_json::from_str(line).ok()?;
        answer["reason"].as_str().map(str::to_owned)
    });
    Ok(reason.unwrap_or(said))
}
