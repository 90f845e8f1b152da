//! A node whose clock is wrong: said in the log, in metrics and by mesh-ctl; connections are held for a bounded time and then
//! refused, and all is well as soon as the clock is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use mesh_e2e::{Clock, Connect, Mesh, PATIENCE, Verdict, client, ctl, echo, port};
use mesh_lab::{Place as _, Pod, Process, binary, wait_until};

const HOUR: i64 = 3600;
/// How long a connection waits for a certificate (mesh-transport), and what a busy machine adds.
const HELD: std::ops::Range<Duration> = Duration::from_secs(4)..Duration::from_secs(15);

/// An authority whose clock is right, on node-a; and node-b, whose clock can be set.
struct Parts {
    // Before the mesh, so that it ends first.
    _authority: Process,
    mesh: Mesh,
    clock: Clock,
    far: Pod,
    pod: Pod,
}

impl Parts {
    /// `behind`: what node-b's clock is set to before its daemon starts.
    fn start(shift: i64) -> Result<Self> {
        let mut mesh = Mesh::without_daemons()?;
        let clock = Clock::new(&mesh.lab)?;
        clock.set(shift)?;
        let home = mesh.lab.node("node-a")?;
        let ip = home.addresses().into_iter().find(IpAddr::is_ipv4).unwrap_or(Ipv4Addr::LOCALHOST.into());
        let (address, tokens) = (SocketAddr::new(ip, 15_012).to_string(), mesh.lab.home().join("tokens"));
        let made =
            Command::new(binary("mesh-control")?).args(["ca", "token", "--dir"]).arg(&tokens).arg("node-b").output();
        ensure!(made.context("starting mesh-control")?.status.success());
        let path = |path: &std::path::Path| path.display().to_string();
        let (ca, config) = (path(&mesh.lab.ca_dir()?), path(mesh.lab.config_dir()));
        let argv = ["mesh-control", "serve", "--listen", &address, "--ca", &ca, "--config", &config];
        let mut authority = home.spawn(&[&argv[..], &["--node-tokens", &path(&tokens)]].concat())?;
        authority.wait_for_line("certificate authority listening", PATIENCE)?;
        let (root, token) = (format!("{ca}/root-cert.pem"), path(&tokens.join("node-b")));
        let flags = ["--ca-address", &address, "--ca-root", &root, "--ca-token", &token];
        mesh.start_daemon("node-a")?;
        mesh.start_daemon_in("node-b", &flags, clock.environment())?;
        mesh.label()?;
        let far = mesh.join(echo("server", "node-a"))?;
        let pod = mesh.join(client("client", "node-b"))?;
        Ok(Self { _authority: authority, mesh, clock, far, pod })
    }

    fn metric(&self, name: &str) -> Result<f64> {
        Ok(self.mesh.metrics("node-b")?.sum(name, &[]))
    }

    fn connect(&self) -> Connect {
        Connect::to(SocketAddr::new(self.far.ipv4(), port::ECHO))
    }

    /// A new connection waits for a while, and is refused for want of a certificate.
    fn is_held_and_refused(&self) -> Result<()> {
        let (before, started) = (self.mesh.refused("node-b", "no_certificate")?, Instant::now());
        let answer = self.connect().run(&self.pod)?;
        ensure!(answer.was_refused(), "{answer:?}");
        ensure!(HELD.contains(&started.elapsed()), "held for {:?}", started.elapsed());
        ensure!(self.mesh.refused("node-b", "no_certificate")? > before);
        Ok(())
    }

    /// The log, `mesh-ctl status` and `mesh-ctl certificate list` say that the clock is wrong.
    fn is_said(&self) -> Result<()> {
        let logs = self.mesh.daemon("node-b")?.logs();
        for part in ["this machine's clock is behind the CA's", "set the clock"] {
            ensure!(logs.contains(part), "{part:?} is not in the log");
        }
        let status = ctl(&self.mesh, "node-b", &["status"])?;
        ensure!(status.code == Some(1) && status.stdout.contains("set the clock"), "{status}");
        let list = ctl(&self.mesh, "node-b", &["certificate", "list", "-o", "json"])?;
        ensure!(list.stdout.contains("set the clock"), "{list}");
        Ok(())
    }

    fn is_well_again(&self) -> Result<()> {
        self.clock.set(0)?;
        wait_until("connections to be carried again", PATIENCE, || {
            Ok((self.connect().run(&self.pod)?.outcome == "ok").then_some(()))
        })?;
        // As soon as another certificate has been had.
        wait_until("the clock to be right by the metric", PATIENCE, || {
            Ok((self.metric("mesh_clock_behind_ca_seconds")?.abs() < 30.0).then_some(()))
        })?;
        let told = self.mesh.told("node-b", 1)?;
        ensure!(told.last().is_some_and(|line| line["security"] == "mutual_tls"), "{told:?}");
        Ok(())
    }
}

#[test]
fn a_node_whose_clock_is_behind_has_no_certificates_and_says_why() -> Verdict {
    let parts = Parts::start(-HOUR)?;
    parts.is_held_and_refused()?;
    let behind = parts.metric("mesh_clock_behind_ca_seconds")?;
    assert!((HOUR as f64 - 300.0..=HOUR as f64 + 300.0).contains(&behind), "{behind}");
    parts.is_said()?;
    parts.is_well_again()?;
    Ok(())
}

#[test]
fn a_clock_that_jumps_ahead_ends_certificates_and_nothing_goes_out_without_one() -> Verdict {
    let parts = Parts::start(0)?;
    parts.connect().answered(&parts.pod)?;
    // Past the day that the certificate lives, and the authority's own.
    parts.clock.set(400 * 24 * HOUR)?;
    parts.is_held_and_refused()?;
    assert!(parts.metric("mesh_certificate_expiry_seconds")? < 0.0);
    assert!(parts.metric("mesh_clock_behind_ca_seconds")? < -86_400.0);
    parts.is_said()?;
    parts.is_well_again()?;
    Ok(())
}

#[test]
fn a_daemon_does_not_start_with_an_authority_that_is_not_valid_yet() -> Verdict {
    let mut mesh = Mesh::without_daemons()?;
    let clock = Clock::new(&mesh.lab)?;
    clock.set(-HOUR)?;
    let error = mesh.start_daemon_in("node-b", &[], clock.environment()).err().context("it has started")?;
    let error = format!("{error:#}");
    assert!(error.contains("--ca") && error.contains("not valid yet"), "{error}");
    Ok(())
}
