//! What routes have in common.

use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::l7::rule::DirectResponse;
use mesh_core::l7::{Action, Percent, RequestMatch, Retry, Rule, RuleRef, Timeouts};
use serde_json::Value;

use super::filters::{Edits, RawFilter};
use super::reference::{BackendRef, Parent, RawBackendRef};
use super::session_persistence::RawSession;
use crate::code::Code;
use crate::istio::{Age, Flaw, Remark};

/// Rules of one route; the API itself allows 16.
pub(super) const MAX_RULES: usize = 256;

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

/// What is worth saying of `useDefaultGateways`, where it is written.
pub(super) fn no_default_gateways(written: Option<&Value>) -> Option<Remark> {
    written?;
    Some(Remark::new(Code::FieldNotHonoured, "spec.useDefaultGateways", "there are no default gateways"))
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
    pub(super) fn read(
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
pub(super) fn hostnames(written: Option<Vec<String>>) -> Result<Vec<String>, Flaw> {
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
pub(super) fn hostnames_mean_nothing(parents: &[Parent], hostnames: &[String]) -> Option<Remark> {
    let to_gateways = parents.iter().any(|parent| matches!(parent, Parent::Gateway(_)));
    (!hostnames.is_empty() && !to_gateways).then(|| {
        let message = "a Service's requests are told by its address, whatever host they name";
        Remark::new(Code::FieldNotHonoured, "spec.hostnames", message)
    })
}
