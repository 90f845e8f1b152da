//! What the chart has for Prometheus and Grafana, as the real helm renders it. No cluster is asked.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::Programs;
use serde_json::Value;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/mesh")
}

/// What helm makes of the chart with these values.
fn rendered(values: &[&str]) -> Result<Vec<Value>> {
    let mut command = Programs::find()?.command("helm");
    command.args(["template", "mesh"]).arg(chart()).args(["--namespace", "mesh-system"]);
    let output = command.args(values.iter().flat_map(|value| ["--set", value])).output().context("starting helm")?;
    ensure!(output.status.success(), "helm: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8(output.stdout)?;
    let documents = text.split("\n---\n").map(serde_saphyr::from_str::<Value>);
    let all = documents.collect::<Result<Vec<_>, _>>().context("what helm rendered")?;
    Ok(all.into_iter().filter(|object| !object.is_null()).collect())
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

fn names(objects: &[&Value]) -> BTreeSet<String> {
    objects.iter().map(|object| object["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// The dashboards of the chart, by their files' names.
fn boards() -> Result<Vec<(String, Value)>> {
    let files = fs::read_dir(chart().join("files/dashboards"))?.map(|entry| {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, serde_json::from_str(&fs::read_to_string(path)?)?))
    });
    files.collect()
}

#[test]
fn nothing_of_an_operators_kinds_is_there_unless_asked_for() -> Result<()> {
    let objects = rendered(&[])?;
    for kind in ["PrometheusRule", "PodMonitor", "GrafanaDashboard"] {
        ensure!(of_kind(&objects, kind).is_empty(), "a {kind}");
    }
    let maps = of_kind(&objects, "ConfigMap");
    for (name, board) in boards()? {
        let map = maps.iter().find(|map| map["metadata"]["name"] == format!("grafana-{name}").as_str());
        let map = map.with_context(|| format!("no ConfigMap of {name}"))?;
        ensure!(map["metadata"]["labels"]["grafana_dashboard"] == "1", "{map}");
        let text = map["data"][format!("{name}.json")].as_str().context("no text")?;
        ensure!(serde_json::from_str::<Value>(text)? == board, "{name} is another");
    }
    let without = rendered(&["monitoring.dashboards=false"])?;
    ensure!(!names(&of_kind(&without, "ConfigMap")).iter().any(|name| name.starts_with("grafana-")));
    Ok(())
}

#[test]
fn pods_say_where_they_are_scraped() -> Result<()> {
    let objects = rendered(&[])?;
    for (kind, name, port) in [("DaemonSet", "mesh-node", "15020"), ("Deployment", "mesh-control", "15014")] {
        let workloads = of_kind(&objects, kind);
        let workload = workloads.iter().find(|workload| workload["metadata"]["name"] == name).context(name)?;
        let annotations = &workload["spec"]["template"]["metadata"]["annotations"];
        ensure!(annotations["prometheus.io/scrape"] == "true" && annotations["prometheus.io/port"] == port, "{name}");
    }
    Ok(())
}

#[test]
fn rules_and_monitors_are_for_prometheus_operator() -> Result<()> {
    let objects = rendered(&["monitoring.rules=true", "monitoring.podMonitors=true"])?;
    let rules = of_kind(&objects, "PrometheusRule");
    ensure!(names(&rules) == ["mesh-alerts", "mesh-recording"].map(str::to_owned).into(), "{:?}", names(&rules));
    for rule in rules {
        let file = rule["metadata"]["name"].as_str().unwrap_or_default().trim_start_matches("mesh-");
        let shipped = fs::read_to_string(chart().join(format!("files/rules/{file}.yaml")))?;
        ensure!(rule["spec"] == serde_saphyr::from_str::<Value>(&shipped)?, "{file} is another");
    }
    let monitors = of_kind(&objects, "PodMonitor");
    let expected = ["mesh-control", "mesh-node", "mesh-waypoint"].map(str::to_owned).into();
    ensure!(names(&monitors) == expected, "{:?}", names(&monitors));
    for monitor in monitors {
        let name = &monitor["metadata"]["name"];
        let labels = monitor["spec"]["selector"]["matchLabels"].as_object().context("no labels")?;
        if name == "mesh-waypoint" {
            ensure!(monitor["spec"]["namespaceSelector"]["any"] == true, "{monitor}");
            continue;
        }
        let kind = if name == "mesh-node" { "DaemonSet" } else { "Deployment" };
        let workloads = of_kind(&objects, kind);
        let workload = workloads.iter().find(|workload| workload["metadata"]["name"] == *name).context("no pods")?;
        let pods = &workload["spec"]["template"];
        ensure!(labels.iter().all(|(key, value)| pods["metadata"]["labels"][key] == *value), "{monitor}");
    }
    Ok(())
}

#[test]
fn dashboards_are_for_grafanas_operator_and_the_grafanas_that_are_named() -> Result<()> {
    let objects = rendered(&["monitoring.grafanaDashboards=true", "monitoring.grafanaInstances.dashboards=ours"])?;
    let found = of_kind(&objects, "GrafanaDashboard");
    let boards = boards()?;
    ensure!(found.len() == boards.len() && !boards.is_empty(), "{:?}", names(&found));
    for (name, board) in boards {
        let object = found.iter().find(|object| object["metadata"]["name"] == name.as_str()).context(name)?;
        ensure!(object["apiVersion"] == "grafana.integreatly.org/v1beta1", "{object}");
        ensure!(object["spec"]["instanceSelector"]["matchLabels"]["dashboards"] == "ours", "{object}");
        let text = object["spec"]["json"].as_str().context("no text")?;
        ensure!(serde_json::from_str::<Value>(text)? == board, "another dashboard");
    }
    let refused = rendered(&["monitoring.grafanaInstances=none"]).err().context("values that are none are refused")?;
    ensure!(refused.to_string().contains("grafanaInstances"), "{refused}");
    Ok(())
}
