//! Memory of the proxies: just started with a pod each, and with 1,000 connections held.
//!
//! It is what the processes have; the kernel's own memory for sockets is in neither subject's figures.

use anyhow::{Context, Result};
use mesh_lab::Place as _;

use super::{Reading, reading};
use crate::sampling::memory::Memory;
use crate::stage::{App, PATIENCE, Stage};
use crate::subjects::Subject;

const CONNECTIONS: u32 = 1000;

pub(super) fn measure(stage: &mut Stage, subject: Subject) -> Result<Vec<Reading>> {
    if stage.settings.envoy.is_none() && subject.is_envoy() || matches!(subject, Subject::Raw | Subject::Waypoint) {
        return Ok(Vec::new());
    }
    stage.enter_anew(subject)?;
    let [client, server] = stage.proxies(subject)?[..] else { anyhow::bail!("{} has no two proxies", subject.name()) };
    let idle = [Memory::of(client)?, Memory::of(server)?];
    let (target, connections) = (stage.target(subject, App::Echo).to_string(), CONNECTIONS.to_string());
    let many = ["mesh-traffic", "many", "--to", &target, "--connections", &connections, "--hold"];
    let mut many = stage.client.spawn(&many)?;
    many.wait_for_line("holding", PATIENCE)?;
    let held = [Memory::of(client)?, Memory::of(server)?];
    many.close_stdin();
    many.wait(PATIENCE)?.success().context("the connections that were held")?;
    let larger = |memory: [Memory; 2], of: fn(&Memory) -> f64| f64::max(of(&memory[0]), of(&memory[1]));
    let each = |side: usize, of: fn(&Memory) -> f64| (of(&held[side]) - of(&idle[side])) / f64::from(CONNECTIONS);
    Ok(vec![
        reading("idle", "MB", larger(idle, |it| it.resident) / 1e6),
        reading("idle-proportional", "MB", larger(idle, |it| it.proportional) / 1e6),
        reading("connection-client-side", "bytes", each(0, |it| it.resident)),
        reading("connection-server-side", "bytes", each(1, |it| it.resident)),
        reading(
            "connection-proportional",
            "bytes",
            f64::max(each(0, |it| it.proportional), each(1, |it| it.proportional)),
        ),
    ])
}
