//! What node proxies of Istio's are told by mesh-control, read by Istio's own program code.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use mesh_e2e::{PATIENCE, Remote, Verdict, client, echo, told_to_istio};
use mesh_lab::{Place as _, wait_until};
use serde_json::{Value, json};

const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-client, namespace: app}
spec:
  selector: {matchLabels: {app: server}}
  rules: [{from: [{source: {principals: [cluster.local/ns/app/sa/client]}}], to: [{operation: {ports: ['9000']}}]}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: app}
spec: {mtls: {mode: STRICT}}
";

fn named<'a>(told: &'a [Value], name: &str) -> Result<&'a Value> {
    told.iter().find(|resource| resource["name"] == name).with_context(|| format!("{name} is not among {told:#?}"))
}

#[test]
fn a_proxy_of_istios_is_told_of_pods_services_and_policies_in_its_own_words() -> Verdict {
    let remote = Remote::feeding(&["node-a"])?;
    let server = remote.mesh.join(echo("server", "node-b"))?;
    let client = remote.mesh.join(client("client", "node-a"))?;
    remote.mesh.lab.apply("policies.yaml", POLICIES)?;
    let told = wait_until("the policies to be told of", PATIENCE, || {
        let told = told_to_istio(&remote, "node-b")?;
        Ok(named(&told, "app/only-client").is_ok().then_some(told))
    })?;

    let pod = &named(&told, "Kubernetes//Pod/app/server")?["says"]["workload"];
    assert_eq!(
        (&pod["namespace"], &pod["node"], &pod["tunnelProtocol"]),
        (&json!("app"), &json!("node-b"), &json!("HBONE"))
    );
    assert_eq!(pod["serviceAccount"], json!("server"));
    let IpAddr::V4(address) = server.ipv4() else { panic!("{}", server.ipv4()) };
    let octets = base64::engine::general_purpose::STANDARD.encode(address.octets());
    assert_eq!(pod["addresses"][0], json!(octets));
    let under: Vec<_> =
        pod["authorizationPolicies"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let ["app/only-client", strict] = under[..] else { panic!("{under:?}") };
    let strict = &named(&told, strict)?["says"];
    assert_eq!((&strict["action"], &strict["scope"]), (&json!("DENY"), &json!("WORKLOAD_SELECTOR")));
    assert_eq!(strict["groups"], json!([{"rules": [{"matches": [{"notPrincipals": [{"presence": {}}]}]}]}]));

    let policy = &named(&told, "app/only-client")?["says"];
    let from = json!({"matches": [{"principals": [{"exact": "cluster.local/ns/app/sa/client"}]}]});
    let to = json!({"matches": [{"destinationPorts": [9000]}]});
    assert_eq!(policy["groups"], json!([{"rules": [from, to]}]));

    let of_client = &named(&told, "Kubernetes//Pod/app/client")?;
    assert!(of_client["aliases"].as_array().is_some_and(|all| all.contains(&json!(format!("/{}", client.ipv4())))));
    Ok(())
}
