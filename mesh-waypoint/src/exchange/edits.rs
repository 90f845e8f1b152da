//! Changes to headers and paths that rules ask for.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    uri::{Authority, PathAndQuery},
};
use mesh_core::l7::{HeaderEdits, PathMatch, RequestView as _, cors::Field, rule::PathRewrite};

use super::{
    head::Head,
    reply::{Flag, Refusal},
};

/// Changes a header. Names and values were checked where the rule was read.
pub(super) fn apply(edits: &HeaderEdits, headers: &mut HeaderMap) {
    for name in &edits.remove {
        headers.remove(&**name);
    }
    let fields = |fields: &[(std::sync::Arc<str>, std::sync::Arc<str>)]| {
        let parsed = fields.iter().filter_map(|(name, value)| {
            Some((HeaderName::try_from(&**name).ok()?, HeaderValue::try_from(&**value).ok()?))
        });
        parsed.collect::<Vec<_>>()
    };
    for (name, value) in fields(&edits.set) {
        headers.insert(name, value);
    }
    for (name, value) in fields(&edits.add) {
        headers.append(name, value);
    }
}

/// The same of a request, where the field Host says whom it asks.
pub(super) fn apply_to_request(edits: &HeaderEdits, head: &mut Head) {
    if edits.is_empty() {
        return;
    }
    apply(edits, &mut head.parts.headers);
    let host = edits.set.iter().find(|(name, _)| **name == *"host");
    if let Some(authority) = host.and_then(|(_, value)| Authority::try_from(&**value).ok()) {
        head.authority = authority;
    }
}

/// Sets fields that we make ourselves.
pub(super) fn set(fields: &[Field], headers: &mut HeaderMap) {
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::try_from(value.as_str()) {
            headers.insert(*name, value);
        }
    }
}

/// Makes a request ask for another host or path. The query stays.
pub(super) fn rewrite(
    head: &mut Head,
    authority: Option<&str>,
    path: Option<&PathRewrite>,
    matched: &PathMatch,
) -> Result<(), Refusal> {
    if let Some(authority) = authority {
        head.authority = Authority::try_from(authority)
            .map_err(|_| Refusal::new(500, "the rule's host is no authority", Flag::NoRoute))?;
    }
    if let Some(path) = path {
        let rewritten = path.apply(head.path(), matched);
        let whole = match head.query() {
            Some(query) => format!("{rewritten}?{query}"),
            None => rewritten,
        };
        head.target = PathAndQuery::try_from(whole)
            .map_err(|_| Refusal::new(500, "the rule rewrites the path to none", Flag::NoRoute))?;
    }
    Ok(())
}
