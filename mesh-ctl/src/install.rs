//! `mesh-ctl install`: the chart that is built into this program, onto a cluster.

mod chart;
mod definitions;
mod helm;
mod remains;
mod uninstall;

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use kube::api::DynamicObject;
use kube::runtime::wait::await_condition;

pub(crate) use self::chart::{Chart, Values, objects};
pub(crate) use self::helm::{Helm, HelmArguments};
pub(crate) use self::uninstall::Uninstall;
use crate::Outcome;
use crate::cluster::{Cluster, ClusterArguments, kind};
use crate::output::{note, print, print_raw};
use crate::precheck;

/// Installs the mesh on a cluster, or brings what is there to this program's version and these values.
///
/// The chart is built into this program, and Helm applies it, so that `helm` knows the release as its own. What the cluster lacks is
/// looked for first, and nothing is done where something is missing.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Install {
    #[command(flatten)]
    helm: HelmArguments,
    #[command(flatten)]
    values: Values,
    /// Keeps the values that the release has, where these say nothing else.
    #[arg(long)]
    reuse_values: bool,
    /// Prints the manifests and changes nothing; no cluster is asked.
    #[arg(long)]
    dry_run: bool,
    /// Waits until all is ready.
    #[arg(long)]
    wait: bool,
    /// How long to wait, in seconds.
    #[arg(long, value_name = "SECONDS", requires = "wait", default_value_t = 300)]
    timeout: u64,
    /// Does not look first for what the cluster lacks.
    #[arg(long)]
    skip_precheck: bool,
}

/// The daemons' DaemonSet.
const DAEMONS: &str = "mesh-node";

/// Whether a DaemonSet's pods run as it asks for now, on every node that is to have one.
fn is_everywhere(daemons: &DynamicObject) -> bool {
    // What is none is left out.
    let number = |name: &str| daemons.data["status"][name].as_i64().unwrap_or_default();
    let wanted = number("desiredNumberScheduled");
    Some(number("observedGeneration")) == daemons.metadata.generation
        && number("updatedNumberScheduled") == wanted
        && number("numberReady") == wanted
}

impl Install {
    pub(crate) async fn run(&self, arguments: &ClusterArguments) -> anyhow::Result<Outcome> {
        let (helm, chart) = (Helm::find(&self.helm, arguments)?, Chart::unpack()?);
        let rendered = helm.template(&chart, &self.values)?;
        if self.dry_run {
            print_raw(&definitions::rendered()?)?;
            print_raw(&rendered)?;
            return Ok(Outcome::Good);
        }
        let cluster = arguments.connect().await?;
        if !self.skip_precheck && !self.may_go_on(&cluster, &rendered).await? {
            return Ok(Outcome::Bad);
        }
        for told in definitions::apply(&cluster).await? {
            note(&told);
        }
        let said = helm.run(&self.upgrade(&helm, &chart)?)?;
        print(&said)?;
        if self.wait {
            self.wait_for_daemons(&cluster).await?;
        }
        Ok(Outcome::Good)
    }

    /// Helm is content where a rolling update may leave one node without its daemon.
    async fn wait_for_daemons(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let api = cluster.objects(&kind("apps", "v1", "DaemonSet"), Some(&cluster.mesh_namespace));
        let are_ready = |daemons: Option<&DynamicObject>| daemons.is_some_and(is_everywhere);
        let waiting = await_condition(api, DAEMONS, are_ready);
        match tokio::time::timeout(Duration::from_secs(self.timeout), waiting).await {
            Ok(done) => done.map(drop).context("the daemons are not watched"),
            Err(_elapsed) => bail!(
                "not every node's daemon is ready after {} s: `mesh-ctl status` and `kubectl -n {} get pods -o wide` say which, and why",
                self.timeout,
                cluster.mesh_namespace
            ),
        }
    }

    /// Helm's own "upgrade or install": the same again changes nothing but the revision.
    fn upgrade(&self, helm: &Helm, chart: &Chart) -> anyhow::Result<Vec<String>> {
        let mut words = vec!["upgrade".to_owned(), helm.release.clone(), chart.path().display().to_string()];
        words.extend(["--install", "--create-namespace", "--skip-crds"].map(str::to_owned));
        words.extend(self.values.arguments()?);
        if self.reuse_values {
            words.push("--reuse-values".to_owned());
        }
        if self.wait {
            words.extend(["--wait".to_owned(), format!("--timeout={}s", self.timeout)]);
        }
        Ok(words)
    }

    /// Whether nothing is missing; what is, and what is doubtful, is told.
    async fn may_go_on(&self, cluster: &Cluster, rendered: &str) -> anyhow::Result<bool> {
        let found = precheck::of_cluster(cluster, &objects(rendered)?).await?;
        let told = precheck::not_well(&found);
        if !told.is_empty() {
            note(told.trim_end());
        }
        if !found.nothing_is_missing() {
            note("nothing was installed: something is missing; --skip-precheck installs all the same");
        }
        Ok(found.nothing_is_missing())
    }
}
