//! How daemons are run, shown with a stand-in for the node daemon: this test program, which answers probes and scrapes.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use mesh_lab::{Daemon, DaemonOptions, Lab, Place, PodSpec};

const METRICS: &str = "# TYPE opened counter\nopened{reporter=\"source\"} 2\nopened{reporter=\"destination\"} 3\n";

/// Starts the stand-in on a node. It gets the arguments of a node daemon by a variable, as a test program knows others.
fn start(lab: &Lab, node: &str) -> Result<Daemon> {
    let script = lab.home().join("stand-in");
    let exe = env::current_exe()?;
    let text = format!("#!/bin/sh\nSTAND_IN=\"$*\" exec {} --exact stand_in --ignored --nocapture\n", exe.display());
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    let options = DaemonOptions {
        program: Some(script),
        ca: Some(PathBuf::from("/nonexistent")),
        args: vec!["--more".into()],
        ..DaemonOptions::default()
    };
    lab.start_daemon(node, options)
}

#[test]
#[ignore = "a part of other tests: stands in for the node daemon"]
fn stand_in() -> Result<()> {
    let Ok(arguments) = env::var("STAND_IN") else { return Ok(()) };
    println!("started with {arguments}");
    let answer = |port: u16, body: &'static str| -> Result<()> {
        let listener = TcpListener::bind(("::", port))?;
        for stream in listener.incoming() {
            let mut stream = stream?;
            let _ = stream.read(&mut [0; 1024])?;
            write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}")?;
        }
        Ok(())
    };
    thread::spawn(move || answer(15020, METRICS));
    answer(15021, "")
}

#[test]
fn a_daemon_is_started_probed_scraped_and_ended() -> Result<()> {
    let lab = Lab::builder().node("node-a").node("node-b").build()?;
    // Both listen at the same ports: each is in its node's namespace.
    let (mut one, other) = (start(&lab, "node-a")?, start(&lab, "node-b")?);
    assert!(one.is_ready());
    let line = one.wait_for_line("started with", Duration::from_secs(5))?;
    for argument in ["--node node-a", "--more", &format!("--config {}", lab.config_dir().display())] {
        assert!(line.contains(argument), "{line}");
    }
    assert_eq!(one.metrics()?.sum("opened", &[]), 5.0);
    assert_eq!(one.metrics()?.sum("opened", &[("reporter", "source")]), 2.0);
    assert!(one.rss()? > 100_000);
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", one.id()))?;
    assert!(cgroup.contains("/node-a/mesh-system/mesh-node-"), "{cgroup}");

    assert_eq!(one.terminate(Duration::from_secs(5))?.signal, Some(15));
    assert_eq!(other.kill9()?.code(), None);
    assert!(start(&lab, "node-a")?.is_ready(), "another one finds the ports free");
    Ok(())
}

#[test]
fn a_daemon_that_ends_at_once_is_shown_with_its_log() -> Result<()> {
    let lab = Lab::builder().node("node-a").build()?;
    let ca = Some(PathBuf::from("/nonexistent"));
    let program = Some(PathBuf::from("/bin/ls"));
    let error = lab.start_daemon("node-a", DaemonOptions { program, ca, ..DaemonOptions::default() }).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("unrecognized option") && text.contains("exit status: 2"), "{text}");
    Ok(())
}

#[test]
fn pins_outlive_daemons_but_not_the_lab() -> Result<()> {
    let lab = Lab::builder().node("node-a").build()?;
    drop(start(&lab, "node-a")?);
    let pins = lab.home().join("bpf.node-a/mesh");
    fs::create_dir(pins.join("maps"))?;
    drop(start(&lab, "node-a")?);
    assert!(pins.join("maps").exists());

    // A pod of another lab has a copy of every mount that was there when it began, and must not keep this one.
    let other = Lab::builder().node("node-a").build()?;
    let pod = other.deploy(PodSpec::new("shop", "idle"))?;
    let mounts = || -> Result<String> { Ok(pod.exec(&["cat", "/proc/self/mounts"])?.success()?.to_owned()) };
    let id = lab.id();
    assert!(mounts()?.contains(&id));
    drop(lab);
    assert!(!mounts()?.contains(&id));
    Ok(())
}

#[test]
fn a_certificate_authority_is_made_once() -> Result<()> {
    let lab = Lab::builder().node("node-a").build()?;
    let own = lab.ca_dir()?;
    let key = fs::read(own.join("ca-key.pem"))?;
    assert_eq!(lab.ca_dir()?, own);
    assert_eq!(fs::read(own.join("ca-key.pem"))?, key);
    let other = lab.ca_dir_of("other-ca", "elsewhere.test")?;
    assert_ne!(fs::read(other.join("ca-key.pem"))?, key);
    Ok(())
}
