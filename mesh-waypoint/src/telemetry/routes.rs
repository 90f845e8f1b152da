//! Requests by the rule of the route that they belonged to, read from what threads count anyway: nothing is counted twice.

use mesh_core::l7::{Action, BackendTarget, Rule};
use prometheus::{
    IntCounterVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::counts::{RuleBook, RuleSums, UseSum};

/// Rules and destinations that are told apart; what comes after is told of as [`OTHERS`].
const MAX_SETS: usize = 2_000;
/// The rule of those that are too many to be told apart.
const OTHERS: &str = "others";
/// The destination of what the rule itself answered, or what failed before a destination was chosen.
const NOBODY: &str = "none";
/// Where a rule is written, and where it sent the request. `namespace` alone would be the scraped pod's.
const LABELS: [&str; 6] = ["route_kind", "route_namespace", "route", "rule", "destination", "subset"];

/// Tells of the rules that were used, since each is in force as it is.
pub(super) struct RouteMetrics {
    rules: RuleBook,
    descriptions: Vec<Desc>,
}

impl RouteMetrics {
    /// What tells of these rules.
    ///
    /// # Errors
    /// A metric's name or label is none.
    pub(super) fn of(rules: RuleBook) -> Result<Self, prometheus::Error> {
        let descriptions = series()?.iter().flat_map(|counters| counters.desc().into_iter().cloned()).collect();
        Ok(Self { rules, descriptions })
    }
}

impl Collector for RouteMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok([requests, errors]) = series() else { return Vec::new() };
        let mut sets = 0;
        self.rules.each(|rule, sums| {
            for (destination, subset, uses) in shares(rule, &sums) {
                if uses.requests == 0 {
                    continue;
                }
                sets += 1;
                let index = rule.at.index.to_string();
                let of = [
                    rule.at.kind,
                    &rule.at.namespace,
                    &rule.at.object,
                    rule.at.name.as_deref().unwrap_or(&index),
                    &destination,
                    subset,
                ];
                let of = if sets <= MAX_SETS { of } else { [OTHERS; LABELS.len()] };
                requests.with_label_values(&of).inc_by(uses.requests);
                errors.with_label_values(&of).inc_by(uses.errors);
            }
        });
        [requests, errors].iter().flat_map(Collector::collect).collect()
    }
}

/// Counters without a series: requests, and those among them that failed.
fn series() -> Result<[IntCounterVec; 2], prometheus::Error> {
    let counters = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &LABELS);
    Ok([
        counters(
            "mesh_waypoint_route_requests_total",
            "Requests by the rule that they belonged to and where it sent them",
        )?,
        counters("mesh_waypoint_route_errors_total", "Those of them that were answered with 5xx, or not at all")?,
    ])
}

/// What each of a rule's destinations got, by its name and subset, and what none of them did.
fn shares<'a>(rule: &'a Rule, sums: &RuleSums) -> Vec<(String, &'a str, UseSum)> {
    let backends: &[_] = match &rule.action {
        Action::Forward(backends) => backends,
        Action::Redirect(_) | Action::Respond(_) => &[],
    };
    let mut nobody = sums.whole;
    let mut shares: Vec<_> = backends
        .iter()
        .zip(&sums.backends)
        .map(|(backend, &uses)| {
            // A request may end between the reading of the two.
            nobody.requests = nobody.requests.saturating_sub(uses.requests);
            nobody.errors = nobody.errors.saturating_sub(uses.errors);
            let (name, subset) = named(&backend.target);
            (name, subset, uses)
        })
        .collect();
    shares.push((NOBODY.to_owned(), "", nobody));
    shares
}

fn named(target: &BackendTarget) -> (String, &str) {
    match target {
        BackendTarget::Service { hostname, port, subset } => {
            let name = port.map_or_else(|| hostname.to_string(), |port| format!("{hostname}:{port}"));
            (name, subset.as_deref().unwrap_or_default())
        }
        BackendTarget::Unresolved { .. } => (NOBODY.to_owned(), ""),
    }
}
