//! The chart's rules: what makes each alert fire and clear, by promtool for all and on a mesh for what matters most.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::{Mesh, PATIENCE, Prometheus, Shop, Verdict, chart_files};
use mesh_lab::{Daemon, DaemonOptions};
use tempfile::TempDir;

/// A pod of node-a by its manifest, of which no process is ever found.
const PHANTOM: &str = "apiVersion: v1
kind: Pod
metadata: {name: phantom, namespace: app, uid: 00000000-0000-4000-8000-00000000feed}
spec: {nodeName: node-a, serviceAccountName: default}
status: {phase: Running, podIP: 10.250.0.9, podIPs: [{ip: 10.250.0.9}]}
";

/// A policy that denies nobody anything.
fn policy(name: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: app}}\n\
         spec: {{action: DENY, rules: [{{from: [{{source: {{namespaces: [nowhere]}}}}]}}]}}\n"
    )
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

fn rules() -> Result<[(&'static str, String); 2]> {
    let file = |name| Ok::<_, anyhow::Error>((name, read(&chart_files("rules").join(name))?));
    Ok([file("recording.yaml")?, file("alerts.yaml")?])
}

/// The same alerts at once: how long each waits is promtool's to test.
fn impatient_rules() -> Result<Vec<(&'static str, String)>> {
    let at_once = |text: String| {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("for:"));
        lines.map(|line| line.replace(")) > 60", ")) > 3") + "\n").collect::<String>()
    };
    Ok(rules()?.into_iter().map(|(name, text)| (name, at_once(text))).collect())
}

/// The names after `key` at the beginning of a line's text.
fn named(text: &str, key: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| Some(line.trim().strip_prefix(key)?.trim().to_owned())).collect()
}

fn promtool(arguments: &[&str], files: &[PathBuf]) -> Result<()> {
    let output = Command::new("promtool").args(arguments).args(files).output().context("starting promtool")?;
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    ensure!(output.status.success(), "promtool {arguments:?}: {said}");
    Ok(())
}

fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn what_is_scraped_is_valid_and_named_as_the_alerts_ask_for_it() -> Verdict {
    let jobs = read(&chart_files("prometheus").join("scrape.yaml"))?;
    // Debian's is built without Kubernetes' discovery.
    let without = jobs.replace("kubernetes_sd_configs: [{role: pod}]", "static_configs: []");
    let file = tempfile::NamedTempFile::new().context("a file")?;
    fs::write(&file, without).context("a configuration")?;
    promtool(&["check", "config"], &[file.path().to_owned()])?;
    let jobs = named(&jobs, "- job_name:");
    let [_, (_, alerts)] = rules()?;
    let asked: BTreeSet<String> =
        alerts.split("job=~\"(.+/)?").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect();
    assert!(!asked.is_empty() && asked.is_subset(&jobs), "{asked:?} of {jobs:?}");
    Ok(())
}

#[test]
fn each_rule_is_valid_and_each_alert_fires_and_clears_by_its_own_times() -> Verdict {
    let files = rules()?.map(|(name, _)| chart_files("rules").join(name));
    promtool(&["check", "rules"], &files)?;
    promtool(&["test", "rules"], &[own("rules/alerts_test.yaml")])?;
    let [_, (_, alerts)] = rules()?;
    let alerts = named(&alerts, "- alert:");
    assert_eq!(named(&read(&own("rules/alerts_test.yaml"))?, "- name:"), alerts, "alerts, and those that are tested");
    Ok(())
}

/// The pages of the folder of runbooks.
fn pages(folder: &Path) -> Result<BTreeSet<String>> {
    let mut pages = BTreeSet::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        pages.extend(name.strip_suffix(".md").map(str::to_owned));
    }
    Ok(pages)
}

/// The files of a folder in one of their own.
fn copied(from: &Path) -> Result<TempDir> {
    let copy = tempfile::tempdir()?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), copy.path().join(entry.file_name()))?;
    }
    Ok(copy)
}

fn write(path: PathBuf, text: &str) -> Result<()> {
    fs::write(&path, text).with_context(|| path.display().to_string())
}

#[test]
fn each_alert_has_a_page_that_says_what_to_do() -> Verdict {
    let [_, (_, alerts)] = rules()?;
    let folder = own("../../docs/runbooks");
    let pages = pages(&folder)?;
    assert_eq!(pages, named(&alerts, "- alert:"));
    for name in &pages {
        assert!(named(&alerts, "runbook:").contains(&format!("docs/runbooks/{name}.md")), "{name} is not linked");
        let page = read(&folder.join(format!("{name}.md")))?;
        for part in [&format!("# {name}\n"), "## What it means\n", "## What to look at\n", "## What to do\n"] {
            assert!(page.contains(part), "{name}.md lacks {part:?}");
        }
    }
    Ok(())
}

#[test]
fn nothing_fires_while_the_shop_is_well() -> Verdict {
    let mesh = Mesh::start()?;
    let shop = Shop::open(&mesh)?;
    let prometheus = Prometheus::start(&mesh, &impatient_rules()?)?;
    let recorded = "mesh:tcp_connections:rate5m{destination_service_name=\"payment\"} > 0";
    prometheus.wait_for("the recorded rate of the shop's traffic", recorded, |found| !found.is_empty())?;
    let ratio = "mesh:tcp_errors:ratio_rate5m{destination_service_name=\"payment\"} == 0";
    prometheus.wait_for("the recorded ratio of errors", ratio, |found| found.len() == 1)?;
    assert!(shop.sold() > 0);
    assert_eq!(prometheus.query("ALERTS{alertstate=\"firing\"}")?, [] as [serde_json::Value; 0]);
    Ok(())
}

#[test]
fn a_pod_outside_that_should_be_in_fires_and_clears() -> Verdict {
    let mesh = Mesh::start()?;
    let prometheus = Prometheus::start(&mesh, &impatient_rules()?)?;
    mesh.lab.apply("phantom.yaml", PHANTOM)?;
    let fired = prometheus.wait_alert("MeshPodOutside", true)?;
    assert_eq!((fired.len(), fired[0]["metric"]["node"].as_str()), (1, Some("node-a")), "{fired:?}");
    mesh.lab.unapply("phantom.yaml")?;
    prometheus.wait_alert("MeshPodOutside", false)?;
    Ok(())
}

#[test]
fn a_daemon_that_is_down_or_behind_fires_and_clears() -> Verdict {
    let mut mesh = Mesh::start()?;
    let prometheus = Prometheus::start(&mesh, &impatient_rules()?)?;
    mesh.kill9("node-b")?;
    prometheus.wait_alert("MeshNodeDown", true)?;

    // It is back, and reads what others read no more: the state of a daemon whose watch of the API server hangs.
    let stale = copied(mesh.lab.config_dir())?;
    let behind = daemon_of(&mesh, &stale)?;
    prometheus.wait_alert("MeshNodeDown", false)?;
    write(stale.path().join("first.yaml"), &policy("first"))?;
    mesh.lab.apply("first.yaml", &policy("first"))?;
    let everywhere = "count(mesh_policies{kind=\"AuthorizationPolicy\"} == 1) == 2";
    prometheus.wait_for("the first policy everywhere", everywhere, |found| !found.is_empty())?;
    prometheus.wait_alert("MeshPolicyNotInForceEverywhere", false)?;
    let changed =
        "min(mesh_config_changed_timestamp_seconds) < time() - 4 and min(mesh_config_changed_timestamp_seconds) > 0";
    prometheus.wait_for("time to pass after that change", changed, |found| !found.is_empty())?;
    mesh.lab.apply("second.yaml", &policy("second"))?;
    let fired = prometheus.wait_alert("MeshNodeBehind", true)?;
    assert_eq!((fired.len(), fired[0]["metric"]["node"].as_str()), (1, Some("node-b")), "{fired:?}");
    prometheus.wait_alert("MeshPolicyNotInForceEverywhere", true)?;

    behind.kill9()?;
    mesh.start_daemon("node-b")?;
    prometheus.wait_alert("MeshPolicyNotInForceEverywhere", false)?;
    prometheus.wait_alert("MeshNodeBehind", false)?;
    Ok(())
}

fn daemon_of(mesh: &Mesh, config: &TempDir) -> Result<Daemon> {
    let options = DaemonOptions {
        config: Some(config.path().to_owned()),
        ready_within: Some(PATIENCE),
        ..DaemonOptions::default()
    };
    mesh.lab.start_daemon("node-b", options)
}

#[test]
fn a_configuration_that_is_not_in_force_fires_and_clears() -> Verdict {
    let mesh = Mesh::start()?;
    let prometheus = Prometheus::start(&mesh, &impatient_rules()?)?;
    mesh.lab.apply("broken.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: broken}\nspec: 7\n")?;
    prometheus.wait_alert("MeshConfigurationError", true)?;
    mesh.lab.unapply("broken.yaml")?;
    prometheus.wait_alert("MeshConfigurationError", false)?;
    Ok(())
}
