//! Rules by host and path, compiled so that the cost of finding one does not grow with the others.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use super::RequestView;
use super::hosts::HostIndex;
use super::matching::{PathMatch, RequestMatch};
use super::rule::Rule;
use crate::policy::HostPattern;

/// Which of several rules that match counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precedence {
    /// The first, as in a VirtualService.
    AsWritten,
    /// The one with the most specific match, as the Gateway API has it for HTTPRoute and GRPCRoute; among equals the
    /// first. Rules are given by the age and name of their routes.
    MostSpecific,
}

/// The rules for some hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRules {
    /// The hosts.
    pub hosts: Vec<HostPattern>,
    /// The rules.
    pub rules: Vec<Arc<Rule>>,
    /// Which of them counts.
    pub precedence: Precedence,
}

impl HostRules {
    /// Rules for whatever host a request names.
    #[must_use]
    pub fn of_any(rules: Vec<Arc<Rule>>, precedence: Precedence) -> Self {
        Self { hosts: vec![HostPattern::Suffix("".into())], rules, precedence }
    }
}

/// Rules by host. The most specific host decides alone: what none of its rules matches is not looked up elsewhere.
#[derive(Debug, Clone, Default)]
pub struct RouteTable {
    hosts: Vec<HostRules>,
    lists: Vec<Arc<RuleList>>,
    index: HostIndex,
}

impl PartialEq for RouteTable {
    fn eq(&self, other: &Self) -> bool {
        self.hosts == other.hosts
    }
}

impl Eq for RouteTable {}

/// The rule that a request belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The rule.
    pub rule: &'a Arc<Rule>,
    /// That match of the rule; none for a rule without matches.
    pub matched: Option<&'a RequestMatch>,
}

impl Found<'_> {
    /// What was matched of the path.
    #[must_use]
    pub fn path(&self) -> &PathMatch {
        self.matched.map_or(&PathMatch::Any, |matched| &matched.path)
    }
}

impl RouteTable {
    /// Compiles rules. Where two are for one host, the first has it.
    #[must_use]
    pub fn build(hosts: Vec<HostRules>) -> Self {
        let lists = hosts.iter().map(|host| Arc::new(RuleList::build(host))).collect();
        Self::of_lists(hosts, lists)
    }

    /// The same, with what `before` has compiled of the same rules: that table itself if all of them are.
    #[must_use]
    pub fn renewed(hosts: Vec<HostRules>, before: Option<&Arc<Self>>) -> Arc<Self> {
        let Some(before) = before else { return Arc::new(Self::build(hosts)) };
        if before.hosts == hosts {
            return Arc::clone(before);
        }
        let compiled = before.hosts.iter().zip(&before.lists).map(|(host, list)| (&*host.hosts, (host, list)));
        let compiled: HashMap<_, _> = compiled.collect();
        let list = |host: &HostRules| match compiled.get(&*host.hosts) {
            Some((known, list)) if *known == host => Arc::clone(list),
            _ => Arc::new(RuleList::build(host)),
        };
        let lists = hosts.iter().map(list).collect();
        Arc::new(Self::of_lists(hosts, lists))
    }

    fn of_lists(hosts: Vec<HostRules>, lists: Vec<Arc<RuleList>>) -> Self {
        let index = HostIndex::build(hosts.iter().map(|rules| &*rules.hosts));
        Self { hosts, lists, index }
    }

    /// Rules for whatever host a request names: those of one Service.
    #[must_use]
    pub fn of_any_host(rules: Vec<Arc<Rule>>, precedence: Precedence) -> Self {
        Self::build(vec![HostRules::of_any(rules, precedence)])
    }

    /// What it was built of.
    #[must_use]
    pub fn hosts(&self) -> &[HostRules] {
        &self.hosts
    }

    /// The rule that counts for a request, if there is one.
    #[must_use]
    pub fn find(&self, request: &dyn RequestView) -> Option<Found<'_>> {
        self.lists.get(self.index.find(request.host())?)?.find(request)
    }
}

/// One host's rules, the first that matches counts.
#[derive(Debug, Clone, Default)]
struct RuleList {
    entries: Vec<Entry>,
    /// Places of entries by their path, ascending.
    exact: HashMap<Arc<str>, Vec<usize>>,
    prefixes: HashMap<Arc<str>, Vec<usize>>,
    /// The distinct lengths of the prefixes, ascending.
    prefix_lengths: Vec<usize>,
    others: Vec<usize>,
}

#[derive(Debug, Clone)]
struct Entry {
    rule: Arc<Rule>,
    /// The place among the rule's matches.
    matched: Option<usize>,
}

impl Entry {
    fn request_match(&self) -> Option<&RequestMatch> {
        self.rule.matches.get(self.matched?)
    }

    fn path(&self) -> &PathMatch {
        self.request_match().map_or(&PathMatch::Any, |matched| &matched.path)
    }

    /// The rank of the Gateway API, for ascending order (HTTPRouteRule, `matches`).
    fn specificity(&self) -> impl Ord + use<> {
        let (kind, length) = match self.path() {
            PathMatch::Exact(path) | PathMatch::ExactIgnoringCase(path) => (0, path.len()),
            PathMatch::ElementPrefix(path) | PathMatch::Prefix(path) | PathMatch::PrefixIgnoringCase(path) => {
                (1, path.len())
            }
            // What is said of no path is said of the prefix `/`.
            PathMatch::Any => (1, 1),
            PathMatch::Regex(regex) => (2, regex.as_str().len()),
        };
        let matched = self.request_match();
        let method = matched.is_some_and(|matched| matched.method.is_some());
        let headers = matched.map_or(0, |matched| matched.headers.len());
        let query = matched.map_or(0, |matched| matched.query.len());
        (kind, Reverse(length), !method, Reverse(headers), Reverse(query))
    }
}

impl RuleList {
    fn build(host: &HostRules) -> Self {
        let of_rule = |rule: &Arc<Rule>| {
            let count = rule.matches.len();
            let places = if count == 0 { vec![None] } else { (0..count).map(Some).collect() };
            let rule = Arc::clone(rule);
            places.into_iter().map(move |matched| Entry { rule: Arc::clone(&rule), matched })
        };
        let mut entries: Vec<Entry> = host.rules.iter().flat_map(of_rule).collect();
        if host.precedence == Precedence::MostSpecific {
            entries.sort_by_cached_key(Entry::specificity);
        }
        let mut list = Self::default();
        for (place, entry) in entries.iter().enumerate() {
            match entry.path() {
                PathMatch::Exact(path) => list.exact.entry(Arc::clone(path)).or_default().push(place),
                PathMatch::ElementPrefix(prefix) | PathMatch::Prefix(prefix) => {
                    list.prefixes.entry(Arc::clone(prefix)).or_default().push(place);
                }
                _ => list.others.push(place),
            }
        }
        list.prefix_lengths = list.prefixes.keys().map(|prefix| prefix.len()).collect();
        list.prefix_lengths.sort_unstable();
        list.prefix_lengths.dedup();
        list.entries = entries;
        list
    }

    fn find(&self, request: &dyn RequestView) -> Option<Found<'_>> {
        let path = request.path();
        let mut best = self.first(self.exact.get(path), None, request);
        for length in &self.prefix_lengths {
            if *length > path.len() {
                break;
            }
            let places = path.get(..*length).and_then(|prefix| self.prefixes.get(prefix));
            best = self.first(places, best, request);
        }
        best = self.first(Some(&self.others), best, request);
        let entry = self.entries.get(best?)?;
        Some(Found { rule: &entry.rule, matched: entry.request_match() })
    }

    /// The first of `places`, which comes before `best`, whose entry matches; else `best`.
    fn first(&self, places: Option<&Vec<usize>>, best: Option<usize>, request: &dyn RequestView) -> Option<usize> {
        let earlier = places.into_iter().flatten().copied().take_while(|place| best.is_none_or(|best| *place < best));
        let matches = |place: &usize| {
            let entry = self.entries.get(*place);
            entry.is_some_and(|entry| entry.request_match().is_none_or(|matched| matched.matches(request)))
        };
        earlier.into_iter().find(matches).or(best)
    }
}
