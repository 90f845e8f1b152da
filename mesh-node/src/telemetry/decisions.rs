//! What policies decided, for metrics and the log.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex},
};

use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::{
    PolicyName,
    policy::{Authorization, Basis, Denial, Permit},
};
use prometheus::IntCounterVec;

use super::Report;

/// Policies that get series of their own; the rest are counted together, so that a mesh of many policies does not fill
/// the memory of whoever scrapes.
const MAX_POLICIES: usize = 1000;
/// The label of all policies beyond [`MAX_POLICIES`].
const OTHERS: &str = "other";

/// The policy that decided on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decider {
    /// An AuthorizationPolicy.
    Authorization(Arc<PolicyName>),
    /// A PeerAuthentication.
    PeerAuthentication(Arc<PolicyName>),
    /// A DestinationRule.
    DestinationRule(Arc<PolicyName>),
}

impl Decider {
    /// The policy behind a verdict, if one alone decided.
    #[must_use]
    pub fn of(verdict: &Result<Permit, Denial>) -> Option<Self> {
        match verdict {
            Ok(permit) => Self::of_basis(permit.basis()),
            Err(denial) => Self::of_denial(denial),
        }
    }

    fn of_basis(basis: &Basis) -> Option<Self> {
        match basis {
            Basis::NoAllowPolicy => None,
            Basis::AllowedBy(name) => Some(Self::Authorization(name.clone())),
        }
    }

    fn of_denial(denial: &Denial) -> Option<Self> {
        match denial {
            Denial::PlaintextUnderStrict(mode) => mode.policy.clone().map(Self::PeerAuthentication),
            Denial::Custom(name) | Denial::DeniedBy(name) => Some(Self::Authorization(name.clone())),
            Denial::PastWaypoint(_) => None,
            // Any of them could have allowed it; the first stands for them all.
            Denial::NoAllowMatches { first, .. } => Some(Self::Authorization(first.clone())),
        }
    }
}

impl fmt::Display for Decider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authorization(name) => write!(f, "AuthorizationPolicy {name}"),
            Self::PeerAuthentication(name) => write!(f, "PeerAuthentication {name}"),
            Self::DestinationRule(name) => write!(f, "DestinationRule {name}"),
        }
    }
}

/// Counts decisions by policy and result: `denied`, `audited`, and for dry run `would_allow` and `would_deny`.
pub(super) struct Decisions {
    counter: IntCounterVec,
    /// The policies with series of their own.
    known: Mutex<HashSet<String>>,
}

impl Decisions {
    /// Labels: the policy and the result.
    pub(super) const LABELS: [&'static str; 2] = ["policy", "result"];

    pub(super) fn new(counter: IntCounterVec) -> Self {
        Self { counter, known: Mutex::default() }
    }

    /// Counts what was decided, and logs what changes nothing: dry run and AUDIT.
    pub(super) fn judged(&self, report: &Report, authorization: &Authorization) {
        if let Err(denial) = &authorization.verdict {
            self.count(Decider::of_denial(denial).as_ref(), "denied");
        }
        for name in &authorization.audited {
            let policy = Decider::Authorization(name.clone());
            self.count(Some(&policy), "audited");
            log(report, &policy.to_string(), "audited", "a policy of action AUDIT matches");
        }
        let Some(shadow) = &authorization.shadow else {
            return;
        };
        let (decider, result, why) = match &shadow.verdict {
            Ok(basis) => (Decider::of_basis(basis), "would_allow", "the policies in dry run would allow it".to_owned()),
            Err(denial) => (Decider::of_denial(denial), "would_deny", denial.to_string()),
        };
        self.count(decider.as_ref(), result);
        let policy = decider.map_or_else(|| "-".to_owned(), |decider| decider.to_string());
        log(report, &policy, result, &why);
    }

    fn count(&self, policy: Option<&Decider>, result: &str) {
        let policy = policy.map_or_else(|| "-".to_owned(), ToString::to_string);
        // A panic elsewhere leaves a set as good as it was.
        let mut known = self.known.lock_unpoisoned();
        if known.len() < MAX_POLICIES {
            known.insert(policy.clone());
        }
        let policy = if known.contains(&policy) { policy.as_str() } else { OTHERS };
        self.counter.with_label_values(&[policy, result]).inc();
    }
}

fn log(report: &Report, policy: &str, result: &str, why: &str) {
    tracing::info!(
        target: "policy",
        policy,
        result,
        source = report.source.address.map(|address| address.to_string()),
        source_principal = report.source.principal.as_ref().map(|id| id.as_str()),
        destination = report.destination.address.map(|address| address.to_string()),
        why,
        "policy"
    );
}
