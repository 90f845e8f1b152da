//! What routes have in common.

use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::l7::rule::DirectResponse;
use mesh_core::l7::{Action, Percent, RequestMatch, Retry, Rule, RuleRef, Timeouts};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::filters::{Edits, RawFilter};
use super::reference::{BackendRef, Parent, RawBackendRef, RawParentRef};
use super::session_persistence::RawSession;
use crate::code::Code;
use crate::finding::ObjectName;
use crate::istio::{Age, Flaw, Remark, decode, policy_name};

/// Rules of one route; the API itself allows 16.
const MAX_RULES: usize = 256;

/// An HTTPRoute or a GRPCRoute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// `HTTPRoute` or `GRPCRoute`.
    pub kind: &'static str,
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// What it attaches itself to.
    pub parents: Vec<Parent>,
    /// The hosts that it is for, perhaps with `*.` before them; all where it names none.
    pub hostnames: Vec<String>,
    /// Its rules.
    pub rules: Vec<RouteRule>,
    /// When it was made.
    pub age: Age,
    /// Which version of it this is, as the API server counts.
    pub generation: Option<i64>,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

/// One rule, with references as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteRule {
    /// The rule. Its backends are in the order of `backends`, its mirrors are to be made of `mirrors`.
    pub rule: Rule,
    /// What the backends refer to.
    pub backends: Vec<BackendRef>,
    /// What the mirrors refer to.
    pub mirrors: Vec<(BackendRef, Percent)>,
}

/// A rule as one kind of route writes it.
pub(super) trait RawRule: DeserializeOwned {
    /// The rules of a route that writes none.
    fn unwritten() -> Vec<Self> {
        Vec::new()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", bound(deserialize = "R: RawRule"))]
struct RawSpec<R> {
    #[serde(default)]
    parent_refs: Vec<RawParentRef>,
    hostnames: Option<Vec<String>>,
    #[serde(default = "R::unwritten")]
    rules: Vec<R>,
    use_default_gateways: Option<Value>,
}

/// A route of any kind, of which only the rules are still to be read.
pub(super) struct Unread<R> {
    pub(super) name: Arc<PolicyName>,
    pub(super) parents: Vec<Parent>,
    pub(super) hostnames: Vec<String>,
    pub(super) rules: Vec<R>,
    pub(super) age: Age,
    pub(super) generation: Option<i64>,
    pub(super) remarks: Vec<Remark>,
}

impl<R: RawRule> Unread<R> {
    pub(super) fn of(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<RawSpec<R>>(value)?;
        let (age, generation) = (Age::of(&resource.metadata), resource.metadata.generation);
        let name = policy_name(name);
        let Some(spec) = resource.spec else {
            return Err(Flaw::value("spec.parentRefs", "the route attaches itself to nothing"));
        };
        if spec.rules.len() > MAX_RULES {
            return Err(Flaw::value("spec.rules", format!("{} rules are more than {MAX_RULES}", spec.rules.len())));
        }
        let remarks = spec
            .use_default_gateways
            .map(|_| Remark::new(Code::FieldNotHonoured, "spec.useDefaultGateways", "there are no default gateways"));
        let parents = spec.parent_refs.into_iter().map(|parent| parent.read(&name.namespace)).collect();
        Ok(Self {
            name,
            parents,
            hostnames: hostnames(spec.hostnames)?,
            rules: spec.rules,
            age,
            generation,
            remarks: remarks.into_iter().collect(),
        })
    }

    /// The route, of a kind whose rules are about requests; `parts` takes one of them apart, told at which field it is.
    pub(super) fn read(
        self,
        kind: &'static str,
        parts: impl Fn(R, &str) -> Result<RawParts, Flaw>,
    ) -> Result<Route, Flaw> {
        let Self { name, parents, hostnames, rules: unread, age, generation, mut remarks } = self;
        let mut rules = Vec::with_capacity(unread.len());
        for (index, raw) in unread.into_iter().enumerate() {
            rules.push(parts(raw, &format!("spec.rules[{index}]"))?.read(kind, &name, index, &mut remarks)?);
        }
        remarks.extend(hostnames_mean_nothing(&parents, &hostnames));
        Ok(Route { kind, name, parents, hostnames, rules, age, generation, remarks })
    }
}

/// The parts of a rule that are read alike.
pub(super) struct RawParts {
    pub(super) name: Option<String>,
    pub(super) matches: Vec<RequestMatch>,
    pub(super) filters: Vec<RawFilter>,
    pub(super) backend_refs: Vec<RawBackendRef>,
    pub(super) timeouts: Timeouts,
    pub(super) retry: Option<Retry>,
    pub(super) session: Option<RawSession>,
}

impl RawParts {
    fn read(
        self,
        kind: &'static str,
        name: &PolicyName,
        index: usize,
        remarks: &mut Vec<Remark>,
    ) -> Result<RouteRule, Flaw> {
        let field = format!("spec.rules[{index}]");
        let mut edits = Edits::default();
        for (place, filter) in self.filters.into_iter().enumerate() {
            filter.read(&format!("{field}.filters[{place}]"), &name.namespace, &mut edits, remarks)?;
        }
        let (mut references, mut backends) = (Vec::new(), Vec::new());
        for (place, raw) in self.backend_refs.into_iter().enumerate() {
            let (reference, backend) = raw.read(&name.namespace, &format!("{field}.backendRefs[{place}]"), remarks)?;
            references.push(reference);
            backends.push(backend);
        }
        let answer = |status| Action::Respond(DirectResponse { status, body: None });
        let action = match edits.redirect {
            _ if edits.unusable => answer(500),
            Some(_) if !backends.is_empty() => {
                return Err(Flaw::value(format!("{field}.backendRefs"), "who is redirected reaches no backend"));
            }
            Some(redirect) => Action::Redirect(redirect),
            // Without a backend with a weight, every request is answered with 500 (HTTPRouteRule, backendRefs).
            None if backends.iter().all(|backend| backend.weight == 0) => {
                let message = if backends.is_empty() { "there is none" } else { "the weight of each is 0" };
                remarks.push(Remark::new(Code::NoWeight, format!("{field}.backendRefs"), message));
                answer(500)
            }
            None => Action::Forward(backends),
        };
        if !matches!(action, Action::Forward(_)) {
            references.clear();
        }
        let at = RuleRef {
            kind,
            namespace: Arc::clone(&name.namespace),
            object: Arc::clone(&name.name),
            index,
            name: self.name.map(Into::into),
        };
        let rule = Rule {
            at,
            matches: self.matches,
            action,
            request_headers: edits.request,
            response_headers: edits.response,
            rewrite: edits.rewrite,
            mirrors: Vec::new(),
            fault: Default::default(),
            retry: self.retry,
            timeouts: self.timeouts,
            cors: edits.cors,
            session: self.session.map(|raw| raw.read(name, index, &field)).transpose()?,
        };
        Ok(RouteRule { rule, backends: references, mirrors: edits.mirrors })
    }
}

/// A route's hosts, in lower case.
fn hostnames(written: Option<Vec<String>>) -> Result<Vec<String>, Flaw> {
    let written = written.unwrap_or_default();
    for (index, host) in written.iter().enumerate() {
        let name = host.strip_prefix("*.").unwrap_or(host);
        let label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !name.split('.').all(label) {
            return Err(Flaw::value(format!("spec.hostnames[{index}]"), format!("{host:?} is no host name")));
        }
    }
    Ok(written.into_iter().map(|host| host.to_ascii_lowercase()).collect())
}

/// What is said of hosts to a route that is attached to Services alone.
fn hostnames_mean_nothing(parents: &[Parent], hostnames: &[String]) -> Option<Remark> {
    let to_gateways = parents.iter().any(|parent| matches!(parent, Parent::Listeners(_)));
    (!hostnames.is_empty() && !to_gateways).then(|| {
        let message = "a Service's requests are told by its address, whatever host they name";
        Remark::new(Code::FieldNotHonoured, "spec.hostnames", message)
    })
}
