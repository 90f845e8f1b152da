//! `mesh-ctl uninstall`: the mesh taken off a cluster, with what it made there.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use kube::ResourceExt as _;
use kube::api::{DynamicObject, ListParams};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::Value;

use super::helm::{Helm, HelmArguments};
use super::remains;
use crate::Outcome;
use crate::cluster::{Cluster, ClusterArguments, gateways, kind, namespaces};
use crate::output::{note, print};

/// The authority's Secret where the chart's values say nothing else.
const AUTHORITY: &str = "mesh-ca";
/// The mesh's own pods.
const PODS: &str = "app.kubernetes.io/part-of=mesh";

/// Takes the mesh off a cluster.
///
/// Daemons take their hooks off the nodes; then what mesh-control made goes, with what it ran for Gateways, and the taint of nodes. What
/// people wrote stays: Gateways, routes, policies, labels. So do the authority and the definitions of the mesh's kinds, unless
/// --purge is said.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    helm: HelmArguments,
    /// Removes the authority that the mesh made for itself as well, and the definitions of its kinds with every object of them (policies
    /// too), and its namespace where nothing else is in it.
    #[arg(long)]
    purge: bool,
    /// Says what would go, and changes nothing.
    #[arg(long)]
    dry_run: bool,
    /// How long the mesh's pods may take to end, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
}

impl Uninstall {
    pub(crate) async fn run(&self, arguments: &ClusterArguments) -> anyhow::Result<Outcome> {
        let (helm, cluster) = (Helm::find(&self.helm, arguments)?, arguments.connect().await?);
        let values = helm.values_in_force()?;
        let authority = values.as_ref().and_then(|values| values.pointer("/ca/secret")?.as_str());
        let authority = authority.unwrap_or(AUTHORITY).to_owned();
        tell_hooks(&cluster).await?;
        match (&values, self.dry_run) {
            (None, _) => note(&format!("there is no release {} in {}", helm.release, cluster.mesh_namespace)),
            (Some(_), true) => print(&format!("release {}\n", helm.release))?,
            (Some(_), false) => {
                self.remove_release(&helm, &cluster).await?;
                print(&format!("release {} uninstalled\n", helm.release))?;
            }
        }
        let mut going = remains::of_control(&cluster).await?;
        if self.purge {
            going.extend(remains::kept(&cluster, &authority).await?);
        }
        for remnant in &going {
            if !self.dry_run {
                remnant.remove(&cluster).await?;
            }
            print(&format!("{}{}\n", remnant.name, if self.dry_run { "" } else { " removed" }))?;
        }
        if self.purge && !self.dry_run {
            self.remove_namespace(&cluster).await?;
        }
        self.tell_kept(&cluster, &authority).await?;
        Ok(Outcome::Good)
    }

    /// Removes the mesh's own namespace, where nothing is left in it, and waits until it is gone: into one that ends nothing can be
    /// installed.
    async fn remove_namespace(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let (kind, own) = (namespaces(), cluster.mesh_namespace.as_str());
        let Some(namespace) = remains::empty_namespace(cluster).await? else { return Ok(()) };
        let uid = cluster.find(&kind, None, own).await?.and_then(|there| there.uid()).unwrap_or_default();
        namespace.remove(cluster).await?;
        let gone = await_condition(cluster.objects(&kind, None), own, conditions::is_deleted(&uid));
        match tokio::time::timeout(Duration::from_secs(self.timeout), gone).await {
            Ok(gone) => drop(gone?),
            Err(_elapsed) => bail!(
                "namespace {own} has not ended within {} s: `kubectl get namespace {own} -o yaml` says what it waits for",
                self.timeout
            ),
        }
        print(&format!("{} removed\n", namespace.name))
    }

    /// Uninstalls the release, and waits until its pods have ended: until then mesh-control could make anew what goes.
    async fn remove_release(&self, helm: &Helm, cluster: &Cluster) -> anyhow::Result<()> {
        let timeout = format!("--timeout={}s", self.timeout);
        helm.run(&["uninstall", &helm.release, "--ignore-not-found", "--wait", &timeout])?;
        let (pods, namespace) = (kind("", "v1", "Pod"), cluster.mesh_namespace.as_str());
        let list = cluster.list(&pods, Some(namespace), &ListParams::default().labels(PODS)).await?;
        let api = cluster.objects(&pods, Some(namespace));
        let ended = async {
            for pod in list.iter().flat_map(|list| &list.items) {
                let uid = pod.uid().unwrap_or_default();
                await_condition(api.clone(), &pod.name_any(), conditions::is_deleted(&uid)).await?;
            }
            Ok::<_, anyhow::Error>(())
        };
        match tokio::time::timeout(Duration::from_secs(self.timeout), ended).await {
            Ok(ended) => ended,
            Err(_elapsed) => bail!(
                "the mesh's pods have not ended within {} s: `kubectl -n {namespace} get pods -o wide` says which; run `mesh-ctl \
                 uninstall` again when they have",
                self.timeout
            ),
        }
    }

    /// What stays, so that nobody looks for it.
    async fn tell_kept(&self, cluster: &Cluster, authority: &str) -> anyhow::Result<()> {
        if !self.purge {
            let kept = remains::kept(cluster, authority).await?;
            if !kept.is_empty() {
                let names: Vec<&str> = kept.iter().map(|remnant| &*remnant.name).collect();
                note(&format!("kept, as --purge was not said: {}", names.join(", ")));
            }
        }
        let ours = |gateway: &&DynamicObject| {
            let class = gateway.data.pointer("/spec/gatewayClassName").and_then(Value::as_str);
            class.is_some_and(|class| ["mesh", "mesh-waypoint"].contains(&class))
        };
        let list = cluster.list(&gateways(), None, &ListParams::default()).await?;
        let left: Vec<String> = list.iter().flat_map(|list| &list.items).filter(ours).map(full_name).collect();
        if !left.is_empty() {
            note(&format!("nobody runs these Gateways any more: {}", left.join(", ")));
        }
        Ok(())
    }
}

fn full_name(object: &DynamicObject) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

/// Nodes whose daemon is not there to take its hooks away.
async fn tell_hooks(cluster: &Cluster) -> anyhow::Result<()> {
    let daemon_set = cluster.find(&kind("apps", "v1", "DaemonSet"), Some(&cluster.mesh_namespace), "mesh-node").await?;
    let Some(daemon_set) = daemon_set else { return Ok(()) };
    let number = |pointer: &str| daemon_set.data.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
    let (wanted, ready) = (number("/status/desiredNumberScheduled"), number("/status/numberReady"));
    if ready < wanted {
        note(&format!(
            "{ready} of {wanted} daemons are ready: a node without one keeps its hooks, which refuse its pods' connections, until \
             `rm -r /sys/fs/bpf/mesh` there"
        ));
    }
    Ok(())
}
