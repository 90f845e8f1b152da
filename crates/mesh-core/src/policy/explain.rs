//! The decision on one connection with everything that was looked at, by the code that decides.

use std::fmt;
use std::sync::Arc;

use super::authorize::{Observer, Place, judge, show};
use super::{
    Answered, Authorization, AuthorizationPolicy, Decision, EffectiveMode, Facts, Level, Mode, Question, RequestFacts,
    RequestTest, Scope, Term, Test, authorize_connection, authorize_request,
};
use crate::identity::SpiffeId;
use crate::model::Workload;
use crate::snapshot::Snapshot;

/// A decision and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether the port takes plaintext, and why.
    pub mode: EffectiveMode,
    /// Every AuthorizationPolicy that is about the workload, in the order in which they are asked: CUSTOM, DENY, ALLOW,
    /// then those in dry run, then AUDIT.
    pub policies: Vec<Considered>,
    /// What [`super::authorize`] says.
    pub authorization: Authorization,
}

/// A policy that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Considered {
    /// The policy.
    pub policy: Arc<AuthorizationPolicy>,
    /// How far it reaches.
    pub scope: Scope,
    /// The rules up to the first that matches.
    pub rules: Vec<RuleOutcome>,
}

impl Considered {
    /// The rule that matches, counted from 0.
    #[must_use]
    pub fn matched(&self) -> Option<usize> {
        self.rules.iter().position(|rule| rule.matched)
    }
}

/// What became of one rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleOutcome {
    /// Whether it matches.
    pub matched: bool,
    /// What did not hold, for each alternative that was tried.
    pub misses: Vec<Miss>,
}

/// A field that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// The field in the rule, such as `from[0].source.principals`.
    pub field: String,
    /// What was found instead.
    pub found: String,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.found)
    }
}

/// Decides as [`super::authorize`] does, and tells how.
#[must_use]
pub fn explain(snapshot: &Snapshot, workload: &Workload, facts: &Facts<'_>) -> Explanation {
    let root_namespace = snapshot.policies().root_namespace();
    let nothing = EffectiveMode { mode: Mode::Permissive, level: Level::Default, policy: None };
    let mut recorder = Recorder { root_namespace, facts, request: None, mode: nothing, policies: Vec::new() };
    let authorization = judge(snapshot, workload, facts, &mut recorder);
    Explanation { mode: recorder.mode, policies: recorder.policies, authorization }
}

/// A decision of a waypoint or gateway, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestExplanation {
    /// Every AuthorizationPolicy that is about where it was sent, in the order in which they are asked.
    pub policies: Vec<Considered>,
    /// Authorizers that are asked first, one after the other.
    pub asked: Vec<Question>,
    /// What [`authorize_request`] says once they all allow it as it is.
    pub authorization: Authorization,
}

/// Decides on a request as [`authorize_request`] does, or, where nobody reads requests, as [`authorize_connection`]; and tells how.
#[must_use]
pub fn explain_request(
    snapshot: &Snapshot,
    policies: &[&Arc<AuthorizationPolicy>],
    facts: &Facts<'_>,
    request: Option<&RequestFacts<'_>>,
) -> RequestExplanation {
    let root_namespace = snapshot.policies().root_namespace();
    let nothing = EffectiveMode { mode: Mode::Permissive, level: Level::Default, policy: None };
    let mut recorder = Recorder { root_namespace, facts, request, mode: nothing, policies: Vec::new() };
    show(policies, facts, request, &mut recorder);
    let (mut asked, mut answered) = (Vec::new(), Answered::default());
    let authorization = loop {
        let Some(request) = request else { break authorize_connection(policies, facts) };
        match authorize_request(policies, facts, request, &answered) {
            Decision::Settled(authorization) => break authorization,
            Decision::Ask(question) => {
                asked.push(question.clone());
                answered = question.allowed();
            }
        }
    };
    let targeted = snapshot.policies().targeted();
    for considered in &mut recorder.policies {
        if targeted.iter().any(|targeted| Arc::ptr_eq(&targeted.policy, &considered.policy)) {
            considered.scope = Scope::Target;
        }
    }
    RequestExplanation { policies: recorder.policies, asked, authorization }
}

struct Recorder<'a> {
    root_namespace: &'a str,
    facts: &'a Facts<'a>,
    request: Option<&'a RequestFacts<'a>>,
    mode: EffectiveMode,
    policies: Vec<Considered>,
}

impl Recorder<'_> {
    fn rule(&mut self, index: usize) -> Option<&mut RuleOutcome> {
        let rules = &mut self.policies.last_mut()?.rules;
        rules.resize(rules.len().max(index + 1), RuleOutcome::default());
        rules.get_mut(index)
    }
}

impl Observer for Recorder<'_> {
    const EXHAUSTIVE: bool = true;

    fn mode(&mut self, mode: &EffectiveMode) {
        self.mode = mode.clone();
    }

    fn consider(&mut self, policy: &Arc<AuthorizationPolicy>) {
        let scope = policy.scope(self.root_namespace);
        self.policies.push(Considered { policy: Arc::clone(policy), scope, rules: Vec::new() });
    }

    fn missed(&mut self, rule: usize, place: Place<'_>) {
        let miss = Miss { field: field(place), found: found(place, self.facts, self.request) };
        if let Some(rule) = self.rule(rule) {
            rule.misses.push(miss);
        }
    }

    fn matched(&mut self, rule: usize) {
        if let Some(rule) = self.rule(rule) {
            rule.matched = true;
        }
    }

    fn matches_in_part(&mut self) {
        if let Some(policy) = self.policies.last_mut() {
            policy.rules.iter_mut().for_each(|rule| rule.matched = false);
        }
    }
}

/// The field as the manifest has it.
fn field(place: Place<'_>) -> String {
    let not = |term: &Term, plain: &'static str, negated: &'static str| if term.negated { negated } else { plain };
    match place {
        Place::NeedsRequest(field) => field.to_owned(),
        Place::From(index, term) => {
            let name = match term.test {
                Test::Principal(_) => not(term, "principals", "notPrincipals"),
                Test::Namespace(_) => not(term, "namespaces", "notNamespaces"),
                Test::ServiceAccount(_) => not(term, "serviceAccounts", "notServiceAccounts"),
                Test::SourceIp(_) => not(term, "ipBlocks", "notIpBlocks"),
                Test::RemoteIp(_) => not(term, "remoteIpBlocks", "notRemoteIpBlocks"),
                Test::Request(RequestTest::RequestPrincipal(_)) => {
                    not(term, "requestPrincipals", "notRequestPrincipals")
                }
                Test::DestinationIp(_) | Test::DestinationPort(_) | Test::Request(_) => term.test.key(),
            };
            format!("from[{index}].source.{name}")
        }
        Place::To(index, term) => {
            let name = match term.test {
                Test::Request(RequestTest::Host(_)) => not(term, "hosts", "notHosts"),
                Test::Request(RequestTest::Method(_)) => not(term, "methods", "notMethods"),
                Test::Request(RequestTest::Path(_)) => not(term, "paths", "notPaths"),
                _ => not(term, "ports", "notPorts"),
            };
            format!("to[{index}].operation.{name}")
        }
        Place::When(term) => format!("when[{}].{}", key(&term.test), not(term, "values", "notValues")),
    }
}

/// The key of a condition, with the name of the header field or the claim.
fn key(test: &Test) -> String {
    match test {
        Test::Request(RequestTest::Header(name, _)) => format!("{}[{name}]", test.key()),
        Test::Request(RequestTest::Claim(names, _)) => {
            let names: String = names.iter().map(|name| format!("[{name}]")).collect();
            format!("{}{names}", test.key())
        }
        _ => test.key().to_owned(),
    }
}

/// The fact that the field was compared with.
fn found(place: Place<'_>, facts: &Facts<'_>, request: Option<&RequestFacts<'_>>) -> String {
    let term = match place {
        Place::NeedsRequest(_) => return "only a request shows it, and connections are judged here".to_owned(),
        Place::From(_, term) | Place::To(_, term) | Place::When(term) => term,
    };
    let identity = facts.peer.identity();
    let of_identity = |part: fn(&SpiffeId) -> String| identity.map_or("no identity is proven".to_owned(), part);
    match term.test {
        Test::Principal(_) => of_identity(|id| id.principal().to_owned()),
        Test::Namespace(_) => of_identity(|id| id.namespace().to_owned()),
        Test::ServiceAccount(_) => of_identity(|id| format!("{}/{}", id.namespace(), id.service_account())),
        Test::SourceIp(_) => facts.client.to_canonical().to_string(),
        Test::RemoteIp(_) => facts.remote().to_canonical().to_string(),
        Test::DestinationIp(_) => facts.destination.ip().to_canonical().to_string(),
        Test::DestinationPort(_) => facts.destination.port().to_string(),
        Test::Request(RequestTest::Sni(_)) => {
            facts.server.map_or_else(|| "no server's name is known".to_owned(), str::to_owned)
        }
        // Left out where there is none, and so never the reason.
        Test::Request(ref test) => request.map_or_else(|| "no request".to_owned(), |request| of_request(test, request)),
    }
}

fn of_request(test: &RequestTest, RequestFacts { view, token }: &RequestFacts<'_>) -> String {
    let of_token = |found: Option<String>| match (token, found) {
        (None, _) => "no token is verified".to_owned(),
        (Some(_), None) => "the token does not say".to_owned(),
        (Some(_), Some(found)) => found,
    };
    let joined = |texts: &[String]| (!texts.is_empty()).then(|| texts.join(", "));
    match test {
        RequestTest::Host(_) => format!("{}, port {}", view.host(), view.port()),
        RequestTest::Method(_) => view.method().to_owned(),
        RequestTest::Path(_) => view.path().to_owned(),
        RequestTest::Header(name, _) => {
            view.header(name).map_or_else(|| "no such field".to_owned(), |it| it.into_owned())
        }
        RequestTest::RequestPrincipal(_) => of_token(token.and_then(|token| token.principal.clone())),
        RequestTest::Audience(_) => of_token(token.and_then(|token| joined(&token.audiences))),
        RequestTest::Presenter(_) => of_token(token.and_then(|token| token.presenter.clone())),
        RequestTest::Claim(names, _) => of_token(token.and_then(|token| joined(token.claim(names)))),
        RequestTest::Sni(_) => "the connection's".to_owned(),
    }
}
