//! `mesh-ctl install`: the chart that is built into this program, onto a cluster.

mod chart;
mod definitions;
mod helm;
mod remains;
mod uninstall;

use clap::Args;

pub(crate) use self::chart::{Chart, Values, objects};
pub(crate) use self::helm::{Helm, HelmArguments};
pub(crate) use self::uninstall::Uninstall;
use crate::Outcome;
use crate::cluster::{Cluster, ClusterArguments};
use crate::output::{note, print};
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

impl Install {
    pub(crate) async fn run(&self, arguments: &ClusterArguments) -> anyhow::Result<Outcome> {
        let (helm, chart) = (Helm::find(&self.helm, arguments)?, Chart::unpack()?);
        let rendered = helm.template(&chart, &self.values)?;
        if self.dry_run {
            print(&definitions::rendered()?)?;
            print(&rendered)?;
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
        Ok(Outcome::Good)
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
