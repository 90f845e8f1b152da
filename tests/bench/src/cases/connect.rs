//! What the hooks add to connect().
//!
//! Each time an application connects to a listener whose server waits in epoll and then ends the connection; the next
//! connect() follows when that end has arrived, so that nothing else runs during it. Without hooks there is no daemon and no
//! program in the kernel. A redirected connect() ends at the daemon's listener on loopback, so a plain one to
//! a listener on loopback is what it is compared with.

use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_lab::Place as _;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Reading, reading};
use crate::stage::{App, Stage};
use crate::statistics::Spread;
use crate::subjects::Subject;

const COUNT: usize = 1000;
/// Connections before those that count.
const WARM_UP: usize = 100;

pub(super) fn measure(stage: &mut Stage, subject: Subject) -> Result<Vec<Reading>> {
    let loopback = SocketAddr::from(([127, 0, 0, 1], App::Refuse.port()));
    let remote = stage.target(Subject::Raw, App::Refuse);
    let timed = |stage: &Stage, metric, to| Ok::<_, anyhow::Error>(reading(metric, "us", time(stage, to)?));
    match subject {
        Subject::Raw => {
            stage.remove_hooks()?;
            Ok(vec![timed(stage, "loopback", loopback)?, timed(stage, "remote", remote)?])
        }
        Subject::Mesh => {
            stage.enter(Subject::Raw)?;
            stage.add_hooks(subject)?;
            let outside = timed(stage, "loopback-outside-mesh", loopback)?;
            stage.enter(subject)?;
            Ok(vec![outside, timed(stage, "loopback", loopback)?, timed(stage, "remote", remote)?])
        }
        // The hooks are the same whatever the tunnels are made of, and Envoy has none.
        Subject::MeshH2 | Subject::Envoy | Subject::EnvoyHbone => Ok(Vec::new()),
    }
}

/// Runs [`connecting`] in the client's pod. The median in microseconds.
fn time(stage: &Stage, to: SocketAddr) -> Result<f64> {
    let program = std::env::current_exe().context("finding this program's own path")?.display().to_string();
    let argv = [&*program, "connecting", "--to", &to.to_string(), "--count", &COUNT.to_string()];
    let output = stage.client.exec(&argv)?;
    output.success()?;
    output.json()?["microseconds"].as_f64().with_context(|| format!("no median: {output}"))
}

/// Times connect() alone, `count` times, and prints the median.
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
    let spread = Spread::of(times).context("no connection was timed")?;
    println!("{}", json!({"microseconds": spread.median, "shortest": spread.low, "longest": spread.high}));
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
