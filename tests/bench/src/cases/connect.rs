//! What the hooks add to connect().
//!
//! Each time an application connects to a listener whose server waits in epoll and then ends the connection; the next
//! connect() follows when that end has arrived, so that little else runs during it. Without hooks there is no daemon and no
//! program in the kernel. A redirected connect() ends at the daemon's listener on loopback, so a plain one to
//! a listener on loopback is what it is compared with.
//!
//! Only the client's daemon runs: the lab's nodes share a kernel, and with both of them each socket would pass the programs
//! of two nodes. So the server is outside the mesh, which connect() does not notice.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_lab::Place as _;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Reading, reading};
use crate::sampling::hooks::{self, Counting};
use crate::stage::{App, CLIENT_NODE, Stage};
use crate::statistics::Spread;
use crate::subjects::Subject;

const COUNT: usize = 1000;
/// Connections before those that count.
const WARM_UP: usize = 100;

pub(super) fn measure(stage: &mut Stage, subject: Subject) -> Result<Vec<Reading>> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], App::Refuse.port()));
    let remote = SocketAddr::new(stage.outside.ipv4(), App::Refuse.port());
    let timed = |stage: &Stage, metric, to| Ok::<_, anyhow::Error>(reading(metric, "us", time(stage, to)?));
    stage.remove_hooks()?;
    match subject {
        Subject::Raw => Ok(vec![timed(stage, "loopback", loopback)?, timed(stage, "remote", remote)?]),
        Subject::Mesh => {
            stage.add_hooks(subject, &[CLIENT_NODE])?;
            let outside = timed(stage, "loopback-outside-mesh", loopback)?;
            stage.join_mesh()?;
            let mut readings = vec![outside, timed(stage, "loopback", loopback)?, timed(stage, "remote", remote)?];
            readings.extend(programs(stage, subject, remote)?);
            stage.remove_hooks()?;
            Ok(readings)
        }
        // The hooks are the same whatever the tunnels are made of, and Envoy has none.
        Subject::MeshH2 | Subject::Waypoint | Subject::Envoy | Subject::EnvoyHbone => Ok(Vec::new()),
    }
}

/// The time of one daemon's programs for a connection: connect() itself, and what comes after it at each of its sockets.
fn programs(stage: &Stage, subject: Subject, to: SocketAddr) -> Result<Option<Reading>> {
    let (Some(_counting), Some(daemon)) = (Counting::start(), stage.proxies(subject)?.first().copied()) else {
        return Ok(None);
    };
    let before = hooks::run_time(daemon)?;
    time(stage, to)?;
    let all = hooks::run_time(daemon)? - before;
    Ok(Some(reading("programs", "us", all / (COUNT + WARM_UP) as f64)))
}

/// Runs [`connecting`] in the client's pod. Microseconds.
fn time(stage: &Stage, to: SocketAddr) -> Result<f64> {
    let program = std::env::current_exe().context("finding this program's own path")?.display().to_string();
    let argv = [&*program, "connecting", "--to", &to.to_string(), "--count", &COUNT.to_string()];
    let output = stage.client.exec(&argv)?;
    output.success()?;
    output.json()?["microseconds"].as_f64().with_context(|| format!("no time: {output}"))
}

/// Times connect() alone, `count` times, and prints what it takes undisturbed.
pub(crate) fn connecting(to: SocketAddr, count: usize) -> Result<()> {
    let mut times = Vec::with_capacity(count);
    for number in 0..count + WARM_UP {
        match connect_once(to) {
            Ok(took) if number >= WARM_UP => times.push(took.as_secs_f64() * 1e6),
            Ok(_) => {}
            // The server was done with it before connect() returned here.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            Err(error) => return Err(error).with_context(|| format!("connection {number} to {to}")),
        }
    }
    let undisturbed = Spread::undisturbed(times).context("no connection was timed")?;
    println!("{}", json!({"microseconds": undisturbed}));
    Ok(())
}

fn connect_once(to: SocketAddr) -> std::io::Result<Duration> {
    let mut socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    let address = to.into();
    let start = Instant::now();
    socket.connect(&address)?;
    let took = start.elapsed();
    // The server ends it with a reset.
    let _ = socket.read(&mut [0]);
    Ok(took)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_timed_when_its_server_has_ended_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let to = listener.local_addr().expect("its address");
        let server = std::thread::spawn(move || drop(listener.accept()));
        assert!(connect_once(to).expect("connected") > Duration::ZERO);
        server.join().expect("the server ended");
    }
}
