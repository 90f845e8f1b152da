//! How often each rule was used, and each of its backends.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use mesh_core::l7::{Action, Rule, RuleRef};
use mesh_core::lock::UnpoisonedMutex as _;

use super::OwnCount;

/// Rules that one thread keeps in mind; where there are more it begins anew.
const MAX_KEPT: usize = 4_096;

/// Requests and how many of them failed.
#[derive(Debug, Default)]
struct Uses {
    requests: OwnCount,
    errors: OwnCount,
}

impl Uses {
    fn count(&self, failed: bool) {
        self.requests.inc();
        if failed {
            self.errors.inc();
        }
    }
}

/// A rule's uses on one thread.
#[derive(Debug)]
struct OnThread {
    whole: Uses,
    backends: Box<[Uses]>,
}

/// A rule's uses on all threads, since it is in force as it is.
#[derive(Debug)]
struct RuleUses {
    rule: Arc<Rule>,
    threads: HashMap<usize, Arc<OnThread>>,
}

/// Requests, and how many of them failed, over all threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UseSum {
    pub(crate) requests: u64,
    pub(crate) errors: u64,
}

impl UseSum {
    fn add(&mut self, uses: &Uses) {
        // Errors first: whatever ends meanwhile, they are never more than the requests.
        self.errors += uses.errors.get();
        self.requests += uses.requests.get();
    }
}

/// What became of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RuleSums {
    pub(crate) whole: UseSum,
    /// Of each backend, in the rule's order.
    pub(crate) backends: Vec<UseSum>,
}

/// The rules that were used. An object may have several rules by one name in force, for a Service and for a gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct RuleBook(Arc<Mutex<HashMap<RuleRef, Vec<RuleUses>>>>);

impl RuleBook {
    /// What a thread counts a rule with. What is the same rule as before counts on.
    fn of(&self, rule: &Arc<Rule>, thread: usize) -> Arc<OnThread> {
        let mut rules = self.0.lock_unpoisoned();
        let same_name = rules.entry(rule.at.clone()).or_default();
        let known = same_name.iter().position(|known| is_same(&known.rule, rule));
        let index = known.unwrap_or_else(|| {
            same_name.push(RuleUses { rule: rule.clone(), threads: HashMap::new() });
            same_name.len() - 1
        });
        let backends = match &rule.action {
            Action::Forward(backends) => backends.len(),
            Action::Redirect(_) | Action::Respond(_) => 0,
        };
        let new = || {
            let backends = (0..backends).map(|_| Uses::default()).collect();
            Arc::new(OnThread { whole: Uses::default(), backends })
        };
        same_name[index].threads.entry(thread).or_insert_with(new).clone()
    }

    /// Forgets rules that are not among those in force.
    pub(crate) fn keep<'a>(&self, in_force: impl Iterator<Item = &'a Arc<Rule>>) {
        let mut rules = self.0.lock_unpoisoned();
        let mut kept: HashMap<RuleRef, Vec<RuleUses>> = HashMap::new();
        for rule in in_force {
            let Some(same_name) = rules.get_mut(&rule.at) else { continue };
            if let Some(index) = same_name.iter().position(|known| is_same(&known.rule, rule)) {
                kept.entry(rule.at.clone()).or_default().push(same_name.swap_remove(index));
            }
        }
        *rules = kept;
    }

    /// What became of a rule.
    pub(crate) fn sums(&self, rule: &Arc<Rule>) -> RuleSums {
        let rules = self.0.lock_unpoisoned();
        let counted = rules.get(&rule.at).and_then(|known| known.iter().find(|known| is_same(&known.rule, rule)));
        counted.map(RuleUses::sums).unwrap_or_default()
    }

    /// Tells of every rule that was used.
    pub(crate) fn each(&self, mut tell: impl FnMut(&Rule, RuleSums)) {
        let rules = self.0.lock_unpoisoned();
        for counted in rules.values().flatten() {
            tell(&counted.rule, counted.sums());
        }
    }
}

impl RuleUses {
    fn sums(&self) -> RuleSums {
        let mut sums = RuleSums::default();
        for thread in self.threads.values() {
            sums.whole.add(&thread.whole);
            sums.backends.resize(thread.backends.len(), UseSum::default());
            for (sum, uses) in sums.backends.iter_mut().zip(&thread.backends) {
                sum.add(uses);
            }
        }
        sums
    }
}

fn is_same(one: &Arc<Rule>, other: &Arc<Rule>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// A rule's place in memory, which what is weak keeps from being another's, and its uses.
type Kept = (Weak<Rule>, Arc<OnThread>);

/// The rules that one thread has used, found without a lock.
pub(crate) struct RuleTally {
    thread: usize,
    known: RefCell<HashMap<usize, Kept>>,
}

impl RuleTally {
    /// That of the thread with this number.
    pub(crate) fn new(thread: usize) -> Self {
        Self { thread, known: RefCell::default() }
    }

    /// A request that belonged to a rule has ended; `backend` is where it was sent, by its place.
    pub(crate) fn count(&self, book: &RuleBook, rule: &Arc<Rule>, backend: Option<usize>, failed: bool) {
        let mut known = self.known.borrow_mut();
        let place = Arc::as_ptr(rule).addr();
        if known.len() >= MAX_KEPT && !known.contains_key(&place) {
            known.clear();
        }
        let (_, counts) = known.entry(place).or_insert_with(|| (Arc::downgrade(rule), book.of(rule, self.thread)));
        counts.whole.count(failed);
        if let Some(uses) = backend.and_then(|backend| counts.backends.get(backend)) {
            uses.count(failed);
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_core::l7::{
        Backend, BackendTarget, Fault, HeaderEdits, Timeouts,
        rule::{DirectResponse, Rewrite},
    };

    use super::*;

    fn rule(action: Action) -> Arc<Rule> {
        let at = RuleRef { kind: "HTTPRoute", namespace: "shop".into(), object: "cart".into(), index: 0, name: None };
        Arc::new(Rule {
            at,
            matches: Vec::new(),
            action,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            rewrite: Rewrite::default(),
            mirrors: Vec::new(),
            fault: Fault::default(),
            retry: None,
            timeouts: Timeouts::default(),
            cors: None,
            session: None,
        })
    }

    fn to(hostname: &str) -> Backend {
        Backend {
            target: BackendTarget::Service { hostname: hostname.into(), port: None, subset: None },
            weight: 1,
            request_headers: HeaderEdits::default(),
            response_headers: HeaderEdits::default(),
            rewrite: Rewrite::default(),
        }
    }

    #[test]
    fn threads_count_alone_and_are_added_up() {
        let (book, rule) = (RuleBook::default(), rule(Action::Forward(vec![to("a"), to("b")])));
        let threads = [RuleTally::new(0), RuleTally::new(1)];
        for (thread, backend, failed) in [(0, Some(0), false), (0, Some(1), true), (1, Some(1), false), (1, None, true)]
        {
            threads[thread].count(&book, &rule, backend, failed);
        }
        let sum = |requests, errors| UseSum { requests, errors };
        let sums = RuleSums { whole: sum(4, 2), backends: vec![sum(1, 0), sum(2, 1)] };
        assert_eq!(book.sums(&rule), sums);

        // The same rule, read anew.
        let again = Arc::new(Rule::clone(&rule));
        book.keep([&again].into_iter());
        threads[0].count(&book, &again, Some(0), false);
        assert_eq!(book.sums(&again).whole, sum(5, 2));
    }

    #[test]
    fn a_rule_that_has_changed_begins_at_nothing() {
        let (book, thread) = (RuleBook::default(), RuleTally::new(0));
        let answers = |status| rule(Action::Respond(DirectResponse { status, body: None }));
        let (before, after) = (answers(200), answers(404));
        thread.count(&book, &before, None, false);
        book.keep([&after].into_iter());
        assert_eq!(book.sums(&after), RuleSums::default());
        thread.count(&book, &after, None, false);
        assert_eq!(book.sums(&after).whole.requests, 1);
        assert_eq!(book.sums(&before), RuleSums::default(), "it is forgotten");
    }
}
