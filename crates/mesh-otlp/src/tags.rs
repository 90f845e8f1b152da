//! Attributes that somebody asked for.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::telemetry::Tag;

/// What tags come to, without those of which neither the source nor another text is there. `header` knows the request's, where there is
/// one.
pub fn tag_values(
    tags: Option<&BTreeMap<Arc<str>, Tag>>,
    header: impl Fn(&str) -> Option<String>,
) -> Vec<(Arc<str>, String)> {
    let all = tags.into_iter().flatten();
    all.filter_map(|(name, tag)| Some((name.clone(), value(tag, &header)?))).collect()
}

fn value(tag: &Tag, header: impl Fn(&str) -> Option<String>) -> Option<String> {
    let (found, otherwise) = match tag {
        Tag::Literal(text) => return Some(text.to_string()),
        Tag::Header(name, otherwise) => (header(name), otherwise),
        Tag::Environment(name, otherwise) => (std::env::var(&**name).ok(), otherwise),
    };
    found.or_else(|| otherwise.as_deref().map(str::to_owned))
}
