//! What a person sees of requests at a terminal: flows by filter, and Services live.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use mesh_e2e::{Mesh, NODES, PATIENCE, Shop, Store, Verdict, ctl};
use mesh_lab::wait_until;
use serde_json::Value;

/// The shop and the store, and where their programs are asked.
struct Seen {
    waypoint: String,
    nodes: Vec<String>,
    _store: Store,
    _shop: Shop,
    mesh: Mesh,
}

impl Seen {
    fn start() -> Result<Self> {
        let mesh = Mesh::start()?;
        let shop = Shop::open(&mesh)?;
        let store = Store::open(&mesh)?;
        let waypoint = mesh.lab.waypoint_socket("store", "waypoint-1").display().to_string();
        let nodes = NODES.map(|node| mesh.lab.admin_socket(node).display().to_string()).to_vec();
        Ok(Self { waypoint, nodes, _store: store, _shop: shop, mesh })
    }

    /// The first flow that a filter lets pass, of which there are some while everything goes on.
    fn flow(&self, of: &[&str], filter: &[&str]) -> Result<Value> {
        let fixed = ["-o", "json", "--count", "1", "--for", "60"];
        let output = ctl(&self.mesh, NODES[1], &[of, &fixed, filter].concat())?;
        output.success()?;
        serde_json::from_str(output.stdout.trim()).with_context(|| format!("{filter:?}: {output}"))
    }
}

#[test]
fn flows_are_filtered_by_pod_verdict_status_and_duration() -> Verdict {
    let seen = Seen::start()?;
    let at_waypoint = ["waypoint", "flows", "--socket", &seen.waypoint];
    let at_node = ["flows", "--socket", &seen.nodes[1]];
    for (filter, field, expected) in [
        (["--verdict", "denied"].as_slice(), "/policy", "AuthorizationPolicy store/private denies it"),
        (&["--code", "401"], "/request/status", "401"),
        (&["--code", "503", "-n", "store"], "/request/path", "/broken"),
        (&["--code", "2xx"], "/request/rule", "VirtualService store/"),
        (&["--pod", "buyer", "--code", "200"], "/source/principal", "spiffe://cluster.local/ns/store/sa/buyer"),
    ] {
        let flow = seen.flow(&at_waypoint, filter)?;
        let value = flow.pointer(field).map(ToString::to_string).unwrap_or_default();
        assert!(value.contains(expected), "{filter:?}: {field} of {flow:#}");
        assert_eq!((&flow["event"], &flow["reporter"]), (&Value::from("request"), &Value::from("waypoint")));
    }
    // A node sees the requests of Services without a waypoint: the order's, by gRPC and by HTTP.
    let flow = seen.flow(&at_node, &["--pod", "order-v1", "--code", "2xx"])?;
    assert_eq!((&flow["event"], &flow["destination"]["workload"]), (&"request".into(), &"order-v1".into()), "{flow:#}");
    assert_eq!(flow["request"]["protocol"], "http", "{flow:#}");
    assert!(flow["request"]["durationMicroseconds"].as_u64() > Some(0), "{flow:#}");
    let flow = seen.flow(&["flows", "--socket", &seen.nodes[0]], &["--code", "grpc:0", "--slow", "0"])?;
    assert_eq!(flow["destination"]["workload"], "payment-v1", "{flow:#}");
    // Of connections alone, as before.
    assert_eq!(seen.flow(&at_node, &["-e", "closed", "-n", "shop"])?.get("request"), None);
    // A line for people.
    let lines = ctl(&seen.mesh, NODES[1], &[&at_waypoint[..], &["--code", "503", "--count", "1"]].concat())?;
    let line = lines.success()?.lines().last().unwrap_or_default().to_owned();
    assert!(
        line.contains("GET /broken 503 FI in ") && line.contains("VirtualService store/item rule broken"),
        "{line}"
    );
    for wrong in [["--code", "fast"], ["--verdict", "good"], ["--slow", "soon"]] {
        assert_eq!(ctl(&seen.mesh, NODES[1], &[&at_node[..], &wrong].concat())?.code, Some(2), "{wrong:?}");
    }
    Ok(())
}

#[test]
fn top_shows_every_service_once_with_its_rates() -> Verdict {
    let seen = Seen::start()?;
    let sockets = ["--socket", &seen.nodes[0], "--socket", &seen.nodes[1], "--waypoint", &seen.waypoint];
    let once = [&["top", "--once", "--interval", "3"], &sockets[..]].concat();
    let services = wait_until("every Service to have been asked within an interval", PATIENCE, || {
        let output = ctl(&seen.mesh, NODES[0], &[&once[..], &["-o", "json"]].concat())?;
        let rows: Vec<Value> = serde_json::from_str(output.success()?).with_context(|| output.to_string())?;
        let names = rows.iter().map(|row| format!("{}/{}", row["namespace"], row["service"]).replace('"', ""));
        let by_name: BTreeMap<_, _> = names.zip(rows.clone()).collect();
        assert_eq!(by_name.len(), rows.len(), "a Service is there twice");
        let asked = ["shop/order", "shop/payment", "store/item", "store/flaky"].map(|name| by_name.get(name).cloned());
        let busy = asked.iter().flatten().filter(|row| row["requestsPerSecond"].as_f64() > Some(0.0));
        Ok((busy.count() == asked.len()).then_some(by_name))
    })?;
    let [order, payment, item] = ["shop/order", "shop/payment", "store/item"].map(|name| &services[name]);
    for row in [order, payment, item] {
        let number = |field: &str| row[field].as_f64().unwrap_or(f64::NAN);
        assert!(number("p50Milliseconds") > 0.0 && number("p99Milliseconds") >= number("p50Milliseconds"), "{row:#}");
        assert!(number("bytesPerSecond") >= 0.0 && number("mutualTlsRatio") <= 1.0, "{row:#}");
    }
    // From node b to node a, always in a tunnel; each request once, though a node and a waypoint saw those to the store.
    assert_eq!((&payment["mutualTlsRatio"], &order["errorRatio"]), (&1.0.into(), &0.0.into()), "{payment:#} {order:#}");
    // Of six requests to it, one is answered with a fault: of a seventh, the token is refused.
    let errors = item["errorRatio"].as_f64().unwrap_or_default();
    assert!((0.05..0.4).contains(&errors), "{item:#}");
    let table = ctl(&seen.mesh, NODES[0], &[&once[..], &["-n", "shop", "--sort", "name"]].concat())?;
    let lines: Vec<_> = table.success()?.lines().collect();
    assert!(lines[0].starts_with("NAMESPACE") && lines[0].ends_with("MTLS"), "{table}");
    assert!(lines[1..].iter().all(|line| line.starts_with("shop ")) && lines.len() >= 6, "{table}");
    Ok(())
}
