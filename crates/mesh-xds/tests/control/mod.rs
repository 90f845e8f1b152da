//! A server without a network, for tests of what it tells.

use std::sync::Arc;

use mesh_config::{Config, LiveObjects, ObjectName, Options};
use mesh_xds::{Publication, State};
use serde_json::Value;

/// A server, from the objects of a cluster.
pub struct Control {
    objects: LiveObjects,
    pub publication: Publication,
    pub config: Arc<Config>,
    pub state: State,
}

impl Control {
    pub fn new() -> Self {
        let mut objects = LiveObjects::new(Options { served: true, ..Options::default() });
        let mut publication = Publication::default();
        let config = objects.publish();
        let state = publication.next(&config).unwrap();
        Self { objects, publication, config, state }
    }

    /// The cluster changes: objects are there, or no more.
    pub fn learn(&mut self, changes: &[(ObjectName, Option<Value>)]) {
        for (name, value) in changes {
            match value {
                Some(value) => self.objects.apply(name.clone(), value.clone()),
                None => self.objects.remove(name),
            }
        }
        self.config = self.objects.publish();
        if let Some(state) = self.publication.next(&self.config) {
            self.state = state;
        }
    }
}
