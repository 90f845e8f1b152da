//! Connections while they live, and what happens to them.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A connection that a daemon carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Its name, never used again by the same daemon.
    pub id: u64,
    /// Whether both of its ends are connected; it is being opened else.
    pub open: bool,
    /// Seconds since it was accepted.
    pub age_seconds: u64,
    /// Who talks to whom, and how much.
    #[serde(flatten)]
    pub talk: Talk,
}

/// What happened to a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    /// When, in milliseconds since 1970 (UTC).
    pub at_milliseconds: u64,
    /// `opened`, `closed`, `refused`, `cut` (by the daemon) or `dropped` (by the kernel, a few of each reason at a time).
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

/// Who talks to whom, how, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Talk {
    /// Which end the daemon stands for: `source` or `destination`.
    pub reporter: String,
    /// The client.
    pub source: Party,
    /// The server.
    pub destination: Party,
    /// Host name of the Service that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What the client connected to, where it is another address than the server's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original_destination: Option<SocketAddr>,
    /// How the connection is protected: `mutual_tls`, `kernel_attested` (plain, between pods of one node) or `none`.
    pub security: String,
    /// The policy that decided on it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Payload, in bytes, from the client to the server.
    pub bytes_from_client: u64,
    /// Payload, in bytes, from the server to the client.
    pub bytes_to_client: u64,
}

/// One end of a connection, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Party {
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its pod's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its pod's owner: a Deployment, StatefulSet and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Its SPIFFE ID, proven by a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
}

impl Talk {
    /// Whether one of its ends is in the namespace.
    #[must_use]
    pub fn touches(&self, namespace: &str) -> bool {
        [&self.source, &self.destination].iter().any(|party| party.namespace.as_deref() == Some(namespace))
    }
}

/// Which flows are wanted: the query of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowSelection {
    /// Only flows with an end in this namespace.
    pub namespace: Option<String>,
    /// Only these events; all if none is named.
    pub events: Vec<String>,
}

impl FlowSelection {
    /// The events that there are.
    pub const EVENTS: [&str; 5] = ["opened", "closed", "refused", "cut", "dropped"];

    /// The selection as names and values of a query.
    #[must_use]
    pub fn to_query(&self) -> Vec<(&'static str, String)> {
        let namespace = self.namespace.clone().map(|namespace| ("namespace", namespace));
        namespace.into_iter().chain(self.events.iter().map(|event| ("event", event.clone()))).collect()
    }

    /// Reads a query.
    ///
    /// # Errors
    /// A sentence about the first name or value that is not understood.
    pub fn from_query<'a>(query: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut selection = Self::default();
        for (name, value) in query {
            match name {
                "namespace" => selection.namespace = Some(value.to_owned()),
                "event" if Self::EVENTS.contains(&value) => selection.events.push(value.to_owned()),
                "event" => return Err(format!("event={value} is not one of {}", Self::EVENTS.join(", "))),
                _ => return Err(format!("{name} is not known here: namespace and event are")),
            }
        }
        Ok(selection)
    }

    /// Whether a flow is wanted.
    #[must_use]
    pub fn selects(&self, flow: &Flow) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| flow.talk.touches(namespace))
            && (self.events.is_empty() || self.events.contains(&flow.event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow() -> Flow {
        let party = |namespace: &str| Party { namespace: Some(namespace.to_owned()), ..Party::default() };
        Flow {
            at_milliseconds: 1,
            event: "refused".into(),
            id: 7,
            talk: Talk {
                reporter: "source".into(),
                source: party("shop"),
                destination: party("bank"),
                service: None,
                original_destination: None,
                security: "none".into(),
                policy: None,
                bytes_from_client: 0,
                bytes_to_client: 0,
            },
            end: Some("no_endpoint".into()),
            detail: None,
        }
    }

    #[test]
    fn flows_are_selected_by_either_end_and_by_event() {
        let cases = [("", true), ("shop", true), ("bank", true), ("other", false)];
        for (namespace, selected) in cases {
            let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
            let selection = FlowSelection { namespace, events: vec!["cut".into(), "refused".into()] };
            assert_eq!(selection.selects(&flow()), selected, "{selection:?}");
            let query = selection.to_query();
            let read = FlowSelection::from_query(query.iter().map(|(name, value)| (*name, value.as_str())));
            assert_eq!(read, Ok(selection));
        }
        let opened = FlowSelection { events: vec!["opened".into()], ..FlowSelection::default() };
        assert!(!opened.selects(&flow()));
        assert!(FlowSelection::from_query([("event", "exploded")]).is_err());
    }

    #[test]
    fn a_line_is_an_event_or_a_count_of_lost_ones() {
        for line in [FlowLine::Lost { lost: 3 }, FlowLine::Event(Box::new(flow()))] {
            let text = serde_json::to_string(&line).expect("JSON");
            assert_eq!(serde_json::from_str::<FlowLine>(&text).expect("a line"), line, "{text}");
        }
    }
}
