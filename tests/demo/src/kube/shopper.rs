//! The pod that buys.

use anyhow::{Context as _, Result};
use mesh_shop::Hop;
use mesh_shop::catalogue::NAMESPACE;
use serde_json::Value;

use super::Kube;
use crate::claim::unmet;
use crate::stage::SHOPPER;

/// The image of the shop's programs and of the shopper's.
const IMAGE: &str = concat!("mesh.dev/mesh-shop:", env!("CARGO_PKG_VERSION"));
/// The name that the shop's manifests have for it.
const PUBLISHED: &str = "mesh-shop:latest";
/// Where a container's variables begin, and one more: each request has a connection of its own, so that none from before the mesh is
/// used later.
const VARIABLES: &str = "          env:\n";
const AND_NO_OLD_CONNECTIONS: &str = "          env:\n            - {name: CONNECTION_MAX_AGE_MS, value: \"0\"}\n";
/// Where the shop is found.
const FRONTEND: &str = "http://frontend.shop:8080";

/// The shop's manifests, for images that are not published.
pub(super) fn manifests() -> Result<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../shop/manifests");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect())
        .with_context(|| format!("reading {folder}"))?;
    // The namespace first.
    files.sort_by_key(|file| (!file.ends_with("namespace.yaml"), file.clone()));
    let mut all = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        all += &format!("---\n{}", text.replace(PUBLISHED, IMAGE).replace(VARIABLES, AND_NO_OLD_CONNECTIONS));
    }
    Ok(all)
}

/// A pod that buys, on a node; of a namespace that need not be the shop's.
pub(super) fn pod(namespace: &str, name: &str, node: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n---\napiVersion: v1\nkind: Pod\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  nodeName: {node}\n  serviceAccountName: {name}\n  \
         terminationGracePeriodSeconds: 0\n  containers:\n  - name: {name}\n    image: {IMAGE}\n    imagePullPolicy: Never\n    \
         command: [mesh-traffic, http, --listen, \"[::]:8080\", --name, {name}]\n    \
         readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}\n"
    )
}

/// One checkout.
pub(super) struct Bought {
    pub(super) hops: Vec<Hop>,
    /// `order o-1, by frontend v1, ...`
    pub(super) summary: String,
}

impl Kube {
    /// The command by which the shopper buys.
    pub(super) fn checkout(&self, count: usize) -> Vec<String> {
        let (card, marker, count) = (&self.purchase.card, &self.purchase.marker, count.to_string());
        let words =
            ["mesh-shop", "checkout", "--frontend", FRONTEND, "--count", &count, "--card", card, "--marker", marker];
        words.map(str::to_owned).to_vec()
    }

    /// Buys from a pod so often; how it ended, whatever it was: the answers, or what was said.
    pub(super) fn try_to_buy(&self, namespace: &str, pod: &str, count: usize) -> Result<Result<Vec<Bought>, String>> {
        let command = self.checkout(count);
        let words: Vec<&str> =
            ["-n", namespace, "exec", pod, "--"].into_iter().chain(command.iter().map(String::as_str)).collect();
        let output = self.kubectl.command(&words).output().context("starting kubectl")?;
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if !output.status.success() {
            return Ok(Err(format!("{}{}", stdout.trim(), stderr.trim())));
        }
        let read = |line: &str| -> Result<Bought> {
            let answer: Value = serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            let hops: Vec<Hop> =
                serde_json::from_value(answer["hops"].clone()).with_context(|| format!("no hops: {line}"))?;
            let by: Vec<_> = hops.iter().map(|hop| format!("{} {}", hop.service, hop.version)).collect();
            let order = answer["order"].as_str().unwrap_or_default();
            Ok(Bought { summary: format!("200: order {order}, by {}", by.join(", ")), hops })
        };
        stdout.lines().filter(|line| !line.is_empty()).map(read).collect::<Result<Vec<_>>>().map(Ok)
    }

    /// Buys from the shopper's pod so often; all have to be served.
    pub(super) fn buy(&self, count: usize) -> Result<Vec<Bought>> {
        let bought = self.try_to_buy(NAMESPACE, SHOPPER, count)?;
        let bought = bought.map_err(|why| unmet(format!("{count} checkouts that are served"), why))?;
        match bought.len() == count {
            true => Ok(bought),
            false => Err(unmet(format!("{count} checkouts"), bought.len())),
        }
    }
}
