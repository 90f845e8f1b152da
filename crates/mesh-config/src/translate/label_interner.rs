//! Labels of many Pods in little memory: what is equal is kept once.

use std::collections::HashSet;
use std::sync::Arc;

use mesh_core::LabelSet;
use mesh_core::labels::Labels;

/// Hands out shared label sets.
#[derive(Debug, Default)]
pub(super) struct LabelInterner {
    texts: HashSet<Arc<str>>,
    sets: HashSet<LabelSet>,
}

impl LabelInterner {
    /// The labels as a set that equal labels share.
    pub(super) fn intern(&mut self, labels: &Labels) -> LabelSet {
        let pairs: Vec<_> = labels.iter().map(|(key, value)| (self.text(key), self.text(value))).collect();
        let set: LabelSet = pairs.into_iter().collect();
        match self.sets.get(&set) {
            Some(shared) => shared.clone(),
            None => {
                self.sets.insert(set.clone());
                set
            }
        }
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        match self.texts.get(text) {
            Some(shared) => Arc::clone(shared),
            None => {
                let shared: Arc<str> = text.into();
                self.texts.insert(Arc::clone(&shared));
                shared
            }
        }
    }
}
