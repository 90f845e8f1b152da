//! Streams of flows of several daemons and proxies, read for what belongs to one request.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{anyhow, bail};
use mesh_admin::{Flow, FlowLine, FlowSelection, path};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::hops::{Heard, Hop, Role};
use super::witnesses::Onward;
use crate::daemon::{Daemon, Next};

/// Flows that wait to be looked at.
const QUEUE: usize = 1024;
/// How much later one hop may be heard of than another.
const SOON: Duration = Duration::from_secs(1);

/// What one of those who are listened to says.
enum StreamEvent {
    Begun,
    /// By a waypoint, or a node.
    Flow(bool, Box<Flow>),
    Ended(anyhow::Error),
}

/// Those who are listened to.
pub(super) struct Listening {
    sender: mpsc::Sender<StreamEvent>,
    told: mpsc::Receiver<StreamEvent>,
    tasks: JoinSet<()>,
    waypoints: usize,
}

impl Default for Listening {
    fn default() -> Self {
        let (sender, told) = mpsc::channel(QUEUE);
        Self { sender, told, tasks: JoinSet::new(), waypoints: 0 }
    }
}

impl Listening {
    /// Listens to a node's daemon.
    pub(super) fn begin(&mut self, daemon: &Daemon, selection: FlowSelection) {
        self.listen(daemon, selection, false);
    }

    /// Listens to a waypoint.
    pub(super) fn begin_at_waypoint(&mut self, daemon: &Daemon, selection: FlowSelection) {
        self.waypoints += 1;
        self.listen(daemon, selection, true);
    }

    fn listen(&mut self, daemon: &Daemon, selection: FlowSelection, is_waypoint: bool) {
        let sender = self.sender.clone();
        let daemon = daemon.clone();
        self.tasks.spawn(async move {
            let query = selection.to_query();
            let begun = || Ok(sender.try_send(StreamEvent::Begun)?);
            let on_line = |line: &str| {
                if let FlowLine::Event(flow) = serde_json::from_str(line)? {
                    sender
                        .try_send(StreamEvent::Flow(is_waypoint, flow))
                        .map_err(|_| anyhow!("too many flows to find one among them"))?;
                }
                Ok(Next::More)
            };
            if let Err(error) = daemon.lines(path::FLOWS, &query, begun, on_line).await {
                // Nobody listens any more where this fails.
                let _ = sender.send(StreamEvent::Ended(error)).await;
            }
        });
    }

    /// Waits until all of them tell.
    pub(super) async fn begun(&mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let mut missing = self.tasks.len();
        while missing > 0 {
            match timeout_at(deadline, self.told.recv()).await {
                Ok(Some(StreamEvent::Begun)) => missing -= 1,
                Ok(Some(StreamEvent::Flow(..))) => {}
                Ok(Some(StreamEvent::Ended(error))) => return Err(error),
                Ok(None) | Err(_) => bail!("one of those who were asked for flows has not begun to tell"),
            }
        }
        Ok(())
    }

    /// What they tell of the request from that address, until all that should have told it, or for so long.
    pub(super) async fn heard(&mut self, local: Option<SocketAddr>, wanted: &[Role], limit: Duration) -> Heard {
        let deadline = Instant::now() + limit;
        let mut heard = Heard::new(wanted);
        // What nobody is listened to for is not waited for.
        let awaited: Vec<Role> =
            wanted.iter().copied().filter(|role| *role != Role::Waypoint || self.waypoints > 0).collect();
        while awaited.iter().any(|role| !heard.has(*role)) {
            let Ok(Some(told)) = timeout_at(deadline, self.told.recv()).await else { break };
            if let StreamEvent::Flow(by_waypoint, flow) = told {
                heard.take(by_waypoint, *flow, local);
            }
        }
        heard
    }

    /// The connection of a waypoint's that a server's node opens or refuses, if it comes to be told of soon.
    pub(super) async fn onward(&mut self, heard: &mut Heard, onward: &Onward) -> Option<Hop> {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(hop) = heard.opened(onward) {
                return Some(hop);
            }
            if let StreamEvent::Flow(by_waypoint, flow) = timeout_at(deadline, self.told.recv()).await.ok()?? {
                heard.take(by_waypoint, *flow, None);
            }
        }
    }
}
