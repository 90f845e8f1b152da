//! Why a connection goes where it goes, and whether it may.

use std::net::{IpAddr, SocketAddr};

use mesh_core::policy::{self, Basis, Explanation};
use mesh_core::why::{Answer, Path, PlaintextCause};
use mesh_core::{Enrolment, PlaintextReason, Workload, why};
use serde::{Deserialize, Serialize};

use crate::Certificate;

/// The whole decision about a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Why {
    /// Whether it comes to something, whichever endpoint is chosen.
    pub allowed: bool,
    /// The answer in a sentence.
    pub summary: String,
    /// Who connects.
    pub source: Peer,
    /// What it connects to.
    pub asked: SocketAddr,
    /// Host name of the Service whose address that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// How many endpoints there are to choose from.
    pub endpoints: usize,
    /// Why these and no others, or why not all have the same share, by where they are; none where all are alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred: Option<Preferred>,
    /// What becomes of it by each endpoint that may be chosen, of which [`why::MAX_WAYS`] at most.
    pub ways: Vec<Way>,
    /// What the daemon that was asked adds of its own node; none from a directory of manifests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeView>,
}

/// Why a client gets some endpoints of a Service and not others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Preferred {
    /// What asks for it, such as `trafficDistribution: PreferSameZone`.
    pub by: String,
    /// How many other endpoints are ready.
    pub others: usize,
}

/// One end of a connection, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// How many pods the name that was asked about stands for; this is one of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_pods: Option<usize>,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its pod's owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Where that is, as `region/zone/subzone`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locality: Option<String>,
    /// Its SPIFFE ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Whether it is to be part of the mesh.
    pub enrolled: bool,
    /// Why it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside: Option<String>,
}

/// What becomes of a connection to one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Way {
    /// The application's address.
    pub endpoint: SocketAddr,
    /// Whose it is.
    pub destination: Peer,
    /// `direct`, `tunnel`, `waypoint`, `plaintext`, `within_pod` or `refused`.
    pub path: String,
    /// Why as it is.
    pub path_reason: String,
    /// The DestinationRule that is about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_rule: Option<String>,
    /// What the destination takes; none where it is not part of the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Every AuthorizationPolicy that is about the destination, in the order in which they are asked.
    pub policies: Vec<Considered>,
    /// Whether it comes to something.
    pub allowed: bool,
    /// What decided.
    pub reason: String,
    /// What the policies in dry run would have decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<String>,
    /// The AUDIT policies that match.
    pub audited: Vec<String>,
}

/// Whether a destination takes plaintext.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mode {
    /// `STRICT`, `PERMISSIVE` or `DISABLE`.
    pub mode: String,
    /// What decided: `port`, `workload`, `namespace`, `mesh` or `default`.
    pub level: String,
    /// The PeerAuthentication, as NAMESPACE/NAME; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
}

/// An AuthorizationPolicy that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Considered {
    /// As NAMESPACE/NAME.
    pub policy: String,
    /// `CUSTOM`, `DENY`, `ALLOW` or `AUDIT`.
    pub action: String,
    /// `mesh`, `namespace`, `workload`, or `target` of one with `targetRefs`.
    pub scope: String,
    /// Whether it only reports.
    pub dry_run: bool,
    /// The rule that matches, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_rule: Option<usize>,
    /// What did not hold, in the rules up to it.
    pub misses: Vec<Miss>,
}

/// A field that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Miss {
    /// As in the manifest, such as `rules[0].from[0].source.principals`.
    pub field: String,
    /// What was found instead.
    pub found: String,
}

/// What a daemon knows of its own node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// The node.
    pub node: String,
    /// The source's certificate, if the source runs here and has one by now; it is fetched for the first connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// The inode number of the source's network namespace, if the source runs here and is in the mesh: `net:[NUMBER]` in
    /// `/proc/PID/ns`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_namespace: Option<u64>,
    /// What would stop the connection here, whatever the configuration says.
    pub stops: Vec<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}

impl From<&Answer> for Why {
    fn from(answer: &Answer) -> Self {
        let source = Peer {
            of_pods: Some(answer.client.pods).filter(|pods| *pods > 1),
            ..Peer::new(answer.client.address, answer.client.workload.as_deref())
        };
        let ways: Vec<Way> = answer.ways.iter().flatten().map(Way::from).collect();
        let refused = ways.iter().find(|way| !way.allowed);
        let summary = match (&answer.ways, refused) {
            (Err(refusal), _) => format!("refused: {refusal}"),
            (Ok(_), Some(way)) if ways.iter().any(|way| way.allowed) => {
                let count = ways.iter().filter(|way| !way.allowed).count();
                format!("refused by {count} of {} endpoints: {}", ways.len(), way.reason)
            }
            (Ok(_), Some(way)) => format!("refused: {}", way.reason),
            (Ok(_), None) => ways.first().map_or_else(String::new, |way| format!("allowed: {}", way.reason)),
        };
        Self {
            allowed: refused.is_none() && !ways.is_empty(),
            summary,
            source,
            asked: answer.asked,
            service: answer.service.as_ref().map(|service| service.hostname.to_string()),
            endpoints: answer.endpoints,
            preferred: answer.preferred.map(|(by, others)| Preferred { by: by.to_string(), others }),
            ways,
            node: None,
        }
    }
}

impl Peer {
    fn new(address: IpAddr, workload: Option<&Workload>) -> Self {
        let outside = match workload.map(|workload| workload.enrolment) {
            Some(Enrolment::Enrolled) => None,
            Some(Enrolment::Outside(reason)) => Some(reason.to_string()),
            None => Some("no workload is known at its address".to_owned()),
        };
        Self {
            address,
            of_pods: None,
            namespace: workload.map(|workload| workload.namespace.to_string()),
            pod: workload.map(|workload| workload.name.to_string()),
            workload: workload.map(|workload| workload.workload_name.to_string()),
            node: workload.map(|workload| workload.node.to_string()),
            locality: workload.map(|it| &it.locality).filter(|it| !it.is_unknown()).map(|it| it.to_string()),
            identity: workload.map(|workload| workload.identity.to_string()),
            enrolled: outside.is_none(),
            outside,
        }
    }
}

impl From<&why::Way> for Way {
    fn from(way: &why::Way) -> Self {
        let (path, path_reason) = path(&way.path);
        let stop = way.stop();
        let decision = way.decision.as_ref();
        let shadow = decision.and_then(|decision| decision.authorization.shadow.as_ref());
        Self {
            endpoint: way.endpoint,
            destination: Peer::new(way.endpoint.ip(), way.workload.as_deref()),
            path: path.to_owned(),
            path_reason,
            destination_rule: way.rule.as_ref().map(|rule| rule.name.to_string()),
            mode: decision.map(|decision| Mode::from(&decision.mode)),
            policies: decision
                .map_or_else(Vec::new, |decision| decision.policies.iter().map(Considered::from).collect()),
            allowed: stop.is_none(),
            reason: match (stop, &way.path) {
                (Some(stop), _) => stop.to_string(),
                (None, Path::Waypoint(waypoint, _)) => format!("waypoint {waypoint} decides on each request"),
                (None, _) => permission(decision),
            },
            dry_run: shadow.map(|shadow| match &shadow.verdict {
                Ok(basis) => format!("would allow: {}", describe(basis)),
                Err(denial) => format!("would refuse: {denial}"),
            }),
            audited: decision.map_or_else(Vec::new, |decision| names(&decision.authorization.audited)),
        }
    }
}

pub(crate) fn names(policies: &[std::sync::Arc<mesh_core::PolicyName>]) -> Vec<String> {
    policies.iter().map(ToString::to_string).collect()
}

fn path(path: &Path) -> (&'static str, String) {
    match path {
        Path::Tunnel(identity) => ("tunnel", format!("mTLS to exactly {identity}")),
        Path::Waypoint(waypoint, identity) => {
            ("waypoint", format!("mTLS to exactly {identity}, a replica of waypoint {waypoint}"))
        }
        Path::Sidecar(identity) => ("sidecar", format!("mTLS with the destination's sidecar, as exactly {identity}")),
        Path::Direct => {
            ("direct", "both are on one node, whose kernel connects them and attests the source".to_owned())
        }
        Path::WithinPod => ("within_pod", "it does not leave the pod".to_owned()),
        Path::Refused(refusal) => ("refused", refusal.to_string()),
        Path::Plaintext(cause) => ("plaintext", plaintext(*cause)),
    }
}

fn plaintext(cause: PlaintextCause) -> String {
    match cause {
        PlaintextCause::ClientUnknown => "no workload is known at the source's address".to_owned(),
        PlaintextCause::ClientHasSidecar => {
            "the source is not part of the mesh and has a sidecar of Istio's: if that begins mutual TLS (ISTIO_MUTUAL), the \
             identity that it proves is judged instead"
                .to_owned()
        }
        PlaintextCause::ClientOutside(reason) => format!("the source is not part of the mesh: {reason}"),
        PlaintextCause::Destination(PlaintextReason::DestinationUnknown) => {
            "no workload is known at the destination's address".to_owned()
        }
        PlaintextCause::Destination(PlaintextReason::DestinationNotEnrolled) => {
            "the destination is not part of the mesh".to_owned()
        }
        PlaintextCause::Destination(PlaintextReason::DisabledByRule) => {
            "a DestinationRule asks for tls.mode DISABLE".to_owned()
        }
    }
}

/// Why nothing stops it.
fn permission(decision: Option<&Explanation>) -> String {
    match decision.map(|decision| &decision.authorization.verdict) {
        Some(Ok(permit)) => describe(permit.basis()),
        Some(Err(denial)) => denial.to_string(),
        None => "the mesh enforces nothing there".to_owned(),
    }
}

pub(crate) fn describe(basis: &Basis) -> String {
    match basis {
        Basis::NoAllowPolicy => "no ALLOW policy is about the destination, and no other refuses it".to_owned(),
        Basis::AllowedBy(policy) => format!("AuthorizationPolicy {policy} allows it"),
    }
}

impl From<&policy::EffectiveMode> for Mode {
    fn from(mode: &policy::EffectiveMode) -> Self {
        Self {
            mode: mode.mode.as_str().to_owned(),
            level: mode.level.as_str().to_owned(),
            policy: mode.policy.as_ref().map(ToString::to_string),
        }
    }
}

impl From<&policy::Considered> for Considered {
    fn from(considered: &policy::Considered) -> Self {
        let rules = considered.rules.iter().enumerate();
        let misses = rules.flat_map(|(index, rule)| {
            rule.misses
                .iter()
                .map(move |miss| Miss { field: format!("rules[{index}].{}", miss.field), found: miss.found.clone() })
        });
        Self {
            policy: considered.policy.name.to_string(),
            action: considered.policy.action.as_str().to_owned(),
            scope: considered.scope.as_str().to_owned(),
            dry_run: considered.policy.dry_run,
            matched_rule: considered.matched(),
            misses: misses.collect(),
        }
    }
}
