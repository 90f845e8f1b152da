//! Gives addresses to Services of type LoadBalancer, as a cloud would: from a range that this machine routes to a node, where
//! kube-proxy leads what comes for such an address to the Service's pods.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::home::Home;
use crate::kubectl::Kubectl;

/// Pause before Services are watched again.
const PAUSE: Duration = Duration::from_secs(1);

/// Gives addresses for as long as the cluster is up.
///
/// # Errors
/// When kubectl cannot be started.
pub fn serve(home: &Home, kubectl: &Kubectl) -> Result<()> {
    loop {
        if let Err(error) = follow(home, kubectl) {
            eprintln!("{error:#}; it is tried again");
        }
        std::thread::sleep(PAUSE);
    }
}

/// Looks at all Services whenever one changes, until the watch ends.
fn follow(home: &Home, kubectl: &Kubectl) -> Result<()> {
    let mut command = kubectl.command(&["get", "services", "--all-namespaces", "--watch", "--output=name"]);
    let mut watch = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting kubectl")?;
    let changes = BufReader::new(watch.stdout.take().context("kubectl has no output")?).lines();
    let mut looked = Ok(());
    for change in changes {
        change.context("reading from kubectl")?;
        looked = assign(home, kubectl);
        if looked.is_err() {
            break;
        }
    }
    // It has ended, or is to.
    let _ = watch.kill();
    watch.wait().context("waiting for kubectl")?;
    looked
}

fn assign(home: &Home, kubectl: &Kubectl) -> Result<()> {
    let services = kubectl.get(&["services", "--all-namespaces"])?;
    let services = services["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let given = |service: &Value| -> Option<Ipv4Addr> {
        service.pointer("/status/loadBalancer/ingress/0/ip")?.as_str()?.parse().ok()
    };
    let mut taken: BTreeSet<Ipv4Addr> = services.iter().filter_map(given).collect();
    let asking =
        services.iter().filter(|service| service["spec"]["type"] == "LoadBalancer" && given(service).is_none());
    for service in asking {
        let wish = service["spec"]["loadBalancerIP"].as_str().and_then(|wish| wish.parse().ok());
        let range = home.addresses().balanced();
        let free = match wish {
            Some(wish) => range.contains(&wish).then_some(wish).filter(|wish| !taken.contains(wish)),
            None => range.into_iter().find(|address| !taken.contains(address)),
        };
        let Some(address) = free else { continue };
        taken.insert(address);
        let text = |field: &str| service["metadata"][field].as_str().unwrap_or_default();
        let patch = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}}).to_string();
        let (namespace, name) = (text("namespace"), text("name"));
        let words =
            ["-n", namespace, "patch", "service", name, "--subresource=status", "--type=merge", "--patch", &patch];
        let patched = kubectl.run(&words);
        // It may be gone again.
        if let Err(error) = patched
            && !format!("{error:#}").contains("NotFound")
        {
            bail!("{namespace}/{name}: {error:#}");
        }
    }
    Ok(())
}
