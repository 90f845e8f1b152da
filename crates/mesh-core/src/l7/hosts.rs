//! Hosts to what is for them.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::policy::HostPattern;

/// Places of a list by the hosts that its elements are for: a whole name counts before what names end in, and of such
/// ends the longest.
#[derive(Debug, Clone, Default)]
pub(super) struct HostIndex {
    exact: HashMap<Arc<str>, usize>,
    /// The longest first.
    suffixes: Vec<(Arc<str>, usize)>,
}

impl HostIndex {
    /// Takes the hosts of each element, in the list's order. Where two are for one host, the first has it.
    pub(super) fn build<'a>(elements: impl IntoIterator<Item = &'a [HostPattern]>) -> Self {
        let (mut exact, mut suffixes) = (HashMap::new(), Vec::new());
        for (index, hosts) in elements.into_iter().enumerate() {
            for host in hosts {
                match host {
                    HostPattern::Exact(host) => {
                        exact.entry(Arc::clone(host)).or_insert(index);
                    }
                    HostPattern::Suffix(end) => suffixes.push((Arc::clone(end), index)),
                }
            }
        }
        // Stable: among equals the first stays first.
        suffixes.sort_by_key(|(end, _)| Reverse(end.len()));
        Self { exact, suffixes }
    }

    /// The place of the element that a host belongs to.
    pub(super) fn find(&self, host: &str) -> Option<usize> {
        let by_suffix = || {
            let found = self.suffixes.iter().find(|(end, _)| host.ends_with(&**end));
            found.map(|(_, index)| *index)
        };
        self.exact.get(host).copied().or_else(by_suffix)
    }
}
