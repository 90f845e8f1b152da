//! Tokens that were verified, for as long as somebody sends them.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use http::{HeaderName, HeaderValue};
use mesh_core::policy::{TokenRule, request::Token};
use mesh_jwt::{Claims, Compact, KeySet};

use super::keys::{KeyStore, Source};

/// Tokens that a thread remembers of each of two generations.
const MAX_REMEMBERED: usize = 512;

/// SHA-256 of a token's text.
pub(super) type Digest = [u8; 32];

/// A token that one of an issuer's keys made.
pub(super) struct Verified {
    /// What policies see of it.
    pub(super) token: Rc<Token>,
    /// What the destination is shown of it.
    pub(super) fields: Vec<(HeaderName, HeaderValue)>,
    /// When it holds.
    pub(super) claims: Claims,
    rule: Arc<TokenRule>,
    keys: Arc<KeySet>,
}

impl Verified {
    /// Of a token that these keys verify, by a rule that it meets.
    pub(super) fn new(token: Compact<'_>, rule: &Arc<TokenRule>, keys: Arc<KeySet>) -> Self {
        let payload = rule.payload_field.as_deref().map(|field| (field, Some(token.payload().to_owned())));
        let claims = rule.claim_fields.iter().map(|shown| (&*shown.field, token.claims().shown(&shown.claim)));
        let shown = payload.into_iter().chain(claims).filter_map(|(field, text)| {
            // What a field cannot show is left out, and nobody else's is left in its place.
            Some((HeaderName::try_from(field).ok()?, HeaderValue::try_from(text?).ok()?))
        });
        let (fields, seen) = (shown.collect(), Rc::new(token.claims().token(rule)));
        Self { token: seen, fields, claims: token.into_claims(), rule: rule.clone(), keys }
    }
}

/// What a thread remembers.
#[derive(Default)]
pub(crate) struct Memory {
    /// The configuration that `sources` are of.
    seen: RefCell<u64>,
    /// Where rules' keys are.
    sources: RefCell<Vec<(Arc<TokenRule>, Arc<Source>)>>,
    young: RefCell<HashMap<Digest, Rc<Verified>>>,
    old: RefCell<HashMap<Digest, Rc<Verified>>>,
}

impl Memory {
    /// Where a rule's keys are.
    pub(super) fn source(&self, rule: &Arc<TokenRule>, number: u64, store: &KeyStore) -> Arc<Source> {
        let mut sources = self.sources.borrow_mut();
        if self.seen.replace(number) != number {
            sources.clear();
        }
        if let Some((_, source)) = sources.iter().find(|(known, _)| Arc::ptr_eq(known, rule)) {
            return source.clone();
        }
        let source = store.source(rule);
        sources.push((rule.clone(), source.clone()));
        source
    }

    /// A token that was verified before, by the same rule and keys.
    pub(super) fn recall(&self, digest: &Digest, rule: &Arc<TokenRule>, keys: &Arc<KeySet>) -> Option<Rc<Verified>> {
        let known = self.young.borrow().get(digest).cloned();
        let known = known.or_else(|| {
            let known = self.old.borrow_mut().remove(digest)?;
            self.remember(*digest, known.clone());
            Some(known)
        });
        known.filter(|known| Arc::ptr_eq(&known.rule, rule) && Arc::ptr_eq(&known.keys, keys))
    }

    /// Remembers a token. Of many, those that nobody has sent for long are forgotten.
    pub(super) fn remember(&self, digest: Digest, verified: Rc<Verified>) {
        let mut young = self.young.borrow_mut();
        if young.len() >= MAX_REMEMBERED {
            self.old.replace(std::mem::take(&mut young));
        }
        young.insert(digest, verified);
    }
}
