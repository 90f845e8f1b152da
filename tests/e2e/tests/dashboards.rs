//! Grafana's dashboards of the chart: every query of every panel, over the shop's traffic, in a real Prometheus; and the
//! labels that other tools rely on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::{
    Connect, Mesh, NODES, Prometheus, Scraped, Shop, Store, Verdict, chart_files, ctl, flaws_of_dashboards,
    start_control,
};
use mesh_lab::{Place as _, Pod, Process};
use serde_json::Value;

/// How long a dashboard's panels may take to have data in all of them.
const PANELS_WITHIN: Duration = Duration::from_secs(40);
/// What a reader chooses in the dashboards' lists.
const CHOSEN: [(&str, &str); 3] = [("namespace", "shop"), ("service", "payment"), ("workload", "order-v1")];

/// The shopper has no business with the payment service, nor has anybody outside with the order service.
const POLICIES: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: payment, namespace: shop}
spec:
  selector: {matchLabels: {app: payment}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/order]}}]}]
";

/// Label sets of Istio's standard TCP metrics, as its documentation lists them.
const ISTIO: [&str; 20] = [
    "reporter",
    "source_workload",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
    "source_canonical_service",
    "source_canonical_revision",
    "destination_workload",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_service",
    "destination_service_name",
    "destination_service_namespace",
];
/// Those that say something of the connection itself.
const OF_CONNECTION: [&str; 3] = ["request_protocol", "response_flags", "connection_security_policy"];

/// The shop in a Prometheus, with something of everything in its traffic.
struct Watched {
    prometheus: Prometheus,
    shop: Shop,
    store: Store,
    // Before the mesh, so that it ends first.
    _control: Process,
    _mesh: Mesh,
}

impl Watched {
    fn start() -> Result<Self> {
        let mesh = Mesh::start()?;
        mesh.lab.apply("policies.yaml", POLICIES)?;
        let shop = Shop::open(&mesh)?;
        let store = Store::open(&mesh)?;
        let rules = chart_files("rules").join("recording.yaml");
        let rules = [("recording.yaml", fs::read_to_string(rules)?)];
        let control = start_control(&mesh, NODES[0])?;
        let at_node = mesh.lab.node(NODES[0])?.ipv4();
        let scraped = Scraped { proxies: &[&store.waypoint, &store.gateway], controls: &[("mesh-control-1", at_node)] };
        let prometheus = Prometheus::start_with(&mesh, &rules, &scraped)?;
        let outside = mesh.lab.outside("laptop")?;
        let pod = |name: &str| shop.pods.iter().find(|pod| pod.name() == name).with_context(|| name.to_owned());
        let at = |pod: &Pod, port| std::net::SocketAddr::new(pod.ipv4(), port);
        let (payment, order, shopper) = (pod("payment-v1")?, pod("order-v1")?, pod("shopper")?);
        // Twice, with scrapes between: a rate is of two values.
        let mut denied = 0;
        let seen = "count(sum by (reporter) (rate(istio_tcp_connections_opened_total{response_flags=\"DENY\"}[20s] offset 3s)) > 0) == 2";
        mesh_lab::wait_until("denied connections in both reporters' rates", mesh_e2e::PATIENCE, || {
            let service = "http://payment.shop:9090/";
            shopper.exec(&["curl", "-s", "-m", "5", service])?;
            assert!(Connect::to(at(payment, 9090)).run(shopper)?.was_refused());
            Connect::to(at(order, 8080)).saying("GET / HTTP/1.0\r\n\r").run(&outside)?;
            denied += 1;
            Ok((denied > 1 && !prometheus.query(seen)?.is_empty()).then_some(()))
        })?;
        for node in NODES {
            ctl(&mesh, node, &["status"])?;
        }
        Ok(Self { prometheus, shop, store, _control: control, _mesh: mesh })
    }
}

fn boards() -> Result<Vec<(String, Value)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(chart_files("dashboards"))? {
        let path = entry?.path();
        let board = serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())?;
        found.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), board));
    }
    ensure!(!found.is_empty(), "no dashboards");
    Ok(found)
}

fn items<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

/// What Grafana puts in for the variables.
fn filled_in(text: &str, chosen: &Chosen<'_>) -> String {
    let text = text.replace("$__rate_interval", "20s");
    chosen.iter().fold(text, |text, (name, value)| text.replace(&format!("${name}"), value))
}

/// The variables' values by their names.
type Chosen<'a> = BTreeMap<&'a str, &'a str>;

/// Labels that may be empty, which to Prometheus is none.
const MAY_BE_EMPTY: [&str; 2] = ["grpc_response_status", "subset"];

#[test]
fn dashboards_are_as_grafanas_schema_has_them_and_another_is_not() -> Verdict {
    let folder = chart_files("dashboards");
    let files: Vec<_> = boards()?.iter().map(|(name, _)| folder.join(format!("{name}.json"))).collect();
    let flaws = flaws_of_dashboards(&files)?;
    assert!(flaws.is_empty(), "{flaws}");
    // What is checked is checked down to the panels' own options.
    let mut board = boards()?.remove(0).1;
    let panels = board["panels"].as_array_mut().context("no panels")?;
    let panel = panels.iter_mut().find(|panel| panel["type"] == "timeseries").context("no series")?;
    panel["options"]["legend"]["placement"] = "nowhere".into();
    panel["options"]["colour"] = "red".into();
    let file = tempfile::NamedTempFile::new().context("a file")?;
    fs::write(&file, board.to_string()).context("a dashboard")?;
    let flaws = flaws_of_dashboards(&[file.path().to_owned()])?;
    assert!(flaws.contains("colour"), "{flaws}");
    Ok(())
}

/// The names between double braces.
fn labels_of(legend: &str) -> Vec<&str> {
    legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}").map(|(name, _)| name.trim())).collect()
}

/// Whether a panel's query gives what the panel shows.
fn check(prometheus: &Prometheus, panel: &Value, target: &Value, chosen: &Chosen<'_>) -> Result<()> {
    let query = filled_in(target["expr"].as_str().context("no expression")?, chosen);
    ensure!(!query.contains('$'), "a variable is left in {query}");
    let kind = panel["type"].as_str().unwrap_or_default();
    let found = match kind {
        "timeseries" => prometheus.range(&query, 20)?,
        _ => prometheus.query(&query)?,
    };
    ensure!(!found.is_empty(), "no data: {query}");
    let number = |value: &Value| value[1].as_str().and_then(|text| text.parse::<f64>().ok()).unwrap_or(f64::NAN);
    for series in &found {
        let mut values: Vec<_> = items(series, "values").map(number).collect();
        values.extend(series.get("value").map(number));
        ensure!(values.iter().any(|value| value.is_finite()), "no number in {series}: {query}");
    }
    match kind {
        "stat" => ensure!(found.len() == 1, "one number is shown, of {}: {query}: {found:?}", found.len()),
        "timeseries" => {
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            let names: BTreeSet<_> = found.iter().map(|series| named(legend, &series["metric"])).collect();
            ensure!(names.len() == found.len(), "two lines of one name: {query}: {names:?}");
            for label in labels_of(legend) {
                ensure!(
                    MAY_BE_EMPTY.contains(&label) || found.iter().all(|series| series["metric"][label].is_string()),
                    "no {label} in {query}: {found:?}"
                );
            }
        }
        "table" => {
            let columns = panel["transformations"][0]["options"]["indexByName"].as_object().context("no columns")?;
            for column in columns.keys() {
                ensure!(found.iter().all(|row| row["metric"][column].is_string()), "no {column}: {found:?}");
            }
        }
        other => anyhow::bail!("a panel of type {other} is not known here"),
    }
    Ok(())
}

fn named(legend: &str, labels: &Value) -> String {
    labels_of(legend).into_iter().fold(legend.to_owned(), |text, label| {
        text.replace(&format!("{{{{{label}}}}}"), labels[label].as_str().unwrap_or_default())
    })
}

/// What is wrong with a dashboard's panels and variables, and how many queries were made.
fn faults(prometheus: &Prometheus, board: &Value, chosen: &Chosen<'_>) -> Result<(Vec<String>, usize)> {
    let (mut faults, mut checked) = (Vec::new(), 0);
    for panel in items(board, "panels").filter(|panel| panel["type"] != "row") {
        for target in items(panel, "targets") {
            checked += 1;
            if let Err(error) = check(prometheus, panel, target, chosen) {
                faults.push(format!("{}: {error:#}", panel["title"]));
            }
        }
    }
    for variable in items(&board["templating"], "list").filter(|variable| variable["type"] == "query") {
        let query = filled_in(variable["definition"].as_str().context("no definition")?, chosen);
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).context("no label_values")?;
        let name = variable["name"].as_str().unwrap_or_default();
        let values = prometheus.label_values(selector, label)?;
        if !values.iter().any(|value| chosen.get(name) == Some(&&**value)) {
            faults.push(format!("${name}: {:?} is not among {values:?}", chosen.get(name)));
        }
    }
    Ok((faults, checked))
}

/// What the proxies' counters have to have seen for their panels to be of any use.
const SEEN: [&str; 9] = [
    "sum(mesh_waypoint_retries_total)",
    "sum(mesh_waypoint_ejections_total)",
    "sum(mesh_waypoint_mirrors_total{outcome=\"answered\"})",
    "sum(mesh_waypoint_external_authorizations_total{outcome=\"failed\"})",
    "sum(mesh_waypoint_bad_input_total{sender=\"client\"})",
    "sum(mesh_waypoint_route_errors_total{rule=\"broken\",destination=\"none\"})",
    "sum(mesh_waypoint_route_requests_total{rule=\"canary\",subset=\"v2\"})",
    "sum(istio_requests_total{reporter=\"source\",source_workload_namespace=\"edge\"})",
    "sum(istio_requests_total{reporter=\"node\",source_workload_namespace=\"edge\"})",
];

#[test]
fn every_panel_of_every_dashboard_shows_the_shops_traffic() -> Verdict {
    let watched = Watched::start()?;
    let prometheus = &watched.prometheus;
    for query in SEEN {
        prometheus.wait_for("requests of every kind", &format!("{query} > 1"), |found| !found.is_empty())?;
    }
    let twice = "istio_requests_total{reporter=\"node\",destination_service_namespace=\"store\"}";
    assert_eq!(prometheus.query(twice)?, [] as [Value; 0], "nodes and the waypoint tell of the same requests");
    let instance = prometheus.query("max by (instance) (mesh_config_generation)")?;
    let instance = instance[0]["metric"]["instance"].as_str().context("no instance")?;
    let proxy = Store::instance(&watched.store.waypoint);
    let mut chosen: Chosen<'_> = CHOSEN.into_iter().collect();
    chosen.extend([("instance", instance), ("proxy", &*proxy)]);
    let (mut failures, mut checked) = (Vec::new(), 0);
    for (file, board) in boards()? {
        // What only just began is no rate yet.
        let mut last = Vec::new();
        let good = mesh_lab::wait_until("data in every panel", PANELS_WITHIN, || {
            let (faults, count) = faults(prometheus, &board, &chosen)?;
            last = faults;
            Ok(last.is_empty().then_some(count))
        });
        match good {
            Ok(count) => checked += count,
            Err(_) => failures.extend(last.into_iter().map(|fault| format!("{file}, {fault}"))),
        }
    }
    assert!(failures.is_empty(), "{} faults:\n{}", failures.len(), failures.join("\n"));
    assert!(checked > 120 && watched.shop.sold() > 0, "{checked} queries, {} sold", watched.shop.sold());
    Ok(())
}

#[test]
fn links_between_dashboards_lead_to_one_that_has_their_variables() -> Verdict {
    let boards = boards()?;
    let mut links = 0;
    for (file, board) in &boards {
        assert_eq!(board["uid"], **file);
        for panel in items(board, "panels") {
            for link in items(&panel["fieldConfig"]["defaults"], "links") {
                let url = link["url"].as_str().context("no address")?;
                let (uid, query) = url.strip_prefix("/d/").and_then(|rest| rest.split_once('?')).context("no board")?;
                let (_, target) =
                    boards.iter().find(|(uid_of, _)| uid_of == uid).with_context(|| format!("no {uid}"))?;
                for variable in query.split('&').filter_map(|part| part.strip_prefix("var-")?.split('=').next()) {
                    let known = items(&target["templating"], "list").any(|known| known["name"] == variable);
                    assert!(known, "{file}: {uid} has no variable {variable}");
                }
                links += 1;
            }
        }
    }
    assert!(links >= 6, "{links} links");
    Ok(())
}

/// Kiali draws its graph by these labels, of either reporter.
#[test]
fn both_reporters_have_every_label_of_istios_tcp_metrics_and_no_other() -> Verdict {
    let watched = Watched::start()?;
    let expected: BTreeSet<_> = ISTIO.into_iter().chain(OF_CONNECTION).collect();
    let of_prometheus = ["__name__", "instance", "job", "namespace", "node", "pod"];
    for metric in ["connections_opened", "connections_closed", "sent_bytes", "received_bytes"] {
        for reporter in ["source", "destination"] {
            let query = format!(
                "istio_tcp_{metric}_total{{reporter=\"{reporter}\",source_workload=\"frontend-v1\",destination_workload=\"cart-v1\"}}"
            );
            let found = watched.prometheus.query(&query)?;
            assert!(!found.is_empty(), "{query}");
            for series in &found {
                let labels = series["metric"].as_object().context("no labels")?;
                let names: BTreeSet<_> =
                    labels.keys().map(String::as_str).filter(|name| !of_prometheus.contains(name)).collect();
                assert_eq!(names, expected, "{query}");
                for (label, value) in [
                    ("connection_security_policy", "mutual_tls"),
                    ("source_principal", "spiffe://cluster.local/ns/shop/sa/frontend"),
                    ("destination_principal", "spiffe://cluster.local/ns/shop/sa/cart"),
                    ("source_canonical_service", "frontend"),
                    ("source_canonical_revision", "v1"),
                    ("destination_canonical_service", "cart"),
                    ("destination_canonical_revision", "v1"),
                    ("destination_workload_namespace", "shop"),
                    ("request_protocol", "tcp"),
                ] {
                    assert_eq!(labels[label], value, "{label} of {query}");
                }
                let unknown: Vec<_> = labels.iter().filter(|(_, value)| **value == "unknown").collect();
                assert!(unknown.is_empty(), "{query}: {unknown:?}");
            }
        }
    }
    Ok(())
}
