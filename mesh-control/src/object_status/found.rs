//! What is found of the objects whose status is written: gathered by object once for each configuration.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_config::{Config, Finding, ObjectName, Served, Source};
use serde::Deserialize;

use super::is_of_kinds;

/// A configuration, and what is found of which object in it.
pub(super) struct Found {
    pub(super) config: Arc<Config>,
    by_object: HashMap<ObjectName, Vec<usize>>,
}

impl Found {
    pub(super) fn of(config: Arc<Config>) -> Arc<Self> {
        let mut by_object: HashMap<ObjectName, Vec<usize>> = HashMap::new();
        for (place, finding) in config.findings.iter().enumerate() {
            if let Some(object) =
                finding.origin.object.as_ref().filter(|object| is_of_kinds(&object.group, &object.kind))
            {
                by_object.entry(object.clone()).or_default().push(place);
            }
        }
        Arc::new(Self { config, by_object })
    }

    /// What is found of one object.
    pub(super) fn of_object(&self, name: &ObjectName) -> Vec<&Finding> {
        let places = self.by_object.get(name).into_iter().flatten();
        places.filter_map(|place| self.config.findings.get(*place)).collect()
    }

    /// Whether something else is found than in another one.
    pub(super) fn differs(&self, other: &Self) -> bool {
        self.by_object.len() != other.by_object.len()
            || self.by_object.keys().any(|name| self.of_object(name) != other.of_object(name))
    }
}

/// The generations of objects that were read, by their paths: each text is looked at once.
#[derive(Default)]
pub(super) struct Generations(HashMap<String, (Arc<Source>, Option<i64>)>);

impl Generations {
    /// That of the newest version that was read, whether or not it could be.
    pub(super) fn of(&mut self, served: &Served) -> Option<i64> {
        if let Some((_, known)) = self.0.get(served.path()).filter(|(of, _)| Arc::ptr_eq(of, &served.source)) {
            return *known;
        }
        let generation = generation(served.source.refused.as_ref().unwrap_or(&served.source.object));
        self.0.insert(served.path().to_owned(), (Arc::clone(&served.source), generation));
        generation
    }

    /// Forgets those that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|path, _| is_there(path));
    }
}

fn generation(text: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    struct Metadata {
        generation: Option<i64>,
    }
    serde_json::from_str::<Object>(text).ok()?.metadata.generation
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_is_read_of_whatever_else_an_object_says() {
        assert_eq!(generation(r#"{"spec": {"a": [1, {}]}, "metadata": {"name": "x", "generation": 7}}"#), Some(7));
        assert_eq!(generation(r#"{"metadata": {"name": "x"}}"#), None);
        assert_eq!(generation("{"), None);
    }
}
