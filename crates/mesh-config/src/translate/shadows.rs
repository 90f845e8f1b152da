//! Matches of requests that an earlier rule has already: what is written there, nobody gets to see.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use mesh_core::l7::{PathMatch, RequestMatch, Rule, RuleRef};

/// Who has which match, in the order in which rules count.
#[derive(Debug, Default)]
pub(super) struct Matches<'a> {
    taken: HashMap<(Option<u16>, Cow<'a, RequestMatch>), &'a RuleRef>,
}

impl<'a> Matches<'a> {
    /// Takes a match for a rule, at one port or at all; the rule that has it already, where another one does.
    pub(super) fn take(
        &mut self,
        port: Option<u16>,
        matched: &'a RequestMatch,
        rule: &'a RuleRef,
    ) -> Option<&'a RuleRef> {
        let mut place = (None, plain(matched));
        let of_all_ports = port.and_then(|_| self.taken.get(&place)).copied();
        place.0 = port;
        let holder = of_all_ports.unwrap_or_else(|| self.taken.entry(place).or_insert(rule));
        (holder != rule).then_some(holder)
    }
}

/// Which of some rules, of which the first that matches counts, get no request, and who has the last of what they match.
pub(super) fn shadowed<'a>(rules: impl Iterator<Item = &'a Arc<Rule>>) -> Vec<(&'a RuleRef, &'a RuleRef)> {
    let (mut matches, mut whole, mut found) = (Matches::default(), None, Vec::new());
    for rule in rules {
        let holder = match whole {
            Some(holder) => Some(holder),
            None if rule.matches.is_empty() => None,
            None => {
                // Every match is taken, whether or not those before it were free.
                let holders: Vec<_> =
                    rule.matches.iter().map(|matched| matches.take(None, matched, &rule.at)).collect();
                holders.into_iter().collect::<Option<Vec<_>>>().and_then(|holders| holders.last().copied())
            }
        };
        if let Some(holder) = holder {
            found.push((&rule.at, holder));
        } else if rule.matches.is_empty() || rule.matches.iter().any(is_everything) {
            whole = Some(&rule.at);
        }
    }
    found
}

/// Whether it is about every request.
fn is_everything(matched: &RequestMatch) -> bool {
    *plain(matched) == RequestMatch::default()
}

/// A match with one way to say that every path will do.
fn plain(matched: &RequestMatch) -> Cow<'_, RequestMatch> {
    match &matched.path {
        PathMatch::ElementPrefix(prefix) | PathMatch::Prefix(prefix) | PathMatch::PrefixIgnoringCase(prefix)
            if **prefix == *"/" =>
        {
            Cow::Owned(RequestMatch { path: PathMatch::Any, ..matched.clone() })
        }
        _ => Cow::Borrowed(matched),
    }
}
