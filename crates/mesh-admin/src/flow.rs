//! What happens to connections and requests, as it happens.

use serde::{Deserialize, Serialize};

use crate::Talk;

/// What happened to a connection, or to a request on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// When, in milliseconds since 1970 (UTC).
    pub at_milliseconds: u64,
    /// `opened`, `closed`, `refused`, `cut` (by the daemon), `dropped` (by the kernel, a few of each reason at a time), or
    /// `request`: one on a connection is over.
    pub event: String,
    /// The connection's name, as in [`Connection::id`].
    pub id: u64,
    /// Who talks to whom, and how much so far.
    #[serde(flatten)]
    pub talk: Talk,
    /// How it ended, or why it was dropped, of closed sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// More on why it was refused, cut or dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The request, where the event is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Box<RequestFlow>>,
}

/// A line of the stream of flows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FlowLine {
    /// So many events are not in the stream: its reader was too slow for them.
    Lost {
        /// How many.
        lost: u64,
    },
    /// An event.
    Event(Box<Flow>),
}

/// A request that is over. A node knows less of it than the waypoint that it went by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestFlow {
    /// `http` or `grpc`.
    pub protocol: String,
    /// HTTP's status; 0 where there was no answer.
    pub status: u16,
    /// gRPC's status, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u16>,
    /// Envoy's response flags; `-` for none.
    pub flags: String,
    /// From the request's head to the response's end, in microseconds.
    pub duration_microseconds: u64,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The path, without its query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What was asked for as a whole, without the query, in the form in which [`crate::RequestQuestion::url`] asks about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The rule of a route that it belonged to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// The trace that it belongs to, as 32 hexadecimal digits, where it is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// What was decided on a connection or a request, and what came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It went on, and nothing failed.
    Allowed,
    /// A policy, an authorizer or the mode of mTLS refused it.
    Denied,
    /// It may, and came to nothing: no endpoint, not reached, an answer of 5xx or none.
    Failed,
}

impl Verdict {
    /// As a filter has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

impl Flow {
    /// Whether it was allowed, denied, or failed.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let by_policy = ["policy_denied", "plaintext_under_strict", "rule_not_met"];
        match (&*self.event, &self.request) {
            (_, Some(request)) if ["RBAC", "UAEX"].contains(&&*request.flags) => Verdict::Denied,
            (_, Some(request)) if request.has_failed() => Verdict::Failed,
            // What the kernel drops was not to be sent.
            ("dropped", _) => Verdict::Denied,
            ("refused" | "cut", _) if self.end.as_deref().is_some_and(|end| by_policy.contains(&end)) => {
                Verdict::Denied
            }
            ("refused" | "cut", _) => Verdict::Failed,
            _ => Verdict::Allowed,
        }
    }
}

impl RequestFlow {
    /// Whether it failed for the server's sake: 5xx, no answer though the client waited, or such a status of gRPC.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        let by_http = self.status >= 500 || (self.status == 0 && self.flags != "DC");
        by_http || self.grpc_status.is_some_and(|status| [2, 4, 12, 13, 14, 15].contains(&status))
    }
}
