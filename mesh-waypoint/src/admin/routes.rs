//! The rules in force, and how often each was used.

use std::{collections::HashMap, sync::Arc};

use mesh_admin::{List, RouteBackend, Selection, WaypointRoute};
use mesh_core::l7::{Action, Rule};

use super::{Admin, in_force::attached};
use crate::counts::{RuleSums, UseSum};

impl Admin {
    /// The rules in force here, in the order of their parents and their own.
    pub(super) fn routes(&self, selection: &Selection) -> List<WaypointRoute> {
        let config = self.configuration();
        let attached = attached(&config.snapshot, &self.shared.own.gateway, &self.shared.listeners.borrow());
        let mut rules: Vec<Placed<'_>> = Vec::new();
        let mut places = HashMap::new();
        for at in &attached {
            for rule in at.rules() {
                let place = *places.entry(Arc::as_ptr(rule)).or_insert_with(|| {
                    rules.push(Placed { rule, port: at.port, parents: Vec::new() });
                    rules.len() - 1
                });
                if !rules[place].parents.contains(&&*at.parent) {
                    rules[place].parents.push(&at.parent);
                }
            }
        }
        let told = |placed: Placed<'_>| placed.told(&self.shared.rules.sums(placed.rule));
        selection.take(rules.into_iter(), |placed| &placed.rule.at.namespace, config.generation, told)
    }
}

/// A rule and what it is attached to.
struct Placed<'a> {
    rule: &'a Arc<Rule>,
    port: u16,
    parents: Vec<&'a str>,
}

impl Placed<'_> {
    fn told(&self, sums: &RuleSums) -> WaypointRoute {
        let rule = self.rule;
        WaypointRoute {
            parents: self.parents.iter().map(|&parent| parent.to_owned()).collect(),
            namespace: rule.at.namespace.to_string(),
            rule: rule.at.to_string(),
            matches: rule.matches.iter().map(ToString::to_string).collect(),
            action: rule.action.in_words(),
            with: rule.beside(self.port),
            backends: self.backends(sums),
            requests: sums.whole.requests,
            errors: sums.whole.errors,
        }
    }

    fn backends(&self, sums: &RuleSums) -> Vec<RouteBackend> {
        let Action::Forward(backends) = &self.rule.action else { return Vec::new() };
        let weights: f64 = backends.iter().map(|backend| f64::from(backend.weight)).sum();
        let sent: u64 = sums.backends.iter().map(|backend| backend.requests).sum();
        let told = backends.iter().enumerate().map(|(index, backend)| {
            let UseSum { requests, errors } = sums.backends.get(index).copied().unwrap_or_default();
            RouteBackend {
                to: backend.target.at_port(self.port),
                weight: backend.weight,
                wanted_percent: if weights > 0.0 { f64::from(backend.weight) * 100.0 / weights } else { 0.0 },
                seen_percent: (sent > 0).then(|| requests as f64 * 100.0 / sent as f64),
                requests,
                errors,
            }
        });
        told.collect()
    }
}
