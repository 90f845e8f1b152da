//! The decision on one connection or request, and the proof that it was allowed.
//!
//! Order: a connection without a proven identity has to be taken at all (PeerAuthentication); then CUSTOM has an authorizer
//! asked about the requests that it matches, and refuses such connections; then DENY; then, if the workload has ALLOW
//! policies, one of them has to match.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::request::{Reading, RequestFacts, RequestTest};
use super::{Action, AuthorizationPolicy, Clause, EffectiveMode, Mode, PolicyName, Rule, Term, Test, effective_mode};
use crate::identity::SpiffeId;
use crate::l7::Waypoint;
use crate::model::Workload;
use crate::snapshot::Snapshot;

/// What is known of a connection that wants into a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Who connects.
    pub peer: Peer<'a>,
    /// Where the connection comes from, by the kernel's word.
    pub client: IpAddr,
    /// Whom that one connects for, by the word of a proxy that is trusted: what `remoteIpBlocks` are about. None where it speaks
    /// for itself.
    pub forwarded: Option<IpAddr>,
    /// The server that the client asked for in TLS (SNI), where that is known: at a gateway. Tunnels of the mesh carry none.
    pub server: Option<&'a str>,
    /// The workload's own address and port.
    pub destination: SocketAddr,
}

impl Facts<'_> {
    /// Whose the connection is in the end.
    pub(super) fn remote(&self) -> IpAddr {
        self.forwarded.unwrap_or(self.client)
    }
}

/// Who connects, and what proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer<'a> {
    /// A verified certificate.
    Certificate(&'a SpiffeId),
    /// The kernel of this node, which saw the workload connect.
    Kernel(&'a SpiffeId),
    /// Nothing: plaintext.
    Unproven,
}

impl<'a> Peer<'a> {
    /// The proven identity.
    #[must_use]
    pub const fn identity(self) -> Option<&'a SpiffeId> {
        match self {
            Self::Certificate(identity) | Self::Kernel(identity) => Some(identity),
            Self::Unproven => None,
        }
    }
}

/// What was decided on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Whether it may be carried.
    pub verdict: Result<Permit, Denial>,
    /// What the policies in dry run would have decided on their own, if the workload has any.
    pub shadow: Option<Shadow>,
    /// The AUDIT policies that match it.
    pub audited: Vec<Arc<PolicyName>>,
}

/// Proof that a connection into a workload was allowed. Only [`authorize`] makes one; whoever copies bytes into an
/// application asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permit {
    basis: Basis,
}

impl Permit {
    /// Why it was allowed.
    #[must_use]
    pub const fn basis(&self) -> &Basis {
        &self.basis
    }
}

/// Why a connection was allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// The workload has no ALLOW policy.
    NoAllowPolicy,
    /// That ALLOW policy matches.
    AllowedBy(Arc<PolicyName>),
}

/// Why a connection is refused. A client may retry when policies have changed, not before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The workload takes no plaintext.
    #[error("plaintext is refused: the mode is STRICT{}", origin_of(.0))]
    PlaintextUnderStrict(EffectiveMode),
    /// Policies are enforced at a waypoint, and the connection does not come from there.
    #[error("only waypoint {0} may connect here: it enforces policies that nobody else can judge")]
    PastWaypoint(Arc<Waypoint>),
    /// A CUSTOM policy matches, and there is no authorizer to ask: none that is named so, or none about a connection.
    #[error("AuthorizationPolicy {0} has action CUSTOM, and there is no authorizer to ask")]
    Custom(Arc<PolicyName>),
    /// A DENY policy matches.
    #[error("AuthorizationPolicy {0} denies it")]
    DeniedBy(Arc<PolicyName>),
    /// The workload has ALLOW policies, and none matches.
    #[error("no ALLOW policy matches (of {count}; the first is {first})")]
    NoAllowMatches {
        /// How many there are.
        count: usize,
        /// The first of them.
        first: Arc<PolicyName>,
    },
}

impl Denial {
    /// The policy that decided, where a single one did.
    #[must_use]
    pub fn policy(&self) -> Option<&Arc<PolicyName>> {
        match self {
            Self::PlaintextUnderStrict(mode) => mode.policy.as_ref(),
            Self::Custom(policy) | Self::DeniedBy(policy) => Some(policy),
            Self::PastWaypoint(_) | Self::NoAllowMatches { .. } => None,
        }
    }
}

fn origin_of(mode: &EffectiveMode) -> String {
    mode.policy.as_ref().map_or_else(String::new, |name| format!(" by PeerAuthentication {name}"))
}

/// What the policies in dry run would have decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    /// Why it would have been allowed, or refused.
    pub verdict: Result<Basis, Denial>,
}

/// Decides whether a connection may enter `workload`.
///
/// The cost grows with the policies that are about the workload, and with no others.
#[must_use]
pub fn authorize(snapshot: &Snapshot, workload: &Workload, facts: &Facts<'_>) -> Authorization {
    judge(snapshot, workload, facts, &mut Unobserved)
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is decided.
    Settled(Authorization),
    /// An authorizer is to be asked first.
    Ask(Question),
}

/// An authorizer that is to be asked about a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    policy: Arc<PolicyName>,
    provider: Arc<str>,
    before: Answered,
}

/// The authorizers that allow a request. Only [`Question::allowed`] adds one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answered(Vec<Arc<str>>);

impl Question {
    /// The policy that has it asked.
    #[must_use]
    pub const fn policy(&self) -> &Arc<PolicyName> {
        &self.policy
    }

    /// The authorizer, by its name among [`crate::Providers`].
    #[must_use]
    pub const fn provider(&self) -> &Arc<str> {
        &self.provider
    }

    /// It allows the request.
    #[must_use]
    pub fn allowed(self) -> Answered {
        let Answered(mut providers) = self.before;
        providers.push(self.provider);
        Answered(providers)
    }

    /// There is no authorizer of that name.
    #[must_use]
    pub fn unanswerable(self) -> Denial {
        Denial::Custom(self.policy)
    }
}

/// Decides whether a request may go on to where it is for, by the policies that a waypoint has for that
/// ([`super::Policies::for_waypoint`]), once those who answered allow it.
///
/// An authorizer may change the request, so that it is judged again after each answer, as it is then. Each is asked once. A path
/// that servers read in two ways is allowed if both are, and refused, or asked about, if one is.
#[must_use]
pub fn authorize_request(
    policies: &[&Arc<AuthorizationPolicy>],
    facts: &Facts<'_>,
    request: &RequestFacts<'_>,
    answered: &Answered,
) -> Decision {
    let subject = Subject { facts, request: Some(request), answered };
    let mut customs = policies.iter().filter(|policy| policy.action == Action::Custom && !policy.dry_run);
    let first = customs.find(|policy| !answered.settles(policy) && matches(policy, subject, &mut Unobserved));
    if let Some(policy) = first
        && let Some(provider) = &policy.provider
    {
        let (policy, provider) = (Arc::clone(&policy.name), Arc::clone(provider));
        return Decision::Ask(Question { policy, provider, before: answered.clone() });
    }
    Decision::Settled(by_policies(policies, subject, &mut Unobserved, |verdict| verdict))
}

impl Answered {
    /// Whether a CUSTOM policy has nothing more to say: its authorizer has allowed the request.
    fn settles(&self, policy: &AuthorizationPolicy) -> bool {
        policy.action == Action::Custom && policy.provider.as_ref().is_some_and(|provider| self.0.contains(provider))
    }
}

/// Decides whether a connection in which nobody reads requests may go on, by the policies that a waypoint has for where it
/// goes. A rule that asks for something of a request allows nothing, and refuses by what is left of it.
#[must_use]
pub fn authorize_connection(policies: &[&Arc<AuthorizationPolicy>], facts: &Facts<'_>) -> Authorization {
    let subject = Subject { facts, request: None, answered: &NOBODY };
    by_policies(policies, subject, &mut Unobserved, |verdict| verdict)
}

/// Nobody is asked about connections.
const NOBODY: Answered = Answered(Vec::new());

/// What a policy is compared with: a connection, and the request on it where somebody reads that.
#[derive(Clone, Copy)]
struct Subject<'a> {
    facts: &'a Facts<'a>,
    request: Option<&'a RequestFacts<'a>>,
    /// Who has been asked about it.
    answered: &'a Answered,
}

/// Sees what [`judge`] looks at. The decision does not depend on it.
pub(super) trait Observer {
    /// Whether to go on to policies that can no longer change the decision.
    const EXHAUSTIVE: bool;

    fn mode(&mut self, _mode: &EffectiveMode) {}
    fn consider(&mut self, _policy: &Arc<AuthorizationPolicy>) {}
    fn missed(&mut self, _rule: usize, _place: Place<'_>) {}
    fn matched(&mut self, _rule: usize) {}
    /// The policy matches by one reading of the path, and by another one not: it does not match.
    fn matches_in_part(&mut self) {}
}

/// Shows an observer what is looked at where a waypoint judges by these policies, before anybody is asked.
pub(super) fn show<O: Observer>(
    policies: &[&Arc<AuthorizationPolicy>],
    facts: &Facts<'_>,
    request: Option<&RequestFacts<'_>>,
    observer: &mut O,
) {
    by_policies(policies, Subject { facts, request, answered: &NOBODY }, observer, |verdict| verdict);
}

/// What of a rule did not hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// A field that nobody can judge without a request.
    NeedsRequest(&'a str),
    /// A term of one of the alternatives in `from`.
    From(usize, &'a Term),
    /// A term of one of the alternatives in `to`.
    To(usize, &'a Term),
    /// A term of `when`.
    When(&'a Term),
}

struct Unobserved;

impl Observer for Unobserved {
    const EXHAUSTIVE: bool = false;
}

pub(super) fn judge<O: Observer>(
    snapshot: &Snapshot,
    workload: &Workload,
    facts: &Facts<'_>,
    observer: &mut O,
) -> Authorization {
    let mode = effective_mode(snapshot, workload, facts.destination.port());
    observer.mode(&mode);
    let policies = snapshot.policies().authorization_of(workload);
    let refuses_plaintext = mode.mode == Mode::Strict && facts.peer.identity().is_none();
    let enter = |permit| match passed_by(snapshot, workload, facts) {
        _ if refuses_plaintext => Err(Denial::PlaintextUnderStrict(mode)),
        Some(waypoint) => Err(Denial::PastWaypoint(Arc::clone(waypoint))),
        None => permit,
    };
    by_policies(&policies, Subject { facts, request: None, answered: &NOBODY }, observer, enter)
}

/// Decides by policies; `enter` has a word on the verdict.
fn by_policies<O: Observer>(
    policies: &[&Arc<AuthorizationPolicy>],
    subject: Subject<'_>,
    observer: &mut O,
    enter: impl FnOnce(Result<Permit, Denial>) -> Result<Permit, Denial>,
) -> Authorization {
    let verdict = enter(decide(policies, false, subject, observer).map(|basis| Permit { basis }));
    let is_shadow = |policy: &&Arc<AuthorizationPolicy>| policy.dry_run && policy.action != Action::Audit;
    let has_shadow = policies.iter().any(is_shadow);
    let shadow = has_shadow.then(|| Shadow { verdict: decide(policies, true, subject, observer) });
    let audits = policies.iter().filter(|policy| policy.action == Action::Audit);
    let audited = audits.filter(|policy| matches(policy, subject, observer) && !policy.dry_run);
    Authorization { verdict, shadow, audited: audited.map(|policy| Arc::clone(&policy.name)).collect() }
}

/// The waypoint that has to bring a connection to this port and did not.
fn passed_by<'a>(snapshot: &'a Snapshot, workload: &Workload, facts: &Facts<'_>) -> Option<&'a Arc<Waypoint>> {
    let guards = snapshot.l7().guards_of(workload);
    let mut here = guards.iter().filter(|guard| guard.port.is_none_or(|port| port == facts.destination.port()));
    let first = here.clone().next()?;
    let brought = |identity| here.any(|guard| guard.waypoint.identities.contains(identity));
    (!facts.peer.identity().is_some_and(brought)).then_some(&first.waypoint)
}

/// Decides by the policies in force, or by those in dry run alone.
fn decide<O: Observer>(
    policies: &[&Arc<AuthorizationPolicy>],
    dry_run: bool,
    subject: Subject<'_>,
    observer: &mut O,
) -> Result<Basis, Denial> {
    let mut decision = None;
    let (mut allows, mut first_allow) = (0, None);
    for action in [Action::Custom, Action::Deny, Action::Allow] {
        let these = policies.iter().filter(|policy| policy.action == action && policy.dry_run == dry_run);
        let these = these.filter(|policy| !subject.answered.settles(policy));
        for policy in these {
            if decision.is_some() && !O::EXHAUSTIVE {
                break;
            }
            if action == Action::Allow {
                allows += 1;
                first_allow.get_or_insert(&policy.name);
            }
            if matches(policy, subject, observer) {
                decision.get_or_insert_with(|| outcome(policy));
            }
        }
    }
    match (decision, first_allow) {
        (Some(decision), _) => decision,
        (None, None) => Ok(Basis::NoAllowPolicy),
        (None, Some(first)) => Err(Denial::NoAllowMatches { count: allows, first: Arc::clone(first) }),
    }
}

fn outcome(policy: &AuthorizationPolicy) -> Result<Basis, Denial> {
    let name = Arc::clone(&policy.name);
    match policy.action {
        Action::Allow | Action::Audit => Ok(Basis::AllowedBy(name)),
        Action::Deny => Err(Denial::DeniedBy(name)),
        Action::Custom => Err(Denial::Custom(name)),
    }
}

fn matches<O: Observer>(policy: &Arc<AuthorizationPolicy>, subject: Subject<'_>, observer: &mut O) -> bool {
    observer.consider(policy);
    let Some(request) = subject.request else {
        return one_rule_matches(policy, subject.facts, None, observer);
    };
    let readings = request.readings();
    let mut each = readings
        .each()
        .map(|path| one_rule_matches(policy, subject.facts, Some(Reading { facts: request, path }), observer));
    let matched = match policy.action {
        Action::Allow => each.all(|matched| matched),
        Action::Custom | Action::Deny | Action::Audit => each.any(|matched| matched),
    };
    drop(each);
    if !matched {
        observer.matches_in_part();
    }
    matched
}

fn one_rule_matches<O: Observer>(
    policy: &AuthorizationPolicy,
    facts: &Facts<'_>,
    request: Option<Reading<'_>>,
    observer: &mut O,
) -> bool {
    for (index, rule) in policy.rules.iter().enumerate() {
        let mut missed = |place: Place<'_>| observer.missed(index, place);
        let matched = match (request, policy.action, rule.needs_request.first()) {
            (None, Action::Allow, Some(field)) if !(facts.server.is_some() && rule.asks_of_server_alone()) => {
                missed(Place::NeedsRequest(field));
                false
            }
            _ => rule_matches(rule, &|term| holds(term, facts, request), &mut missed),
        };
        if matched {
            observer.matched(index);
            return true;
        }
    }
    false
}

fn rule_matches(rule: &Rule, holds: &dyn Fn(&Term) -> bool, missed: &mut impl FnMut(Place<'_>)) -> bool {
    one_holds(&rule.from, holds, &mut |index, term| missed(Place::From(index, term)))
        && one_holds(&rule.to, holds, &mut |index, term| missed(Place::To(index, term)))
        && all_hold(&rule.when, holds, &mut |term| missed(Place::When(term)))
}

fn one_holds(alternatives: &[Clause], holds: &dyn Fn(&Term) -> bool, missed: &mut impl FnMut(usize, &Term)) -> bool {
    let mut numbered = alternatives.iter().enumerate();
    alternatives.is_empty() || numbered.any(|(index, clause)| all_hold(clause, holds, &mut |term| missed(index, term)))
}

fn all_hold(clause: &Clause, holds: &dyn Fn(&Term) -> bool, missed: &mut impl FnMut(&Term)) -> bool {
    let failing = clause.iter().find(|term| !holds(term));
    failing.inspect(|term| missed(term)).is_none()
}

/// Whether a term holds. What is asked of a request is left out where there is none.
fn holds(term: &Term, facts: &Facts<'_>, request: Option<Reading<'_>>) -> bool {
    let tested = match (&term.test, request) {
        (Test::Request(RequestTest::Sni(patterns)), _) if let Some(server) = facts.server => patterns.matches(server),
        (Test::Request(_), None) => return true,
        (Test::Request(test), Some(reading)) => test.holds(reading),
        (test, _) => tested(test, facts),
    };
    tested != term.negated
}

fn tested(test: &Test, facts: &Facts<'_>) -> bool {
    let identity = facts.peer.identity();
    match test {
        Test::Principal(patterns) => identity.is_some_and(|id| patterns.matches(id.principal())),
        Test::Namespace(patterns) => identity.is_some_and(|id| patterns.matches(id.namespace())),
        Test::ServiceAccount(accounts) => {
            identity.is_some_and(|id| accounts.contain(id.namespace(), id.service_account()))
        }
        Test::SourceIp(blocks) => blocks.contain(facts.client),
        Test::RemoteIp(blocks) => blocks.contain(facts.remote()),
        Test::DestinationIp(blocks) => blocks.contain(facts.destination.ip()),
        Test::DestinationPort(ports) => ports.binary_search(&facts.destination.port()).is_ok(),
        Test::Request(_) => false,
    }
}
