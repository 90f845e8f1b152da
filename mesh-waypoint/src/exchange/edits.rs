//! Changes to headers and paths that rules ask for.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::HOST,
    uri::{Authority, PathAndQuery},
};
use mesh_core::l7::{
    FieldValue, HeaderEdits, PathMatch, RequestView as _, cors, field_value::Operator, rule::PathRewrite,
};

use super::{
    filling::About,
    head::Head,
    ledger::Ledger,
    reply::{Flag, Refusal},
};

/// A field and its value; none where nothing was there to fill in.
type Field = (HeaderName, Option<HeaderValue>);

/// Changes a header by edits into which nothing is filled in.
pub(super) fn apply_as_written(edits: &HeaderEdits, headers: &mut HeaderMap) {
    remove(edits, headers);
    write(fields(edits, &|_, _| {}), headers);
}

/// Changes a request's header, where the field Host says whom it asks.
pub(super) fn apply_to_request(edits: &HeaderEdits, head: &mut Head, ledger: &Ledger) {
    if edits.is_empty() {
        return;
    }
    remove(edits, &mut head.parts.headers);
    let about = About { head, ledger, response: None };
    let (set, add) = fields(edits, &|operator, text| about.fill(operator, text));
    let host = set.iter().find(|(name, _)| *name == HOST).and_then(|(_, value)| value.as_ref());
    if let Some(authority) = host.and_then(|value| Authority::try_from(value.as_bytes()).ok()) {
        head.authority = authority;
    }
    write((set, add), &mut head.parts.headers);
}

/// Changes the header of the response to a request.
pub(super) fn apply_to_response(
    edits: &HeaderEdits,
    (status, headers): (StatusCode, &mut HeaderMap),
    head: &Head,
    ledger: &Ledger,
) {
    if edits.is_empty() {
        return;
    }
    remove(edits, headers);
    let about = About { head, ledger, response: Some((status, headers)) };
    let fields = fields(edits, &|operator, text| about.fill(operator, text));
    write(fields, headers);
}

fn remove(edits: &HeaderEdits, headers: &mut HeaderMap) {
    for name in &edits.remove {
        headers.remove(&**name);
    }
}

/// Fields to set and to add. Names and values were checked where the rule was read; of what is filled in, each value is checked here.
fn fields(edits: &HeaderEdits, fill: &dyn Fn(&Operator, &mut String)) -> (Vec<Field>, Vec<Field>) {
    let read = |(name, value): &(Arc<str>, FieldValue)| {
        let name = HeaderName::try_from(&**name).ok()?;
        let text = value.text(fill);
        let is_there = !text.is_empty() || matches!(value, FieldValue::Text(_));
        Some((name, HeaderValue::try_from(&*text).ok().filter(|_| is_there)))
    };
    (edits.set.iter().filter_map(read).collect(), edits.add.iter().filter_map(read).collect())
}

fn write((set, add): (Vec<Field>, Vec<Field>), headers: &mut HeaderMap) {
    for (name, value) in set {
        match value {
            Some(value) => drop(headers.insert(name, value)),
            // What somebody else has put there is not what was to be there.
            None => drop(headers.remove(name)),
        }
    }
    for (name, value) in add {
        if let Some(value) = value {
            headers.append(name, value);
        }
    }
}

/// Sets fields that we make ourselves.
pub(super) fn set(fields: &[cors::Field], headers: &mut HeaderMap) {
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
