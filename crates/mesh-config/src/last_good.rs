//! A file's text to its objects, with the last good version in the place of what broke.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::code::Code;
use crate::document::{Document, Format, documents, first_line, without_mark};
use crate::finding::{Finding, ObjectName, Origin};
use crate::istio::stand_in_of_text;
use crate::known_texts::{Known, Texts, digest_of};
use crate::limits::Limits;
use crate::list_text::ListText;
use crate::object::{Entry, ObjectId};
use crate::reading::{Broken, ListHeader, Reading, read, read_directly};
use crate::served::{Source, told_by_name};

/// What a file says: its objects in force and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Contents {
    pub(crate) entries: Vec<Entry>,
    pub(crate) findings: Vec<Finding>,
    /// The texts that were read to one entry each and to nothing else, where there are several.
    pub(crate) texts: Texts,
}

/// A file as read, before the last good version is looked at.
#[derive(Debug, Default)]
struct Parsed {
    contents: Contents,
    /// The names of broken objects, as far as they can be told, each with what others are told of it, if they are.
    broken: HashMap<ObjectName, Option<Arc<str>>>,
    /// Where something is broken that cannot be named.
    unnamed: Option<Origin>,
    /// What is in force in the place of broken objects of which there is no good version.
    stand_ins: Vec<Entry>,
}

impl Contents {
    /// Reads a file's text. Of `previous`, what the file said before, stays in force:
    /// - the object that a broken document names;
    /// - where a broken document cannot be named, every object that the file no longer says.
    ///
    /// Where there is no good version of a broken policy, the strictest that it can have meant is in force.
    pub(crate) fn update(previous: &Self, file: &Arc<Path>, text: &str, format: Format, limits: &Limits) -> Self {
        let known = previous.texts.of(&previous.entries);
        let list = (format == Format::Json).then(|| Parsed::of_list(&known, file, text, limits)).flatten();
        let mut parsed = list.unwrap_or_else(|| Parsed::of_documents(&known, file, text, format, limits));
        parsed.keep_last_good(previous);
        parsed.contents
    }

    /// Takes one object as a cluster's API server tells of it, in the place of `previous`. Nothing else of it counts.
    pub(crate) fn of_object(previous: &Self, value: Value, source: &Arc<Origin>, limits: &Limits) -> Self {
        let mut parsed = Parsed::default();
        parsed.add_value(value, source, limits);
        parsed.keep_last_good(previous);
        parsed.contents
    }

    /// Takes the text of one object of that name, where nothing is wrong with it and it can be read at once.
    pub(crate) fn of_text(name: &ObjectName, text: &str, source: &Arc<Origin>) -> Option<Self> {
        Some(Self { entries: vec![read_directly(name, text, source)?], ..Self::default() })
    }

    /// The file cannot be read: everything that it said stays in force.
    pub(crate) fn unreadable(previous: &Self, finding: Finding) -> Self {
        let mut parsed = Parsed { unnamed: Some(finding.origin.clone()), ..Parsed::default() };
        parsed.contents.findings.push(finding);
        parsed.keep_last_good(previous);
        parsed.contents
    }
}

impl Parsed {
    fn of_documents(known: &Known<'_>, file: &Arc<Path>, text: &str, format: Format, limits: &Limits) -> Self {
        let mut parsed = Self::default();
        for document in documents(text, format) {
            if parsed.contents.entries.len() + parsed.broken.len() >= limits.documents {
                parsed.stop_at_limit(file, limits);
                break;
            }
            let origin =
                Origin { document: Some(document.index), line: Some(document.line), ..Origin::file(Arc::clone(file)) };
            let digest = digest_of(document.text);
            if !parsed.take_known(known, digest, &origin) {
                let before = parsed.counts();
                parsed.add_document(document, origin, limits);
                parsed.note_text(digest, before, None);
            }
        }
        parsed
    }

    /// Reads a file that is one list in JSON item by item, and of them those alone that are not known. None where it is anything
    /// else, of too many items, or no JSON in one of them: reading it as a whole tells.
    fn of_list(known: &Known<'_>, file: &Arc<Path>, text: &str, limits: &Limits) -> Option<Self> {
        let text = without_mark(text);
        let list = ListText::of(text)?;
        let header = ListHeader::of_list(&list.header)?;
        let place = Origin { document: Some(1), line: Some(first_line(text, 0)), ..Origin::file(Arc::clone(file)) };
        let mut parsed = Self::default();
        for (index, item) in list.items.into_iter().enumerate() {
            if parsed.contents.entries.len() >= limits.documents {
                return None;
            }
            let origin = Origin { item: Some(index), ..place.clone() };
            let digest = digest_of((&header, item));
            if !parsed.take_known(known, digest, &origin) {
                let mut value = serde_json::from_str(item).ok()?;
                header.complete(&mut value);
                let before = parsed.counts();
                parsed.add_value(value, &Arc::new(origin), limits);
                parsed.note_text(digest, before, Some(index));
            }
        }
        Some(parsed)
    }

    /// Takes what a text was read to before, if that is known.
    fn take_known(&mut self, known: &Known<'_>, digest: u64, origin: &Origin) -> bool {
        let Some(entry) = known.entry(digest, origin) else { return false };
        self.contents.texts.note(digest, self.contents.entries.len());
        self.contents.entries.push(entry);
        true
    }

    /// How much there is of everything.
    fn counts(&self) -> [usize; 3] {
        [self.contents.entries.len(), self.contents.findings.len(), self.stand_ins.len()]
    }

    /// Notes what a text was read to, if that is one entry and nothing else.
    fn note_text(&mut self, digest: u64, [entries, findings, stand_ins]: [usize; 3], item: Option<usize>) {
        let is_one = self.counts() == [entries + 1, findings, stand_ins];
        if is_one && self.contents.entries.last().is_some_and(|entry| entry.origin.item == item) {
            self.contents.texts.note(digest, entries);
        }
    }

    fn add_document(&mut self, document: Document<'_>, mut origin: Origin, limits: &Limits) {
        let text = document.text;
        match document.value(limits) {
            Ok(value) => self.add_value(value, &Arc::new(origin), limits),
            Err(broken) => {
                origin.object = name_in_text(text);
                if let Some((line, column)) = broken.place {
                    (origin.line, origin.column) = (Some(line), Some(column));
                }
                if let Some(name) = &origin.object
                    && let Some((object, effect)) = stand_in_of_text(name)
                {
                    let told = limits.served.then(|| told_by_name(name)).flatten();
                    self.stand_ins.push(Entry::in_place_of(name, &origin, object, effect).told_as(told));
                }
                self.add_broken(Finding::new(Code::Syntax, origin, broken.message), None);
            }
        }
    }

    fn add_value(&mut self, value: Value, origin: &Arc<Origin>, limits: &Limits) {
        match read(value, origin, limits) {
            Reading::Object(entry) => self.contents.entries.push(*entry),
            Reading::Nothing(finding) => self.contents.findings.extend(finding.map(|f| *f)),
            Reading::Broken(broken) => {
                let Broken { finding, stand_in, told } = *broken;
                self.stand_ins.extend(stand_in);
                self.add_broken(finding, told);
            }
            Reading::List(_) if origin.item.is_some() => {
                let finding = Finding::new(Code::WrongField, (**origin).clone(), "a list stands in a list");
                self.contents.findings.push(finding.at("kind"));
            }
            Reading::List(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    if self.contents.entries.len() >= limits.documents {
                        return self.stop_at_limit(&origin.file, limits);
                    }
                    let of_item = Origin { item: Some(index), ..(**origin).clone() };
                    self.add_value(item, &Arc::new(of_item), limits);
                }
            }
        }
    }

    fn add_broken(&mut self, finding: Finding, told: Option<Arc<str>>) {
        match &finding.origin.object {
            Some(name) => {
                self.broken.insert(name.clone(), told);
            }
            None => self.unnamed = Some(finding.origin.clone()),
        }
        self.contents.findings.push(finding);
    }

    fn stop_at_limit(&mut self, file: &Arc<Path>, limits: &Limits) {
        let origin = Origin::file(Arc::clone(file));
        self.unnamed = Some(origin.clone());
        let message = format!("more than {} objects; the rest is not read", limits.documents);
        self.contents.findings.push(Finding::new(Code::TooManyDocuments, origin, message));
    }

    fn keep_last_good(&mut self, previous: &Contents) {
        let said: HashSet<&ObjectId> = self.contents.entries.iter().map(|e| &e.id).collect();
        let gone = |entry: &&Entry| !said.contains(&entry.id) && entry.stands_in.is_none();
        let mut kept: Vec<Entry> = previous.entries.iter().filter(gone).cloned().collect();
        let is_broken = |entry: &Entry| self.broken.contains_key(&entry.name());
        if self.unnamed.is_none() {
            kept.retain(is_broken);
        }
        for entry in &mut kept {
            entry.kept = true;
            let refused = self.broken.get(&entry.name()).cloned().flatten();
            entry.source = entry.source.take().map(|source| Source { object: source.object.clone(), refused }.into());
        }
        let (named, unnamed): (Vec<_>, Vec<_>) = kept.iter().partition(|entry| is_broken(entry));
        let findings = &mut self.contents.findings;
        for entry in named {
            let name = entry.name();
            let mut at = findings.iter().map(|finding| &finding.origin);
            let origin = at.find(|origin| origin.object.as_ref() == Some(&name));
            let origin = origin.cloned().unwrap_or_else(|| entry.named_origin());
            let message = "the object is in force as it last was";
            findings.push(Finding::new(Code::LastGood, origin, message));
        }
        if let (Some(origin), false) = (&self.unnamed, unnamed.is_empty()) {
            let names: Vec<String> = unnamed.iter().map(|entry| entry.name().to_string()).collect();
            let shown = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            let more = if names.len() > 3 { " and others" } else { "" };
            let message = format!("{} of the file in force as last read: {shown}{more}", names.len());
            findings.push(Finding::new(Code::LastGood, origin.clone(), message));
        }
        self.contents.entries.append(&mut kept);
        self.add_stand_ins();
        // As many as objects are held for long, most of them alone.
        self.contents.entries.shrink_to_fit();
        self.contents.texts.pack();
    }

    fn add_stand_ins(&mut self) {
        let mut named: HashSet<ObjectId> = self.contents.entries.iter().map(|entry| entry.id.clone()).collect();
        for stand_in in std::mem::take(&mut self.stand_ins) {
            if !named.insert(stand_in.id.clone()) {
                continue;
            }
            let effect = stand_in.stands_in.as_deref().unwrap_or_default().to_owned();
            let origin = stand_in.named_origin();
            self.contents.findings.push(Finding::new(Code::StrictestStandsIn, origin, effect));
            self.contents.entries.push(stand_in);
        }
    }
}

/// The name of an object in a document that does not parse: `kind` at the margin, `name` and `namespace` as the
/// first of their kind inside `metadata`. A guess, good enough to find the last good version.
fn name_in_text(text: &str) -> Option<ObjectName> {
    let value = |line: &str, key: &str| {
        let rest = line.strip_prefix(key)?.trim();
        let rest = rest.split(" #").next()?.trim().trim_matches(['"', '\'']);
        (!rest.is_empty()).then(|| rest.to_owned())
    };
    let (mut group, mut kind, mut namespace, mut name) = (String::new(), None, None, None);
    let mut indent = None;
    let mut in_metadata = false;
    for line in text.lines() {
        let inner = line.trim_start_matches(' ');
        let depth = line.len() - inner.len();
        if depth == 0 && !inner.starts_with('#') && !inner.trim().is_empty() {
            in_metadata = inner.trim_end() == "metadata:";
            kind = kind.or_else(|| value(line, "kind:"));
            if let Some((before, _)) = value(line, "apiVersion:").as_deref().and_then(|text| text.split_once('/')) {
                before.clone_into(&mut group);
            }
        } else if in_metadata && depth == *indent.get_or_insert(depth) {
            name = name.or_else(|| value(inner, "name:"));
            namespace = namespace.or_else(|| value(inner, "namespace:"));
        }
    }
    let kind: String = kind?;
    let cluster_wide = matches!(kind.as_str(), "Namespace" | "Node");
    let namespace = (!cluster_wide).then(|| namespace.unwrap_or_else(|| "default".to_owned()));
    Some(ObjectName {
        group: group.into(),
        namespace: namespace.map(Into::into),
        name: name?.into(),
        kind: kind.into(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::object::Object;

    /// Good and broken ones, some of one name, and a list.
    const OBJECTS: [&str; 9] = [
        r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}"#,
        r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a", "labels": {"x": "y"}}}"#,
        r#"{"apiVersion": "v1", "metadata": {"name": "of-the-lists-kind"}}"#,
        r#"{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "b", "namespace": "a"}}"#,
        r#"{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "c"}, "spec": {"action": "DENY"}}"#,
        r#"{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "c"}, "spec": {"action": "PERHAPS"}}"#,
        r#"{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "d"}}]}"#,
        r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "\ud800"}}"#,
        r#"{"apiVersion": "v1", "kind": "Node", "metadata": [}"#,
    ];

    fn written(objects: &[usize], form: u8) -> (String, Format) {
        let all: Vec<&str> = objects.iter().map(|object| OBJECTS[*object]).collect();
        match form {
            0 => (all.join("\n---\n"), Format::Yaml),
            1 => (all.join("\n"), Format::Json),
            _ => (
                format!(r#" {{"items": [{}], "kind": "NamespaceList", "apiVersion": "v1"}}"#, all.join(", ")),
                Format::Json,
            ),
        }
    }

    proptest! {
        #[test]
        fn what_is_known_of_texts_is_what_they_would_be_read_to(
            steps in prop::collection::vec((prop::collection::vec(0..OBJECTS.len(), 0..6), 0..3u8), 1..6),
            documents in 1..8usize,
        ) {
            let (file, limits) = (Path::new("file").into(), Limits { documents, served: true, ..Limits::default() });
            let mut contents = Contents::default();
            for (objects, form) in steps {
                let (text, format) = written(&objects, form);
                let of_nothing_known = Contents { texts: Texts::default(), ..contents.clone() };
                let mut whole = Parsed::of_documents(&Texts::default().of(&[]), &file, &text, format, &limits);
                whole.keep_last_good(&of_nothing_known);
                let anew = Contents::update(&of_nothing_known, &file, &text, format, &limits);
                contents = Contents::update(&contents, &file, &text, format, &limits);
                for other in [anew, whole.contents] {
                    prop_assert_eq!(&contents.entries, &other.entries);
                    prop_assert_eq!(&contents.findings, &other.findings);
                }
            }
        }
    }

    #[test]
    fn what_did_not_change_is_not_read_again() {
        let (file, limits) = (Path::new("file").into(), Limits::default());
        for form in 0..3 {
            let update = |previous: &Contents, objects: &[usize]| {
                let (text, format) = written(objects, form);
                Contents::update(previous, &file, &text, format, &limits)
            };
            let before = update(&Contents::default(), &[0, 4]);
            let after = update(&before, &[3, 1, 4]);
            let policy = |contents: &Contents| match contents.entries.last().map(|entry| &entry.object) {
                Some(Object::AuthorizationPolicy(policy)) => Arc::clone(policy),
                other => panic!("{other:?}"),
            };
            assert!(Arc::ptr_eq(&policy(&before), &policy(&after)), "form {form}");
            let origin = &after.entries[2].origin;
            assert_eq!((origin.document, origin.item), if form == 2 { (Some(1), Some(2)) } else { (Some(3), None) });
        }
    }

    #[test]
    fn a_broken_document_is_named_by_its_margin_and_metadata() {
        let cases = [
            ("kind: Pod\nmetadata:\n  name: cart\n  namespace: shop\nspec: [", Some("Pod shop/cart")),
            ("metadata:\n    name: \"cart\" # quoted\nkind: Pod\nspec: [", Some("Pod default/cart")),
            ("kind: Namespace\nmetadata:\n  name: shop\n  x: [", Some("Namespace shop")),
            ("kind: Pod\nmetadata:\n  labels:\n    name: wrong\n  name: right\nx: [", Some("Pod default/right")),
            ("kind: Pod\nspec:\n  name: wrong\nx: [", None),
            ("kind: Pod\nmetadata: {name: inline}\nx: [", None),
            ("  kind: Pod\nmetadata:\n  name: cart\nx: [", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let name = name_in_text(text).map(|name| name.to_string());
            assert_eq!(name.as_deref(), expected, "{text:?}");
        }
    }
}
