//! Matches of requests that an earlier rule has already: what is written there, nobody gets to see.

use std::borrow::Cow;
use std::collections::HashMap;

use mesh_core::l7::{PathMatch, RequestMatch, RuleRef};

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
        let matched = plain(matched);
        let of_all_ports = self.taken.get(&(None, matched.clone()));
        let holder = of_all_ports.or_else(|| self.taken.get(&(port, matched.clone()))).copied();
        if holder.is_none() {
            self.taken.insert((port, matched), rule);
        }
        holder.filter(|holder| *holder != rule)
    }
}

/// Whether it is about every request.
pub(super) fn is_everything(matched: &RequestMatch) -> bool {
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
