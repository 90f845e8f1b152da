//! What daemons and waypoints tell of one request.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{anyhow, bail};
use mesh_admin::{Flow, FlowLine, FlowSelection, Party, Verdict, Why, path};
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::sender::{Marks, Sent};
use crate::daemon::{Daemon, Next};

/// Flows that wait to be looked at.
const QUEUE: usize = 1024;

/// What one hop tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hop {
    /// `node` (the client's), `waypoint` or `peer` (another node).
    pub(super) by: &'static str,
    /// When it was over there, in milliseconds since 1970 (UTC).
    pub(super) at_milliseconds: u64,
    /// `allowed`, `denied` or `failed`.
    verdict: &'static str,
    /// Everything that it tells.
    flow: Flow,
}

/// A request, and what each hop tells of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// The trace, for a tracing backend.
    trace_id: String,
    at_milliseconds: u64,
    took_microseconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<usize>,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    source: mesh_admin::Peer,
    asked: SocketAddr,
    hops: Vec<Hop>,
    /// Who should have told and has not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent: Vec<&'static str>,
}

/// What one of those who are listened to says.
enum Told {
    Begun,
    Flow(&'static str, Box<Flow>),
    Ended(anyhow::Error),
}

/// Those who are listened to.
pub(super) struct Listening {
    sender: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    tasks: JoinSet<()>,
    names: Vec<&'static str>,
}

impl Default for Listening {
    fn default() -> Self {
        let (sender, told) = mpsc::channel(QUEUE);
        Self { sender, told, tasks: JoinSet::new(), names: Vec::new() }
    }
}

impl Listening {
    /// Listens to one of them.
    pub(super) fn begin(&mut self, by: &'static str, daemon: Daemon, selection: FlowSelection) {
        let sender = self.sender.clone();
        self.names.push(by);
        self.tasks.spawn(async move {
            let query = selection.to_query();
            let begun = || Ok(sender.try_send(Told::Begun)?);
            let on_line = |line: &str| {
                if let FlowLine::Event(flow) = serde_json::from_str(line)? {
                    sender
                        .try_send(Told::Flow(by, flow))
                        .map_err(|_| anyhow!("too many flows to find one among them"))?;
                }
                Ok(Next::More)
            };
            if let Err(error) = daemon.lines(path::FLOWS, &query, begun, on_line).await {
                // Nobody listens any more where this fails.
                let _ = sender.send(Told::Ended(error)).await;
            }
        });
    }

    /// Waits until all of them tell.
    pub(super) async fn begun(&mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let mut missing = self.names.len();
        while missing > 0 {
            match timeout_at(deadline, self.told.recv()).await {
                Ok(Some(Told::Begun)) => missing -= 1,
                Ok(Some(Told::Flow(..))) => {}
                Ok(Some(Told::Ended(error))) => return Err(error),
                Ok(None) | Err(_) => bail!("one of those who were asked for flows has not begun to tell"),
            }
        }
        Ok(())
    }

    /// What they tell of the request from that address, until all that should have told it, or for so long.
    pub(super) async fn heard(
        &mut self,
        local: Option<SocketAddr>,
        wanted: &[&'static str],
        limit: Duration,
    ) -> Vec<Hop> {
        let deadline = Instant::now() + limit;
        let mut hops: Vec<Hop> = Vec::new();
        while missing(&hops, wanted).iter().any(|by| self.names.contains(by)) {
            let Ok(Some(told)) = timeout_at(deadline, self.told.recv()).await else { break };
            let Told::Flow(by, flow) = told else { continue };
            // A waypoint's are of the trace; a node knows the connection by the client's end.
            let is_own = by == "waypoint" || local.is_some() && flow.talk.source.address == local;
            if is_own {
                let (at_milliseconds, verdict) = (flow.at_milliseconds, flow.verdict().as_str());
                hops.push(Hop { by, at_milliseconds, verdict, flow: *flow });
            }
        }
        hops.sort_by_key(Hop::order);
        hops
    }
}

/// Those who should tell and have not.
fn missing(hops: &[Hop], wanted: &[&'static str]) -> Vec<&'static str> {
    wanted.iter().copied().filter(|by| !hops.iter().any(|hop| hop.by == *by)).collect()
}

impl Report {
    pub(super) fn new(marks: &Marks, why: &Why, (sent, hops): (Sent, Vec<Hop>), wanted: &[&'static str]) -> Self {
        let (answer, error) = match sent.answer {
            Ok(answer) => (Some(answer), None),
            Err(error) => (None, Some(error)),
        };
        Self {
            trace_id: marks.trace.clone(),
            at_milliseconds: sent.at_milliseconds,
            took_microseconds: sent.took_microseconds,
            status: answer.map(|(status, _)| status),
            bytes: answer.map(|(_, bytes)| bytes),
            error,
            source: why.source.clone(),
            asked: why.asked,
            silent: missing(&hops, wanted),
            hops,
        }
    }

    /// Whether somebody has answered, and nobody has refused it.
    pub(super) fn has_answer(&self) -> bool {
        self.status.is_some() && self.hops.iter().all(|hop| hop.verdict != Verdict::Denied.as_str())
    }

    pub(super) fn for_people(&self) -> String {
        let mut text = String::new();
        line(&mut text, "trace", &self.trace_id);
        let pod = self.source.namespace.as_deref().zip(self.source.pod.as_deref());
        let pod = pod.map_or_else(|| self.source.address.to_string(), |(namespace, pod)| format!("{namespace}/{pod}"));
        line(&mut text, "client", &format!("{pod}, to {}", self.asked));
        for hop in &self.hops {
            self.tell(&mut text, hop);
        }
        for by in &self.silent {
            let remedy = if *by == "waypoint" { ": name its admin socket with --waypoint" } else { "" };
            line(&mut text, by, &format!("has told nothing{remedy}"));
        }
        let took = milliseconds(self.took_microseconds);
        match (&self.status, &self.error) {
            (Some(status), _) => line(&mut text, "answer", &format!("{status} after {took}")),
            (None, error) => {
                line(&mut text, "no answer", &format!("after {took}: {}", error.as_deref().unwrap_or("unknown")))
            }
        }
        text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect()
    }

    fn tell(&self, text: &mut String, hop: &Hop) {
        let (flow, talk) = (&hop.flow, &hop.flow.talk);
        let after = hop.at_milliseconds.saturating_sub(self.at_milliseconds);
        let ends = format!("{} -> {}", party(&talk.source), party(&talk.destination));
        line(text, hop.by, &format!("{ends}, {}, over {after} ms after it was sent", talk.security));
        for (name, principal) in [("from", &talk.source.principal), ("to", &talk.destination.principal)] {
            principal.iter().for_each(|principal| line(text, "", &format!("{name} {principal}")));
        }
        if let Some(request) = &flow.request {
            let rule = request.rule.as_ref().map_or_else(String::new, |rule| format!(", by {rule}"));
            let took = milliseconds(request.duration_microseconds);
            line(text, "", &format!("{} in {took}, flags {}{rule}", request.status, request.flags));
        }
        let policy = talk.policy.as_ref().map_or_else(String::new, |policy| format!(" by {policy}"));
        let detail = flow.detail.as_ref().map_or_else(String::new, |detail| format!(": {detail}"));
        line(text, "", &format!("{}{policy}{detail}", hop.verdict));
    }
}

fn milliseconds(microseconds: u64) -> String {
    format!("{}.{:03} ms", microseconds / 1_000, microseconds % 1_000)
}

fn party(party: &Party) -> String {
    match (&party.namespace, &party.pod, party.address) {
        (Some(namespace), Some(pod), _) => format!("{namespace}/{pod}"),
        (_, _, Some(address)) => address.to_string(),
        _ => "somebody".to_owned(),
    }
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:10} {value}");
}
