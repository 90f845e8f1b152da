//! What many objects say is kept once: names of namespaces, nodes and accounts, labels, and what the Pods of a controller have in
//! common.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use mesh_core::labels::Labels;
use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::{LabelSet, Template};

use crate::kubernetes::PodTemplate;

/// What is kept by nobody else is looked for when so much has come since the last time.
const SWEEP: usize = 10_000;

/// One for the process: it follows one cluster, and what is equal is equal whoever reads it.
static POOL: Mutex<Option<Pool>> = Mutex::new(None);

#[derive(Default)]
struct Pool {
    texts: HashSet<Arc<str>>,
    sets: HashSet<LabelSet>,
    templates: HashSet<Arc<Template>>,
    pod_templates: HashSet<Arc<PodTemplate>>,
    /// How large it may grow until it is swept.
    bound: usize,
}

/// The text as one that is shared by all who ask for it.
pub(crate) fn text(text: &str) -> Arc<str> {
    with_pool(|pool| pool.text(text))
}

/// The labels as a set that equal labels share.
pub(crate) fn labels(labels: Option<&Labels>) -> LabelSet {
    with_pool(|pool| {
        let pairs: Vec<_> =
            labels.into_iter().flatten().map(|(key, value)| (pool.text(key), pool.text(value))).collect();
        shared(&mut pool.sets, pairs.into_iter().collect())
    })
}

/// The template as one that all workloads share of which it says all.
pub(crate) fn template(template: Template) -> Arc<Template> {
    with_pool(|pool| shared_in(&mut pool.templates, template))
}

/// The template as one that all Pods share of which it says all.
pub(crate) fn pod_template(template: PodTemplate) -> Arc<PodTemplate> {
    with_pool(|pool| shared_in(&mut pool.pod_templates, template))
}

fn shared_in<T: Eq + Hash>(known: &mut HashSet<Arc<T>>, value: T) -> Arc<T> {
    match known.get(&value) {
        Some(known) => Arc::clone(known),
        None => shared(known, Arc::new(value)),
    }
}

fn with_pool<T>(take: impl FnOnce(&mut Pool) -> T) -> T {
    let mut pool = POOL.lock_unpoisoned();
    let pool = pool.get_or_insert_with(Pool::default);
    let taken = take(pool);
    pool.sweep_when_large();
    taken
}

fn shared<T: Eq + Hash + Clone>(known: &mut HashSet<T>, value: T) -> T {
    match known.get(&value) {
        Some(known) => known.clone(),
        None => {
            known.insert(value.clone());
            value
        }
    }
}

impl Pool {
    fn text(&mut self, text: &str) -> Arc<str> {
        match self.texts.get(text) {
            Some(known) => Arc::clone(known),
            None => shared(&mut self.texts, text.into()),
        }
    }

    fn sweep_when_large(&mut self) {
        if self.len() < self.bound {
            return;
        }
        // Templates hold sets, and both hold texts.
        self.templates.retain(|template| Arc::strong_count(template) > 1);
        self.pod_templates.retain(|template| Arc::strong_count(template) > 1);
        self.sets.retain(LabelSet::is_shared);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.bound = 2 * self.len() + SWEEP;
    }

    fn len(&self) -> usize {
        self.texts.len() + self.sets.len() + self.templates.len() + self.pod_templates.len()
    }
}
