//! The decision on one connection with everything that was looked at, by the code that decides.

use std::fmt;
use std::sync::Arc;

use super::authorize::{Observer, Place, judge};
use super::{Authorization, AuthorizationPolicy, EffectiveMode, Facts, Level, Mode, Scope, Term, Test};
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
    let mut recorder = Recorder { root_namespace, facts, mode: nothing, policies: Vec::new() };
    let authorization = judge(snapshot, workload, facts, &mut recorder);
    Explanation { mode: recorder.mode, policies: recorder.policies, authorization }
}

struct Recorder<'a> {
    root_namespace: &'a str,
    facts: &'a Facts<'a>,
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
        let miss = Miss { field: field(place), found: found(place, self.facts) };
        if let Some(rule) = self.rule(rule) {
            rule.misses.push(miss);
        }
    }

    fn matched(&mut self, rule: usize) {
        if let Some(rule) = self.rule(rule) {
            rule.matched = true;
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
                Test::DestinationIp(_) | Test::DestinationPort(_) | Test::Request(_) => term.test.key(),
            };
            format!("from[{index}].source.{name}")
        }
        Place::To(index, term) => format!("to[{index}].operation.{}", not(term, "ports", "notPorts")),
        Place::When(term) => format!("when[{}].{}", term.test.key(), not(term, "values", "notValues")),
    }
}

/// The fact that the field was compared with.
fn found(place: Place<'_>, facts: &Facts<'_>) -> String {
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
        // Left out where there is none, and so never the reason.
        Test::Request(_) => "no request".to_owned(),
    }
}
