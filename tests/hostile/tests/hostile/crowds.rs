//! Peers that come in numbers, or hold on to what they got.

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Place as _, wait_until};
use serde_json::Value;

use crate::siege::{PATIENCE, PORT, Siege, expect};

/// What a crowd of connections that prove nothing may cost, in MiB.
const ROOM: u64 = 96;

fn last_line(stdout: &str) -> Result<Value> {
    let line = stdout.lines().last().context("the attacker said nothing")?;
    Ok(serde_json::from_str(line)?)
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_are_closed_in_time() -> Result<()> {
    let mut siege = Siege::lay(2)?;
    let (memory, files, rejected) = (siege.memory()?, siege.open_files()?, siege.rejected()?);
    let mut crowd = siege.start("crowd", &siege.server, &["idle", "--count", "10000"])?;
    crowd.wait_for_line("holding", PATIENCE)?;
    siege.others_are_unhurt()?;
    let grown = siege.memory()?.saturating_sub(memory);
    ensure!(grown < ROOM, "10,000 idle connections cost {grown} MiB");
    let output = crowd.wait(PATIENCE)?;
    output.success()?;
    expect(&last_line(&output.stdout)?["endings"], "end", 10_000)?;
    siege.wait_counted(&rejected, &[("handshake_timeout", 10_000)], Siege::rejected)?;
    wait_until("their files to be closed", PATIENCE, || Ok((siege.open_files()? < files + 64).then_some(())))?;
    siege.others_are_unhurt()
}

#[test]
fn handshakes_that_never_end_keep_nobody_out() -> Result<()> {
    let mut siege = Siege::lay(2)?;
    let (memory, rejected) = (siege.memory()?, siege.rejected()?);
    // A thousand from each of two machines.
    let another = siege.lab.outside("another")?;
    let mut crowds = [
        siege.start("crowd", &siege.server, &["dribble", "--count", "1000"])?,
        siege.start_from(&another, "crowd", &siege.server, &["hello", "--count", "1000"])?,
    ];
    for crowd in &mut crowds {
        crowd.wait_for_line("holding", PATIENCE)?;
    }
    siege.others_are_unhurt()?;
    let grown = siege.memory()?.saturating_sub(memory);
    ensure!(grown < ROOM, "2,000 handshakes cost {grown} MiB");
    for crowd in &mut crowds {
        crowd.wait(PATIENCE)?.success()?;
    }
    siege.wait_counted(&rejected, &[("handshake_timeout", 2000)], Siege::rejected)?;
    siege.others_are_unhurt()
}

#[test]
fn connections_with_a_good_certificate_that_do_nothing_cost_little() -> Result<()> {
    let mut siege = Siege::lay(2)?;
    for how in ["authenticated", "half-record"] {
        let memory = siege.memory()?;
        let mut crowd = siege.start("crowd", &siege.server, &[how, "--count", "1000"])?;
        crowd.wait_for_line("holding", PATIENCE)?;
        siege.others_are_unhurt()?;
        let grown = siege.memory()?.saturating_sub(memory);
        ensure!(grown < ROOM, "1,000 connections ({how}) cost {grown} MiB");
        crowd.close_stdin();
        let output = crowd.wait(PATIENCE)?;
        expect(&last_line(&output.stdout)?["endings"], "held to our end", 1000)?;
    }
    Ok(())
}

/// Each taken back once the daemon has begun to connect an application that does not answer: HTTP/2 counts the stream
/// as gone, but the daemon still has a socket for it.
#[test]
fn requests_that_are_taken_back_hold_no_sockets() -> Result<()> {
    let mut siege = Siege::lay(2)?;
    let deaf = siege.deaf_pod("0")?;
    let (memory, files) = (siege.memory()?, siege.open_files()?);
    let target = format!("{}:{PORT}", deaf.ipv4());
    let mut flood = siege.start("flood", &deaf, &["late-reset", "--rounds", "60", "--target", &target])?;
    let mut most = 0;
    wait_until("the flood to end", PATIENCE, || {
        most = most.max(siege.open_files()?);
        flood.status()
    })?;
    expect(&last_line(&flood.stdout())?, "rounds", 60)?;
    ensure!(most < files + 1024, "the daemon had {most} open files");
    ensure!(siege.memory()? < memory + ROOM, "the daemon grew to {} MiB", siege.memory()?);
    siege.others_are_unhurt()
}

/// What waits for an application that does not read is bounded by windows that shrink as connections become many:
/// each alone may hold 64 MiB.
#[test]
fn tunnels_to_an_application_that_does_not_read_hold_bounded_memory() -> Result<()> {
    let mut siege = Siege::lay(1)?;
    let deaf = siege.deaf_pod("4096")?;
    let memory = siege.memory()?;
    let target = format!("{}:{PORT}", deaf.ipv4());
    let mut crowd =
        siege.start("crowd", &deaf, &["stuffed", "--count", "32", "--tunnels", "8", "--target", &target])?;
    crowd.wait_for_line("holding", PATIENCE)?;
    let grown = siege.settled_memory()?.saturating_sub(memory);
    ensure!(grown > 64, "the attacker got only {grown} MiB through: the test proves nothing");
    ensure!(grown < 288, "32 connections hold {grown} MiB");
    siege.others_are_unhurt()
}

#[test]
fn idle_clients_of_the_readiness_port_do_not_make_the_daemon_look_dead() -> Result<()> {
    let siege = Siege::lay(0)?;
    for port in [15020, 15021] {
        let to = format!("{}:{port}", siege.daemon.node().ipv4());
        let mut crowd = siege.start_idle(&to, "200")?;
        crowd.wait_for_line("holding", PATIENCE)?;
        ensure!(siege.daemon.is_ready(), "not ready");
        siege.daemon.metrics().context("metrics")?;
    }
    Ok(())
}
