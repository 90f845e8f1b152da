//! What a large cluster costs a program that follows it: memory, and the time until one Pod's change is in force.
//!
//! It reads manifests as the daemons do, in this process and with nothing else in it.

mod cluster;
mod told;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_config::{Config, Options, watch};
use tokio::sync::watch::Receiver;

use crate::args::SnapshotArgs;
use crate::sampling::memory::Memory;
pub(crate) use cluster::Cluster;
pub(crate) use told::{COMMAND, follow};

/// Far more than any change takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes the cluster, reads it and changes it.
pub(crate) fn run(args: &SnapshotArgs) -> Result<()> {
    let cluster = Cluster { pods: args.workloads, services: args.services, nodes: args.nodes };
    let directory = tempfile::tempdir().context("making a directory for the manifests")?;
    cluster.write(directory.path())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(cluster, directory.path(), args.changes))?;
    runtime.block_on(told::measure(directory.path(), args.changes))
}

async fn measure(cluster: Cluster, directory: &std::path::Path, changes: u32) -> Result<()> {
    let before = resident()?;
    let start = Instant::now();
    let mut config = watch(directory.to_owned(), Options::default()).await?;
    let read = start.elapsed();
    {
        let config = config.borrow_and_update();
        let (workloads, services) = (config.snapshot.workloads().len(), config.snapshot.services().len());
        println!("{workloads} workloads, {services} services, {} findings", config.findings.len());
    }
    println!("read in                {:>9.1} s", read.as_secs_f64());
    println!("resident, in addition  {:>9.1} MiB", mebibytes(resident()? - before));
    let mut times = Vec::new();
    for version in 1..=changes {
        let service = version.wrapping_mul(7919) % cluster.services;
        let address = cluster.first_address(service, version);
        cluster.change(directory, service, version)?;
        times.push(shown(&mut config, address).await?);
    }
    times.sort();
    if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
        println!("a pod's change         {:>9.1} ms until in force, at most {:.1}", millis(*median), millis(*longest));
    }
    println!("resident after changes {:>9.1} MiB", mebibytes(resident()? - before));
    Ok(())
}

/// How long it takes until a configuration in force has a workload at `address`.
async fn shown(config: &mut Receiver<Arc<Config>>, address: Ipv4Addr) -> Result<Duration> {
    let start = Instant::now();
    let address = IpAddr::V4(address);
    let known = config.wait_for(|config| config.snapshot.workload_by_address(address).is_some());
    tokio::time::timeout(PATIENCE, known).await.context("the change does not come into force")??;
    Ok(start.elapsed())
}

fn resident() -> Result<f64> {
    Ok(Memory::of(std::process::id())?.resident)
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
