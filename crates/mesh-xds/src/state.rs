//! What is served at one moment, and how a configuration becomes it.

use std::sync::Arc;

use mesh_config::{Config, Served};
use mesh_core::ordered::Ordered;

use crate::table::{Body, OBJECT_TYPE, Resource, Table, Version};

/// Everything that is served, by type. A copy shares all with what it is of.
#[derive(Debug, Clone, Default)]
pub struct State {
    objects: Arc<Table>,
    /// What there is of every other type.
    nothing: Arc<Table>,
}

impl State {
    /// The resources of a type; none of a type that is not served.
    #[must_use]
    pub fn table(&self, type_url: &str) -> &Arc<Table> {
        if type_url == OBJECT_TYPE { &self.objects } else { &self.nothing }
    }

    /// Which state it is: that of our own resources, of which all others are made.
    #[must_use]
    pub fn version(&self) -> Version {
        self.objects.version()
    }
}

/// Makes what is served of configurations, each time what differs.
#[derive(Debug, Default)]
pub struct Publication {
    served: Ordered<Served>,
    state: State,
}

impl Publication {
    /// What is served of a configuration that was translated with `served`; none where that is nothing new.
    pub fn next(&mut self, config: &Config) -> Option<State> {
        let mut objects = Table::clone(&self.state.objects);
        let mut is_new = objects.version() == Version::default();
        for (before, now) in config.served.differences(&self.served, None) {
            is_new = true;
            match (before, now) {
                (_, Some(now)) => objects.put(Resource::new(now.path(), Body::Object(now.source.clone()))),
                (Some(before), None) => objects.remove(before.path()),
                (None, None) => {}
            }
        }
        self.served = config.served.clone();
        if !is_new {
            return None;
        }
        let generation = objects.version().generation + 1;
        self.state.objects = Arc::new(objects.at(generation));
        Some(self.state.clone())
    }
}
