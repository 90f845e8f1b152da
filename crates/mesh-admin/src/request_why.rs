//! What becomes of a request that nobody sends, and why.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use mesh_core::l7::path::PathError;
use mesh_core::policy::RequestExplanation;
use mesh_core::rate_limit::Applied;
use mesh_core::why::{
    self, Onward, Outcome, Rank, Reader, RequestAnswer, SameNode, Tokens, find_client, find_gateway, find_target,
    why_request, why_request_at_gateway,
};
use mesh_core::{Locality, Snapshot, Transport, Workload};
use serde::{Deserialize, Serialize};

use crate::why::{describe, names};
use crate::{Considered, RequestQuestion, Why};

/// The whole decision about a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestWhy {
    /// Whether a server may get it, or somebody has written down what it is answered with.
    pub served: bool,
    /// What becomes of it, in a sentence.
    pub outcome: String,
    /// The status that it is answered with on the way; none where a server answers, or nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The method, and host and path as they are read: the path in normal form.
    pub request: String,
    /// Its connection up to whoever reads it; none for who comes in at a gateway, or is nobody in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<Why>,
    /// Host name of the Service that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The waypoint that reads it, as NAMESPACE/NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<String>,
    /// The gateway that it comes in at, as NAMESPACE/NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The gateway's listener, as GATEWAY/NAME:PORT.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listener: Option<String>,
    /// The RequestAuthentications whose rules are asked about its token.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authentication: Vec<String>,
    /// The identity of its token: issuer and subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// What policies say, where it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RequestPolicy>,
    /// The limits that want a token of it, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<RequestLimit>,
    /// The rule that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What of the rule matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched: Option<String>,
    /// Who may get it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<RequestBackend>,
    /// What is asked for there, where it is another path, the same for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What happens besides: retries, timeouts, faults, copies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub with: Vec<String>,
    /// The replicas of the waypoint or gateway that said who is ejected: with them it is known, and otherwise not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asked: Vec<String>,
    /// What else is worth knowing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What policies say of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestPolicy {
    /// Whether it may go on, once authorizers allow it.
    pub allowed: bool,
    /// What decided.
    pub reason: String,
    /// Every AuthorizationPolicy that is about where it was sent, in the order in which they are asked.
    pub considered: Vec<Considered>,
    /// Authorizers that are asked first, as `PROVIDER, by POLICY`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authorizers: Vec<String>,
    /// What the policies in dry run would have decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<String>,
    /// The AUDIT policies that match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audited: Vec<String>,
}

/// A limit that wants a token of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestLimit {
    /// Where it is written.
    pub limit: String,
    /// What it says.
    pub rate: String,
    /// What who finds no token is answered with.
    pub status: u16,
}

/// One of those who may get a request.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestBackend {
    /// Its share of requests.
    pub percent: f64,
    /// Where.
    pub to: String,
    /// How many servers may get it.
    pub endpoints: usize,
    /// Why they are not all alike, by where they are; none where they are, or nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred: Option<RequestPreferred>,
    /// Each of them, of which [`why::MAX_SERVERS`] at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<RequestServer>,
    /// Endpoints that get none for now, of which [`MAX_EJECTED`] of each replica that was asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ejected: Vec<Ejected>,
    /// The path that is asked for there, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The host that is asked for there, where it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The status that its share is answered with where nobody answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fails: Option<String>,
}

// Shares are made of whole weights: never a NaN.
impl Eq for RequestBackend {}

/// Why servers are not all alike.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestPreferred {
    /// What asks for it, such as `trafficDistribution: PreferSameZone`.
    pub by: String,
    /// The pod from where it is seen, as NAMESPACE/NAME: a replica, or the client where its own node counts.
    pub seen_from: String,
    /// Where that is, as `region/zone/subzone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// How many replicas see it otherwise, from where they are.
    pub otherwise: usize,
    /// How many other endpoints are ready, and get nothing.
    pub others: usize,
}

/// An endpoint that a replica has ejected.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ejected {
    /// Its address.
    pub endpoint: String,
    /// Its pod, as NAMESPACE/NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// The replica, of those that were asked.
    pub at: String,
    /// Why.
    pub why: String,
    /// Seconds until it gets requests again, rounded up.
    pub returns_in_seconds: u64,
}

/// A server that may get a request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestServer {
    /// The application's address.
    pub endpoint: String,
    /// Its pod, as NAMESPACE/NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Where it is, as `region/zone/subzone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// Which it is among those that stand in for each other: 0 for the first, which get all that they can carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// The share of those that are where it is, in relation to the others', where localities have shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<u32>,
    /// Whether it gets nothing, for where it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_out: bool,
    /// `mtls` or `plaintext`; none where it is not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why it does not get it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<String>,
}

/// Endpoints of a backend that are told as ejected, by each replica.
pub const MAX_EJECTED: usize = 64;

impl RequestWhy {
    /// Answers by a snapshot of the cluster; `reader` is the waypoint's or gateway's pod that is asked itself.
    ///
    /// # Errors
    /// A sentence about what in the question names nothing, or has no form.
    pub fn answer(
        snapshot: &Snapshot,
        question: &RequestQuestion,
        same_node: SameNode,
        tokens: &dyn Tokens,
        reader: Option<&Arc<Workload>>,
    ) -> Result<Self, String> {
        let url = question.parsed()?;
        let request = match question.request(url)? {
            Ok(request) => request,
            Err(error) => return Ok(Self::unreadable(question, error)),
        };
        let asked = why::RequestQuestion { snapshot, tokens, reader };
        let host = request.host.clone();
        let read = format!("{} {host}{}", request.method, request.path);
        let (answer, port) = if let Some(gateway) = &question.gateway {
            let (namespace, name) =
                gateway.split_once('/').ok_or_else(|| format!("{gateway}: write NAMESPACE/NAME"))?;
            let found = find_gateway(snapshot, namespace, name)
                .ok_or_else(|| format!("there is no gateway {gateway}: no Gateway, and no pod that is one"))?;
            let from = match &question.source {
                Some(from) => from.parse().map_err(|_| format!("{from}: who comes in at a gateway is an address"))?,
                None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            };
            let port = url.port.unwrap_or(if url.tls { 443 } else { 80 });
            (why_request_at_gateway(asked, &found, (from, port), request), port)
        } else {
            if url.tls {
                return Err(format!(
                    "{}: what is encrypted nobody reads; write http://SERVICE.NAMESPACE[:PORT]/PATH",
                    question.url
                ));
            }
            let client =
                question.source.as_ref().map(|source| find_client(snapshot, source, question.namespace.as_deref()));
            let client = client.transpose().map_err(|error| error.to_string())?;
            let own =
                client.as_ref().and_then(|client| client.workload.as_ref()).map(|workload| workload.namespace.clone());
            let namespace = question.namespace.as_deref().or(own.as_deref());
            let target = format!("{}:{}", url.host, url.port.unwrap_or(80));
            let target = find_target(snapshot, &target, namespace).map_err(|error| error.to_string())?.address;
            let known =
                snapshot.service_by_vip(target.ip()).is_some() || snapshot.workload_by_address(target.ip()).is_some();
            if client.is_none() && !known {
                return Err(format!("{target} is no Service's address and no pod's: it has no routes"));
            }
            (why_request(asked, client, target, request, same_node), target.port())
        };
        let mut said = Self { request: read, ..Self::of(&answer, port) };
        said.note(question);
        Ok(said)
    }

    fn unreadable(question: &RequestQuestion, error: PathError) -> Self {
        Self {
            outcome: format!("answered with 400: {error}"),
            status: Some(400),
            request: format!("{} {}", question.method, question.url),
            ..Self::default()
        }
    }

    fn of(answer: &RequestAnswer, port: u16) -> Self {
        let (waypoint, gateway, listener) = match &answer.reader {
            Some(Reader::Waypoint(waypoint)) => (Some(waypoint.to_string()), None, None),
            Some(Reader::Gateway(name, listener)) => {
                let listener = listener.as_ref();
                let listener = listener.map(|it| format!("{}/{}:{}", it.gateway, it.name, it.port));
                (None, Some(name.to_string()), listener)
            }
            None => (None, None, None),
        };
        let connection = answer.connection.as_ref().map(Why::from);
        let (outcome, status) = outcome(answer, connection.as_ref());
        let backends = backends(answer);
        let path = backends.first().and_then(|first| first.path.clone());
        Self {
            served: answer.is_served(),
            outcome,
            status,
            request: String::new(),
            connection,
            service: answer.service.as_ref().map(|service| service.hostname.to_string()),
            waypoint,
            gateway,
            listener,
            authentication: names(&answer.authentication),
            principal: answer.principal.clone(),
            policy: answer.judged.as_ref().map(RequestPolicy::from),
            limits: answer.limits.iter().map(RequestLimit::from).collect(),
            rule: answer.rule.as_ref().map(|rule| rule.at.to_string()),
            matched: answer.matched.clone(),
            path: path.filter(|path| backends.iter().all(|backend| backend.path.as_ref() == Some(path))),
            backends,
            with: answer.rule.as_ref().map_or_else(Vec::new, |rule| rule.beside(port)),
            asked: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// What the question leaves open.
    fn note(&mut self, question: &RequestQuestion) {
        let judges = self.policy.as_ref().is_some_and(|policy| !policy.considered.is_empty());
        if judges && question.source.is_none() && question.gateway.is_none() {
            self.notes.push("nobody in particular sends it: policies judge a client without an identity".to_owned());
        }
        let has_token = question.headers.iter().any(|field| field.to_ascii_lowercase().starts_with("authorization:"));
        if has_token && question.claims.is_none() && !self.authentication.is_empty() {
            self.notes.push(
                "its authorization field is not looked at: give the token, or its claims, with --claims".to_owned(),
            );
        }
    }
}

fn outcome(answer: &RequestAnswer, connection: Option<&Why>) -> (String, Option<u16>) {
    match (&answer.outcome, connection) {
        (Outcome::NotConnected(why), _) => (format!("not connected: {why}"), None),
        (Outcome::Unread, Some(connection)) => {
            (format!("nobody reads requests there; its connection is {}", connection.summary), None)
        }
        (Outcome::Unread, None) => {
            ("forwarded as it is: the Service has no waypoint, and nobody else looks at requests".to_owned(), None)
        }
        (Outcome::Answered { status, why, .. }, _) => (format!("answered with {status}: {why}"), Some(*status)),
        (Outcome::Forwarded, _) if answer.rule.is_none() && matches!(answer.reader, Some(Reader::Waypoint(_))) => {
            ("forwarded as it is: the Service has no routes".to_owned(), None)
        }
        (Outcome::Forwarded, _) => ("forwarded".to_owned(), None),
    }
}

fn backends(answer: &RequestAnswer) -> Vec<RequestBackend> {
    let total: f64 = answer.shares.iter().map(|share| f64::from(share.weight)).sum();
    let backend = |share: &why::Share| RequestBackend {
        percent: if total > 0.0 { f64::from(share.weight) * 100.0 / total } else { 0.0 },
        to: share.to.clone(),
        endpoints: share.endpoints,
        preferred: share.preferred.as_ref().map(RequestPreferred::from),
        ejected: Vec::new(),
        servers: share.servers.iter().map(RequestServer::from).collect(),
        path: share.path.clone(),
        host: share.host.as_ref().map(ToString::to_string),
        status: share.fails.as_ref().map(|failure| failure.status),
        fails: share.fails.as_ref().map(|failure| failure.why.clone()),
    };
    answer.shares.iter().map(backend).collect()
}

impl From<&RequestExplanation> for RequestPolicy {
    fn from(explanation: &RequestExplanation) -> Self {
        let authorization = &explanation.authorization;
        let shadow = authorization.shadow.as_ref();
        let asked = explanation.asked.iter();
        Self {
            allowed: authorization.verdict.is_ok(),
            reason: match &authorization.verdict {
                Ok(permit) => describe(permit.basis()),
                Err(denial) => denial.to_string(),
            },
            considered: explanation.policies.iter().map(Considered::from).collect(),
            authorizers: asked.map(|question| format!("{}, by {}", question.provider(), question.policy())).collect(),
            dry_run: shadow.map(|shadow| match &shadow.verdict {
                Ok(basis) => format!("would allow: {}", describe(basis)),
                Err(denial) => format!("would refuse: {denial}"),
            }),
            audited: names(&authorization.audited),
        }
    }
}

impl From<&Applied> for RequestLimit {
    fn from(applied: &Applied) -> Self {
        let limit = &applied.limit;
        Self { limit: limit.at.to_string(), rate: limit.to_string(), status: limit.answer.status }
    }
}

impl From<&why::Preferred> for RequestPreferred {
    fn from(preferred: &why::Preferred) -> Self {
        let from = &preferred.from;
        Self {
            by: preferred.reason.to_string(),
            seen_from: format!("{}/{}", from.namespace, from.name),
            locality: known(&from.locality),
            otherwise: preferred.otherwise,
            others: preferred.others,
        }
    }
}

fn known(locality: &Locality) -> Option<String> {
    Some(locality).filter(|locality| !locality.is_unknown()).map(ToString::to_string)
}

impl From<&Onward> for RequestServer {
    fn from(server: &Onward) -> Self {
        let by = match &server.transport {
            Ok(Transport::Hbone { .. } | Transport::Sidecar { .. }) => Some("mtls"),
            Ok(Transport::Plaintext(_)) => Some("plaintext"),
            Ok(Transport::Waypoint { .. }) | Err(_) => None,
        };
        let pod = server.workload.as_ref();
        Self {
            endpoint: server.endpoint.to_string(),
            pod: pod.map(|workload| format!("{}/{}", workload.namespace, workload.name)),
            locality: known(&server.locality),
            priority: match server.rank {
                Some(Rank::Priority(priority)) => Some(priority),
                _ => None,
            },
            share: match server.rank {
                Some(Rank::Share(share)) => Some(share),
                _ => None,
            },
            left_out: server.rank == Some(Rank::Never),
            by: by.map(str::to_owned),
            stop: server.transport.as_ref().err().or(server.denial.as_ref()).cloned(),
        }
    }
}
