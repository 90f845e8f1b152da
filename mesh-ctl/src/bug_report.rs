//! `mesh-ctl bug-report`: what somebody needs who was not there, in one archive, with secrets left out.

mod archive;
mod cluster;
mod daemons;
mod redact;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::time::Instant;

use self::archive::Archive;
use crate::Outcome;
use crate::cluster::{Cluster, ClusterArguments};
use crate::manifests::Reading;
use crate::output::{note, print};

/// Writes an archive about the mesh of a cluster: versions, status, generations, findings, the configuration in force, flows of a few
/// seconds, logs and events.
///
/// Secrets are never read. Private keys, tokens, and values of fields that are called like passwords are left out of what is read; of
/// Pods only what the mesh looks at is kept. Names, addresses and paths stay: look at it before you hand it on.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct BugReport {
    /// The archive to write, a gzipped tar; without it one named after the time, here.
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// How long flows are watched, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(0..=300))]
    flows: u64,
    /// How long all of it may take, in seconds; what is not read by then is named in the archive.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// How much is kept before it is compressed, in mebibytes; the rest is named in the archive.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1024))]
    size: u64,
    /// Lines of each log, from its end.
    #[arg(long, value_name = "LINES", default_value_t = 2_000)]
    log_lines: i64,
    /// Asks the daemon of this node alone.
    #[arg(long, value_name = "NODE")]
    node: Option<String>,
    #[command(flatten)]
    reading: Reading,
}

/// What is asked for, and until when.
struct Inquiry<'a> {
    cluster: &'a Cluster,
    until: Instant,
    wanted: &'a BugReport,
}

impl BugReport {
    pub(crate) async fn run(&self, arguments: &ClusterArguments) -> anyhow::Result<Outcome> {
        ensure!(arguments.is_there(), "no cluster to report of: name it with --kubeconfig FILE or KUBECONFIG");
        let cluster = arguments.connect().await?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs();
        let name = format!("mesh-bug-report-{since}");
        let path = self.file.clone().unwrap_or_else(|| format!("{name}.tar.gz").into());
        let mut archive = Archive::create(&path, &name, self.size << 20)?;
        let until = Instant::now() + Duration::from_secs(self.timeout);
        let inquiry = Inquiry { cluster: &cluster, until, wanted: self };
        // The mesh's own word first: where there is too much, it is the rest that is left out.
        inquiry.daemons(&mut archive).await?;
        inquiry.proxies(&mut archive).await?;
        inquiry.control(&mut archive).await?;
        inquiry.cluster(&mut archive).await?;
        inquiry.configuration(&mut archive).await?;
        let left_out = archive.finish(since)?;
        if left_out.len() == archive::MAX_NOTES {
            note("more was not read than is named");
        }
        for what in &left_out {
            note(&format!("not in it: {what}"));
        }
        print(&format!("{}\n", path.display()))?;
        Ok(if left_out.is_empty() { Outcome::Good } else { Outcome::Bad })
    }
}

impl Inquiry<'_> {
    /// What comes of a question in the time that is left.
    async fn within<T>(&self, what: &str, asked: impl Future<Output = anyhow::Result<T>>) -> Result<T, String> {
        match tokio::time::timeout_at(self.until, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{what}: {error:#}")),
            Err(_elapsed) => Err(format!("{what}: the time was over (--timeout)")),
        }
    }
}
