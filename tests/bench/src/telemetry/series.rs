//! How much Prometheus reads of a node's daemon: many Services, each called by several pods.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_lab::{Daemon, DaemonOptions, Lab, Place as _, Pod, PodSpec, ServiceSpec, wait_until};

use crate::cases::{Reading, reading};

const NODES: [&str; 2] = ["node-a", "node-b"];
const NAMESPACE: &str = "shop";
const PORT: u16 = 8080;
/// Pods of each node; Services are spread over all of them.
const PODS: u32 = 10;
/// How many call each Service.
const CALLERS: u32 = 3;
/// How often each daemon is read.
const SCRAPES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(120);

/// The number of series and the time of a scrape of each node, numbered.
pub(super) fn measure(services: u32) -> Result<Vec<(u32, Vec<Reading>)>> {
    let lab = NODES.into_iter().fold(Lab::builder(), |lab, node| lab.node(node)).build()?;
    lab.namespace(NAMESPACE)?;
    lab.label_namespace(NAMESPACE, "mesh.dev/join", "enabled")?;
    let daemons = NODES.map(|node| lab.start_daemon(node, DaemonOptions::default()));
    let daemons = daemons.into_iter().collect::<Result<Vec<_>>>()?;
    let pods = pods(&lab)?;
    let count = u32::try_from(pods.len())?;
    for number in 0..services {
        let spec = ServiceSpec::new(NAMESPACE, &format!("service-{number}")).select("app", &app(number % count));
        lab.service(spec.port("http", 80, PORT))?;
    }
    for daemon in &daemons {
        wait_until("all pods to be enrolled", PATIENCE, || {
            let enrolled = daemon.metrics()?.sum("mesh_pods", &[("state", "enrolled")]);
            Ok((enrolled >= f64::from(PODS)).then_some(()))
        })?;
    }
    for (number, pod) in (0..).zip(&pods) {
        call(pod, number, count, services)?;
    }
    let read = daemons.iter().map(read);
    let readings = (0..).zip(read).map(|(node, readings)| Ok((node, readings?))).collect::<Result<Vec<_>>>()?;
    drop((daemons, pods));
    lab.take_down()?;
    Ok(readings)
}

fn app(number: u32) -> String {
    format!("app-{number}")
}

fn pods(lab: &Lab) -> Result<Vec<Pod>> {
    let deploy = |number: u32| {
        let name = app(number);
        let listen = format!("[::]:{PORT}");
        let command = ["mesh-traffic", "http", "--listen", &listen, "--name", &name];
        let node = NODES[number as usize % NODES.len()];
        let spec = PodSpec::new(NAMESPACE, &name).on(node).service_account(&name).label("app", &name);
        lab.deploy(spec.port("http", PORT).command(command))
    };
    (0..PODS * 2).map(deploy).collect()
}

/// Asks each Service that this pod is a caller of.
fn call(pod: &Pod, number: u32, pods: u32, services: u32) -> Result<()> {
    let is_ours = |service: &u32| (0..CALLERS).any(|caller| (service + 1 + caller * 3) % pods == number);
    let mut argv = vec!["curl".to_owned(), "--silent".to_owned(), "--show-error".to_owned(), "--fail".to_owned()];
    for service in (0..services).filter(is_ours) {
        argv.extend(["--output".to_owned(), "/dev/null".to_owned(), format!("http://service-{service}.{NAMESPACE}/")]);
    }
    let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
    wait_until("every Service to answer", PATIENCE, || Ok((pod.exec(&argv)?.code == Some(0)).then_some(())))
}

fn read(daemon: &Daemon) -> Result<Vec<Reading>> {
    let node = daemon.node();
    let url = format!("http://{}:15020/metrics", node.ipv4());
    let output = node.exec(&["curl", "--silent", "--fail", &url])?;
    let series = output.success()?.lines().filter(|line| !line.starts_with('#')).count();
    ensure!(series > 0, "the daemon tells nothing");
    let time = || {
        let argv = ["curl", "--silent", "--fail", "--output", "/dev/null", "--write-out", "%{time_total}", &url];
        let output = node.exec(&argv)?;
        output.success()?.trim().parse::<f64>().with_context(|| format!("curl said: {output}"))
    };
    let mut times = (0..SCRAPES).map(|_| time()).collect::<Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    let median = times[times.len() / 2];
    Ok(vec![reading("series", "", series as f64), reading("scrape", "ms", median * 1e3)])
}
