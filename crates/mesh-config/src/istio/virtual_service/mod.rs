//! VirtualService of networking.istio.io.

mod action;
mod connection;
mod cors;
mod matching;
mod resilience;

use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::l7::{Action, HeaderEdits, RequestMatch, Rule, RuleRef, Timeouts};
use serde::Deserialize;
use serde_json::Value;

use self::action::{RawDirectResponse, RawHeaders, RawRedirect, RawRewrite, RawRoute};
use self::connection::RawConnection;
pub use self::connection::{ConnectionMatch, ConnectionRule};
use self::cors::RawCors;
use self::matching::RawMatch;
use self::resilience::RawFault;
pub(super) use self::resilience::RawRetries;
use super::destination_rule::exported_to;
use super::duration::duration;
use super::{Age, Flaw, Remark, decode, policy_name};
use crate::finding::ObjectName;
use crate::object::Key;

/// Rules of one VirtualService; one request of thousands of rules is a mistake.
const MAX_RULES: usize = 1_000;
/// The word for all clients in the mesh, in `gateways`.
pub(crate) const MESH: &str = "mesh";

/// A VirtualService.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VirtualService {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// The hosts as they are written; none for a delegate, which others name.
    pub hosts: Vec<String>,
    /// The namespaces whose clients it is for; none for all.
    pub exported_to: Option<Vec<Arc<str>>>,
    /// Its rules, of HTTP.
    pub http: Vec<HttpRule>,
    /// Its rules of connections: those of TLS, and then those of TCP.
    pub connections: Vec<ConnectionRule>,
    /// When it was made.
    pub age: Age,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

/// One rule, with hosts as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRule {
    /// The rule.
    pub rule: Rule,
    /// The gateways that it is for; for each match those of the match, and one entry for a rule without matches. Of a
    /// delegate none where it names none: its root's.
    pub gateways: Vec<Vec<String>>,
    /// The VirtualService whose rules say what becomes of its requests; the rule's own action is nothing then.
    pub delegate: Option<Key>,
}

impl VirtualService {
    /// Whether it says something only where another one names it.
    #[must_use]
    pub fn is_delegate(&self) -> bool {
        self.hosts.is_empty()
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    /// The hosts that it is about.
    #[serde(default)]
    hosts: Vec<String>,
    /// The gateways that it is for, as NAMESPACE/NAME; mesh for all clients in the mesh.
    gateways: Option<Vec<String>>,
    /// Rules of requests; the first that matches counts.
    #[serde(default)]
    http: Vec<RawHttp>,
    /// Rules of connections by the server that the client names (SNI).
    #[serde(default)]
    tls: Vec<RawConnection>,
    /// Rules of connections by where they go and who opens them.
    #[serde(default)]
    tcp: Vec<RawConnection>,
    /// The namespaces whose clients it is for: . for its own, * for all.
    export_to: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawHttp {
    /// What the rule is called.
    name: Option<String>,
    /// Which requests it is for: any of them; all requests where there is none.
    #[serde(default, rename = "match")]
    matches: Vec<RawMatch>,
    /// Where requests go, by weight.
    #[serde(default)]
    route: Vec<RawRoute>,
    /// Answers with a redirect instead.
    redirect: Option<RawRedirect>,
    /// Answers with this instead.
    direct_response: Option<RawDirectResponse>,
    /// Another VirtualService that says the rest.
    delegate: Option<RawDelegate>,
    /// Changes path and authority before the request goes on.
    rewrite: Option<RawRewrite>,
    /// How long a request may take in all, such as 5s.
    timeout: Option<String>,
    /// When it is tried again.
    retries: Option<RawRetries>,
    /// Faults that are injected on purpose.
    fault: Option<RawFault>,
    /// Where a copy of each request goes.
    mirror: Option<action::RawDestination>,
    /// Where copies of requests go, each with its share.
    mirrors: Option<Vec<action::RawMirror>>,
    /// Share of requests that are copied, in percent; mirrorPercentage is its newer form.
    #[serde(alias = "mirror_percent")]
    mirror_percent: Option<f64>,
    /// Share of requests that are copied.
    mirror_percentage: Option<resilience::RawPercent>,
    /// Which other origins may ask (CORS).
    cors_policy: Option<RawCors>,
    /// Changes of header fields.
    headers: Option<RawHeaders>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawDelegate {
    /// Its name.
    #[serde(default)]
    name: String,
    /// Its namespace; that of the one which delegates, where nothing is said.
    namespace: Option<String>,
}

impl VirtualService {
    pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let age = Age::of(&resource.metadata);
        let Some(spec) = resource.spec else {
            return Err(Flaw::value("spec.hosts", "the VirtualService is about no host"));
        };
        let name = policy_name(name);
        check_hosts(&spec)?;
        if spec.hosts.is_empty() {
            check_delegate(&spec)?;
        }
        let mut remarks = Vec::new();
        let everywhere = if spec.hosts.is_empty() { Vec::new() } else { vec![MESH.to_owned()] };
        let gateways = spec.gateways.filter(|gateways| !gateways.is_empty()).unwrap_or(everywhere);
        let mut http = Vec::with_capacity(spec.http.len());
        for (index, raw) in spec.http.into_iter().enumerate() {
            http.push(raw.read(index, &name, &gateways, &mut remarks)?);
        }
        let mut connections = Vec::with_capacity(spec.tls.len() + spec.tcp.len());
        for (list, rules) in [("tls", spec.tls), ("tcp", spec.tcp)] {
            for (index, raw) in rules.into_iter().enumerate() {
                let at = RuleRef {
                    kind: "VirtualService",
                    namespace: Arc::clone(&name.namespace),
                    object: Arc::clone(&name.name),
                    index,
                    name: Some(list.into()),
                };
                connections.push(raw.read(at, list, &gateways, &mut remarks)?);
            }
        }
        let exported_to = exported_to(spec.export_to, &name.namespace)?;
        Ok(Self { name, hosts: spec.hosts, exported_to, http, connections, age, remarks })
    }
}

fn check_hosts(spec: &Spec) -> Result<(), Flaw> {
    for (index, host) in spec.hosts.iter().enumerate() {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        if host != "*" && !name.split('.').all(label) {
            return Err(Flaw::value(format!("spec.hosts[{index}]"), format!("{host:?} is no host name")));
        }
    }
    let rules = spec.http.len() + spec.tls.len() + spec.tcp.len();
    if rules > MAX_RULES {
        let message = format!("{rules} rules are more than {MAX_RULES}");
        return Err(Flaw::value("spec.http", message));
    }
    Ok(())
}

/// What has no hosts is only ever a delegate, and says nothing of where it is in force.
fn check_delegate(spec: &Spec) -> Result<(), Flaw> {
    let has_gateways = spec.gateways.as_ref().is_some_and(|gateways| !gateways.is_empty());
    for (name, given) in [("gateways", has_gateways), ("tls", !spec.tls.is_empty()), ("tcp", !spec.tcp.is_empty())] {
        if given {
            let message = "a VirtualService without hosts is a delegate, and has rules of http alone";
            return Err(Flaw::value(format!("spec.{name}"), message));
        }
    }
    if spec.http.is_empty() {
        return Err(Flaw::value("spec.hosts", "the VirtualService is about no host, and has no rule to be a delegate"));
    }
    match spec.http.iter().position(|rule| rule.delegate.is_some()) {
        None => Ok(()),
        Some(index) => {
            let message = "a VirtualService without hosts is a delegate, and a delegate delegates nothing";
            Err(Flaw::value(format!("spec.http[{index}].delegate"), message))
        }
    }
}

impl RawDelegate {
    fn read(self, namespace: &Arc<str>, field: &str) -> Result<Key, Flaw> {
        if self.name.is_empty() {
            return Err(Flaw::value(format!("{field}.name"), "it names no VirtualService"));
        }
        let namespace =
            self.namespace.filter(|given| !given.is_empty()).map_or_else(|| Arc::clone(namespace), Into::into);
        Ok((namespace, self.name.into()))
    }
}

impl RawHttp {
    fn read(
        self,
        index: usize,
        name: &PolicyName,
        gateways: &[String],
        remarks: &mut Vec<Remark>,
    ) -> Result<HttpRule, Flaw> {
        let field = format!("spec.http[{index}]");
        let at = RuleRef {
            kind: "VirtualService",
            namespace: Arc::clone(&name.namespace),
            object: Arc::clone(&name.name),
            index,
            name: self.name.as_deref().map(Into::into),
        };
        let mut matches: Vec<RequestMatch> = Vec::new();
        let mut for_gateways = Vec::new();
        for (place, raw) in self.matches.into_iter().enumerate() {
            let own = raw.gateways().map_or_else(|| gateways.to_vec(), <[String]>::to_vec);
            for_gateways.push(own);
            matches.push(raw.read(&format!("{field}.match[{place}]"), remarks)?);
        }
        if for_gateways.is_empty() {
            for_gateways.push(gateways.to_vec());
        }
        let delegate = self.delegate.map(|raw| raw.read(&name.namespace, &format!("{field}.delegate"))).transpose()?;
        let said = (self.route, self.redirect, self.direct_response);
        let action = action(said, delegate.is_some(), &field, remarks)?;
        let headers = self.headers.map_or(Ok((HeaderEdits::default(), HeaderEdits::default())), |headers| {
            headers.read(&format!("{field}.headers"), remarks)
        })?;
        let shares = (self.mirror_percentage, self.mirror_percent);
        let mirrors = action::mirrors((self.mirror, self.mirrors), shares, &field, remarks)?;
        let limit = self.timeout.map(|timeout| duration(&timeout, format!("{field}.timeout"))).transpose()?;
        let timeouts = Timeouts { request: limit.filter(|limit| !limit.is_zero()), ..Timeouts::default() };
        let rule = Rule {
            at,
            matches,
            action,
            request_headers: headers.0,
            response_headers: headers.1,
            rewrite: self
                .rewrite
                .map(|rewrite| rewrite.read(&format!("{field}.rewrite")))
                .transpose()?
                .unwrap_or_default(),
            mirrors,
            fault: self
                .fault
                .map(|fault| fault.read(&format!("{field}.fault"), remarks))
                .transpose()?
                .unwrap_or_default(),
            retry: self.retries.map(|retries| retries.read(&format!("{field}.retries"), remarks)).transpose()?,
            timeouts,
            cors: self.cors_policy.map(|cors| cors.read(&format!("{field}.corsPolicy"))).transpose()?,
            session: None,
        };
        Ok(HttpRule { rule, gateways: for_gateways, delegate })
    }
}

fn action(
    (route, redirect, direct): (Vec<RawRoute>, Option<RawRedirect>, Option<RawDirectResponse>),
    delegated: bool,
    field: &str,
    remarks: &mut Vec<Remark>,
) -> Result<Action, Flaw> {
    match (route.is_empty(), redirect, direct) {
        (true, None, None) if delegated => Ok(Action::Forward(Vec::new())),
        _ if delegated => {
            let message = "a rule that delegates has no route, redirect or directResponse of its own";
            Err(Flaw::value(format!("{field}.delegate"), message))
        }
        (false, None, None) => action::forward(route, &format!("{field}.route"), remarks),
        (true, Some(redirect), None) => redirect.read(&format!("{field}.redirect")),
        (true, None, Some(direct)) => direct.read(&format!("{field}.directResponse")),
        (true, None, None) => Err(Flaw::value(field, "it says nothing of what becomes of a request: add route")),
        _ => Err(Flaw::value(field, "route, redirect and directResponse exclude each other")),
    }
}
