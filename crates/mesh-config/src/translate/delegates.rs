//! Rules that one VirtualService delegates to another: what they say together.
//!
//! Istio's rules (pilot/pkg/model/virtualservice.go): each match of the delegate has to lie within one of the root's, or the
//! delegate's rule is left out; what the delegate leaves open, the root says. Where Istio lets the delegate's match on a header
//! widen the root's, the narrower counts here.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::l7::{ClientMatch, FieldMatch, PathMatch, RequestMatch, Rule, TextMatch};
use mesh_core::policy::Selector;

use crate::code::Code;
use crate::finding::Finding;
use crate::istio::{HttpRule, VirtualService};
use crate::object::{Key, Located};

/// Matches of one VirtualService with its delegates'; each of a delegate's may come once for each of a root's.
const MAX_MATCHES: usize = 10_000;

/// All VirtualServices, and to which of them others have delegated.
pub(super) struct Delegates<'a> {
    all: &'a BTreeMap<Key, Located<VirtualService>>,
    used: BTreeSet<&'a Key>,
}

/// A rule as it is in force, and by whom it is written.
pub(super) struct WrittenRule<'a> {
    pub(super) http: Cow<'a, HttpRule>,
    pub(super) by: &'a Located<VirtualService>,
}

impl<'a> Delegates<'a> {
    pub(super) const fn of(all: &'a BTreeMap<Key, Located<VirtualService>>) -> Self {
        Self { all, used: BTreeSet::new() }
    }

    /// The rules of a VirtualService, with those of its delegates in their places.
    pub(super) fn expand(
        &mut self,
        root: &'a Located<VirtualService>,
        findings: &mut Vec<Finding>,
    ) -> Vec<WrittenRule<'a>> {
        let tell = |index: usize, why: String, findings: &mut Vec<Finding>| {
            let finding = Finding::new(Code::NoSuchDelegate, (*root.origin).clone(), why);
            findings.push(finding.at(format!("spec.http[{index}].delegate")));
        };
        let mut matches = 0;
        let mut rules = Vec::new();
        for (index, http) in root.object.http.iter().enumerate() {
            let Some(key) = &http.delegate else {
                rules.push(WrittenRule { http: Cow::Borrowed(http), by: root });
                continue;
            };
            match self.delegate(key, &root.object.name.namespace) {
                Ok(delegate) if matches + most_matches(http, &delegate.object) <= MAX_MATCHES => {
                    matches += most_matches(http, &delegate.object);
                    rules.extend(joined(http, delegate, findings));
                }
                Ok(_) => tell(index, format!("with its matches there would be more than {MAX_MATCHES}"), findings),
                Err(why) => tell(index, why, findings),
            }
        }
        rules
    }

    fn delegate(&mut self, key: &Key, namespace: &Arc<str>) -> Result<&'a Located<VirtualService>, String> {
        let (key, delegate) =
            self.all.get_key_value(key).ok_or_else(|| format!("there is no VirtualService {}/{}", key.0, key.1))?;
        if !delegate.object.is_delegate() {
            return Err(format!("VirtualService {}/{} has hosts of its own, and is no delegate", key.0, key.1));
        }
        self.used.insert(key);
        match &delegate.object.exported_to {
            Some(namespaces) if !namespaces.contains(namespace) => {
                Err(format!("VirtualService {}/{} is not exported to namespace {namespace}", key.0, key.1))
            }
            _ => Ok(delegate),
        }
    }

    /// Says which delegates nobody names.
    pub(super) fn report_unused(&self, findings: &mut Vec<Finding>) {
        for (key, located) in self.all {
            if located.object.is_delegate() && !self.used.contains(key) {
                let message = "it has no hosts, and no VirtualService names it as delegate";
                findings.push(Finding::new(Code::UnusedDelegate, (*located.origin).clone(), message).at("spec.hosts"));
            }
        }
    }
}

/// As many matches as there can be of a delegate's within its root's.
fn most_matches(root: &HttpRule, delegate: &VirtualService) -> usize {
    let own: usize = delegate.http.iter().map(|own| own.rule.matches.len().max(1)).sum();
    own * root.rule.matches.len().max(1)
}

/// The delegate's rules within a rule of its root.
fn joined<'a>(
    root: &'a HttpRule,
    delegate: &'a Located<VirtualService>,
    findings: &mut Vec<Finding>,
) -> Vec<WrittenRule<'a>> {
    let mut rules = Vec::new();
    for (index, own) in delegate.object.http.iter().enumerate() {
        match matches(root, own) {
            Ok((matches, gateways)) => {
                let rule = Rule { matches, ..said(&root.rule, &own.rule) };
                rules.push(WrittenRule { http: Cow::Owned(HttpRule { rule, gateways, delegate: None }), by: delegate });
            }
            Err(place) => {
                let message = format!("{} has no such requests", root.rule.at);
                let finding = Finding::new(Code::DelegateConflict, (*delegate.origin).clone(), message);
                findings.push(finding.at(format!("spec.http[{index}].match[{place}]")));
            }
        }
    }
    rules
}

/// What becomes of requests: what the delegate says, and the root where it says nothing.
fn said(root: &Rule, own: &Rule) -> Rule {
    let mut rule = own.clone();
    rule.at.name = match (&root.at.name, &own.at.name) {
        (Some(root), Some(own)) => Some(format!("{root}-{own}").into()),
        (root, own) => own.clone().or_else(|| root.clone()),
    };
    if rule.request_headers.is_empty() && rule.response_headers.is_empty() {
        rule.request_headers = root.request_headers.clone();
        rule.response_headers = root.response_headers.clone();
    }
    if rule.rewrite == Default::default() {
        rule.rewrite = root.rewrite.clone();
    }
    if rule.mirrors.is_empty() {
        rule.mirrors.clone_from(&root.mirrors);
    }
    if rule.fault == Default::default() {
        rule.fault = root.fault;
    }
    if rule.timeouts == Default::default() {
        rule.timeouts = root.timeouts;
    }
    rule.retry = rule.retry.or_else(|| root.retry.clone());
    rule.cors = rule.cors.or_else(|| root.cors.clone());
    rule
}

type Joined = (Vec<RequestMatch>, Vec<Vec<String>>);

/// The requests that both are about, with the gateways of each match; the delegate's match that is within none of the
/// root's, where there is one.
fn matches(root: &HttpRule, own: &HttpRule) -> Result<Joined, usize> {
    if own.rule.matches.is_empty() {
        return Ok((root.rule.matches.clone(), root.gateways.clone()));
    }
    let everything = [RequestMatch::default()];
    let of_root = if root.rule.matches.is_empty() { &everything[..] } else { &root.rule.matches };
    let mut found = Joined::default();
    for (place, (leaf, leaf_gateways)) in own.rule.matches.iter().zip(&own.gateways).enumerate() {
        let before = found.0.len();
        for (whole, gateways) in of_root.iter().zip(&root.gateways) {
            if let Ok(both) = both(whole, leaf)
                && let Some(gateways) = at(gateways, leaf_gateways)
            {
                found.0.push(both);
                found.1.push(gateways.clone());
            }
        }
        if found.0.len() == before {
            return Err(place);
        }
    }
    Ok(found)
}

/// The gateways of a match of the delegate: some of the root's.
fn at<'a>(root: &'a Vec<String>, own: &'a Vec<String>) -> Option<&'a Vec<String>> {
    match own.is_empty() {
        true => Some(root),
        false => own.iter().all(|gateway| root.contains(gateway)).then_some(own),
    }
}

/// No request is what both the root and the delegate ask for.
struct Disjoint;

/// The delegate's match within the root's.
fn both(root: &RequestMatch, leaf: &RequestMatch) -> Result<RequestMatch, Disjoint> {
    let text = |root: &Option<TextMatch>, leaf: &Option<TextMatch>| match (root, leaf) {
        (Some(root), Some(leaf)) => narrower(root, leaf).map(Some),
        (root, leaf) => Ok(leaf.clone().or_else(|| root.clone())),
    };
    // A field that must not be so: neither the one nor the other.
    let without = root
        .without_headers
        .iter()
        .chain(leaf.without_headers.iter().filter(|field| !root.without_headers.contains(field)));
    Ok(RequestMatch {
        path: narrower_path(&root.path, &leaf.path)?,
        method: text(&root.method, &leaf.method)?,
        scheme: text(&root.scheme, &leaf.scheme)?,
        host: text(&root.host, &leaf.host)?,
        headers: fields(&root.headers, &leaf.headers)?,
        without_headers: without.cloned().collect(),
        query: fields(&root.query, &leaf.query)?,
        port: either(root.port.as_ref(), leaf.port.as_ref())?,
        client: ClientMatch {
            namespace: either(root.client.namespace.as_ref(), leaf.client.namespace.as_ref())?,
            labels: labels(root.client.labels.as_ref(), leaf.client.labels.as_ref())?,
        },
    })
}

/// What both say, or one of them does.
fn either<T: Clone + PartialEq>(root: Option<&T>, leaf: Option<&T>) -> Result<Option<T>, Disjoint> {
    match (root, leaf) {
        (Some(root), Some(leaf)) if root != leaf => Err(Disjoint),
        (root, leaf) => Ok(leaf.or(root).cloned()),
    }
}

fn narrower(root: &TextMatch, leaf: &TextMatch) -> Result<TextMatch, Disjoint> {
    let within = match (root, leaf) {
        (_, TextMatch::Present) => return Ok(root.clone()),
        (TextMatch::Present, _) => true,
        (TextMatch::Exact(root), TextMatch::Exact(leaf)) => root == leaf,
        (TextMatch::Prefix(root), TextMatch::Prefix(leaf) | TextMatch::Exact(leaf)) => leaf.starts_with(&**root),
        // Of patterns nobody can tell; Istio has two of them conflict.
        _ => false,
    };
    if within { Ok(leaf.clone()) } else { Err(Disjoint) }
}

fn narrower_path(root: &PathMatch, leaf: &PathMatch) -> Result<PathMatch, Disjoint> {
    let begins = |path: &str, beginning: &str| {
        path.as_bytes().get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning.as_bytes()))
    };
    let within = match (root, leaf) {
        (_, PathMatch::Any) => return Ok(root.clone()),
        (PathMatch::Any, _) => true,
        (PathMatch::Exact(root), PathMatch::Exact(leaf)) => root == leaf,
        (PathMatch::Prefix(root), PathMatch::Prefix(leaf) | PathMatch::Exact(leaf)) => leaf.starts_with(&**root),
        (PathMatch::ExactIgnoringCase(root), PathMatch::ExactIgnoringCase(leaf)) => root.eq_ignore_ascii_case(leaf),
        (
            PathMatch::PrefixIgnoringCase(root),
            PathMatch::PrefixIgnoringCase(leaf) | PathMatch::ExactIgnoringCase(leaf),
        ) => begins(leaf, root),
        // Patterns, and one whose case matters beside one whose case does not: as Istio.
        _ => false,
    };
    if within { Ok(leaf.clone()) } else { Err(Disjoint) }
}

fn fields(root: &[FieldMatch], leaf: &[FieldMatch]) -> Result<Vec<FieldMatch>, Disjoint> {
    let mut fields = root.to_vec();
    for own in leaf {
        match fields.iter_mut().find(|field| field.name == own.name) {
            Some(field) => field.value = narrower(&field.value, &own.value)?,
            None => fields.push(own.clone()),
        }
    }
    Ok(fields)
}

fn labels(root: Option<&Selector>, leaf: Option<&Selector>) -> Result<Option<Selector>, Disjoint> {
    let (Some(root), Some(leaf)) = (root, leaf) else {
        return Ok(leaf.or(root).cloned());
    };
    let pairs = |selector: &Selector| selector.labels().to_vec();
    let mut labels: BTreeMap<Arc<str>, Arc<str>> = pairs(root).into_iter().collect();
    for (key, value) in pairs(leaf) {
        if labels.insert(key, Arc::clone(&value)).is_some_and(|other| other != value) {
            return Err(Disjoint);
        }
    }
    Ok(Selector::new(labels))
}
