//! What daemons and waypoints tell of one request.

use std::fmt::Write as _;
use std::net::SocketAddr;

use mesh_admin::{Flow, Party, RequestFlow, Verdict, Why};
use serde::Serialize;

use super::sender::{Marks, Sent};
use super::witnesses::Onward;
use crate::output::one_line;

/// Connections that servers' nodes open meanwhile and that are kept in mind.
const MAX_MEANWHILE: usize = 1024;

/// Envoy's response flag of a request whose endpoint could not be connected.
const NOT_REACHED: &str = "UF";

/// Who tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Role {
    /// The daemon of the client's node.
    Node,
    /// A replica of the waypoint.
    Waypoint,
    /// The daemon of the server's node.
    Server,
}

impl Role {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Waypoint => "waypoint",
            Self::Server => "server",
        }
    }
}

/// What one hop tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hop {
    /// `node` (the client's), `waypoint`, or `server` (the server's node).
    by: Role,
    /// When it was over there, in milliseconds since 1970 (UTC), by that machine's clock; for the server's node behind a waypoint,
    /// when the connection was opened that carried it.
    at_milliseconds: u64,
    /// `allowed`, `denied` or `failed`.
    verdict: &'static str,
    /// How many connections of the waypoint's may have carried it, where it was none that was opened for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    one_of: Option<usize>,
    /// Everything that it tells.
    flow: Flow,
}

/// What was heard of a request.
#[derive(Debug, Default)]
pub(super) struct Heard {
    hops: Vec<Hop>,
    /// Who should have told.
    pub(super) wanted: Vec<Role>,
    /// Connections that servers' nodes opened or refused in the meantime, whoever their client was.
    meanwhile: Vec<Hop>,
    /// The request, as nodes tell of it before its connection ends.
    requests: Vec<(Role, Box<RequestFlow>)>,
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
    /// The client's end of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    local: Option<SocketAddr>,
    asked: SocketAddr,
    hops: Vec<Hop>,
    /// Who should have told and has not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    silent: Vec<Role>,
    /// Whether the sockets of this machine were asked, which have to be named.
    #[serde(skip)]
    by_sockets: bool,
}

impl Hop {
    pub(super) fn new(by: Role, flow: Flow) -> Self {
        let verdict = flow.verdict().as_str();
        Self { by, at_milliseconds: flow.at_milliseconds, verdict, one_of: None, flow }
    }

    /// One of so many connections carried it.
    pub(super) fn one_of(self, count: usize) -> Self {
        Self { one_of: Some(count), ..self }
    }
}

impl Heard {
    pub(super) fn new(wanted: &[Role]) -> Self {
        Self { wanted: wanted.to_vec(), ..Self::default() }
    }

    /// Takes in what somebody tells, if it is of the request from that address.
    pub(super) fn take(&mut self, by_waypoint: bool, mut flow: Flow, local: Option<SocketAddr>) {
        let role = match (by_waypoint, &*flow.talk.reporter) {
            (true, _) => Role::Waypoint,
            (false, "destination") => Role::Server,
            (false, _) => Role::Node,
        };
        // A waypoint's are of the trace; a node knows the connection by the client's end.
        let is_own = by_waypoint || local.is_some() && flow.talk.source.address == local;
        match (is_own, &*flow.event) {
            (true, "request") if !by_waypoint => self.requests.extend(flow.request.take().map(|it| (role, it))),
            (true, "opened") => {}
            (true, _) if !self.has(role) => {
                let seen = self.requests.iter().position(|(of, _)| *of == role);
                flow.request = flow.request.take().or_else(|| seen.map(|at| self.requests.swap_remove(at).1));
                self.add(Hop::new(role, flow));
            }
            (false, "opened" | "refused") if role == Role::Server && self.meanwhile.len() < MAX_MEANWHILE => {
                self.meanwhile.push(Hop::new(role, flow));
            }
            _ => {}
        }
    }

    pub(super) fn add(&mut self, hop: Hop) {
        self.hops.push(hop);
    }

    pub(super) fn has(&self, role: Role) -> bool {
        self.hop(role).is_some()
    }

    fn hop(&self, role: Role) -> Option<&Hop> {
        self.hops.iter().find(|hop| hop.by == role)
    }

    /// When the waypoint, or else the client's node, was done with it.
    pub(super) fn at_milliseconds(&self) -> u64 {
        let hop = self.hop(Role::Waypoint).or_else(|| self.hop(Role::Node));
        hop.map_or(0, |hop| hop.at_milliseconds)
    }

    /// Where the waypoint sent it, if that is part of the mesh, or may be: of whom it did not reach it tells nothing.
    pub(super) fn onward(&self) -> Option<Onward> {
        let replica = &self.hop(Role::Node)?.flow.talk.destination;
        let replica = (replica.namespace.clone()?, replica.pod.clone()?);
        let told = &self.hop(Role::Waypoint)?.flow;
        let server = &told.talk.destination;
        let Some(address) = server.address else {
            let has_failed = told.request.as_ref().is_some_and(|request| request.flags == NOT_REACHED);
            return has_failed.then_some(Onward { replica, server: None });
        };
        server.principal.as_ref()?;
        let pod = format!("{}/{}", server.namespace.as_ref()?, server.pod.as_ref()?);
        Some(Onward { replica, server: Some((pod, address)) })
    }

    /// The connection that was opened for it, or refused.
    pub(super) fn opened(&mut self, onward: &Onward) -> Option<Hop> {
        let found = self.meanwhile.iter().rposition(|hop| onward.is(&hop.flow.talk))?;
        Some(self.meanwhile.swap_remove(found))
    }

    fn silent(&self) -> Vec<Role> {
        self.wanted.iter().copied().filter(|role| !self.has(*role)).collect()
    }
}

impl Report {
    pub(super) fn new(marks: &Marks, why: Why, sent: Sent, mut heard: Heard, by_sockets: bool) -> Self {
        let silent = heard.silent();
        heard.hops.sort_by_key(|hop| hop.by);
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
            source: why.source,
            local: sent.local,
            asked: why.asked,
            silent,
            by_sockets,
            hops: heard.hops,
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
        for role in &self.silent {
            let remedy = match role {
                _ if !self.by_sockets => "",
                Role::Waypoint => ": name its admin socket with --waypoint",
                Role::Server => ": name its node's admin socket with --peer",
                Role::Node => "",
            };
            line(&mut text, role.as_str(), &format!("has told nothing{remedy}"));
        }
        let took = milliseconds(self.took_microseconds);
        match (&self.status, &self.error) {
            (Some(status), _) => line(&mut text, "answer", &format!("{status} after {took}")),
            (None, error) => {
                line(&mut text, "no answer", &format!("after {took}: {}", error.as_deref().unwrap_or("unknown")))
            }
        }
        text
    }

    fn tell(&self, text: &mut String, hop: &Hop) {
        let (flow, talk) = (&hop.flow, &hop.flow.talk);
        let ends = format!("{} -> {}", party(&talk.source), party(&talk.destination));
        line(text, hop.by.as_str(), &format!("{ends}, {}, {}", talk.security, self.when(hop)));
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

    fn when(&self, hop: &Hop) -> String {
        let after = hop.at_milliseconds.saturating_sub(self.at_milliseconds);
        match (hop.one_of, &*hop.flow.event) {
            (Some(count), _) => {
                let before = self.at_milliseconds.saturating_sub(hop.at_milliseconds) / 1_000;
                let which = if count > 1 { format!("one of {count} connections") } else { "a connection".to_owned() };
                format!("on {which} that was opened {before} s before")
            }
            (None, "opened") => format!("on a connection opened {after} ms after it was sent"),
            (None, _) => format!("over {after} ms after it was sent"),
        }
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
    // A line each, whatever a peer has put into it.
    let _ = writeln!(text, "{name:10} {}", one_line(value));
}
