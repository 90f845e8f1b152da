//! Which hosts a listener and a route have in common.

use mesh_core::policy::HostPattern;

/// The hosts of both, each the narrower of two that overlap; none where they have none in common. Who names none is for all.
pub(super) fn common(listener: &[HostPattern], route: &[HostPattern]) -> Option<Vec<HostPattern>> {
    let mut found: Vec<HostPattern> = Vec::new();
    for (ours, theirs) in listener.iter().flat_map(|ours| route.iter().map(move |theirs| (ours, theirs))) {
        let narrower = if covers(ours, theirs) {
            theirs
        } else if covers(theirs, ours) {
            ours
        } else {
            continue;
        };
        if !found.contains(narrower) {
            found.push(narrower.clone());
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Whether every host of `inner` is one of `outer`.
fn covers(outer: &HostPattern, inner: &HostPattern) -> bool {
    match (outer, inner) {
        (HostPattern::Exact(outer), HostPattern::Exact(inner)) => outer == inner,
        (HostPattern::Exact(_), HostPattern::Suffix(_)) => false,
        (HostPattern::Suffix(end), HostPattern::Exact(inner) | HostPattern::Suffix(inner)) => inner.ends_with(&**end),
    }
}

/// A host as it is written: `*` for all, `*.` before what hosts end in.
pub(in crate::translate) fn pattern(written: &str) -> HostPattern {
    match written.strip_prefix('*') {
        Some(end) => HostPattern::Suffix(end.into()),
        None => HostPattern::Exact(written.into()),
    }
}

/// Hosts as they are written; none stands for all.
pub(super) fn patterns<'a>(written: impl IntoIterator<Item = &'a String>) -> Vec<HostPattern> {
    let patterns: Vec<_> = written.into_iter().map(|host| pattern(host)).collect();
    if patterns.is_empty() { vec![pattern("*")] } else { patterns }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrower_of_two_hosts_counts() {
        for (listener, route, expected) in [
            ("*", "a.example.com", Some("a.example.com")),
            ("a.example.com", "*", Some("a.example.com")),
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "*.a.example.com", Some("*.a.example.com")),
            ("a.example.com", "*.example.com", Some("a.example.com")),
            ("*.example.com", "example.com", None),
            ("a.example.com", "b.example.com", None),
            ("*", "*", Some("*")),
        ] {
            let expected = expected.map(|host| vec![pattern(host)]);
            assert_eq!(common(&[pattern(listener)], &[pattern(route)]), expected, "{listener} and {route}");
        }
    }
}
