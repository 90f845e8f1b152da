//! What is served at one moment, and how a configuration becomes it.

use std::sync::{Arc, Mutex, OnceLock};

use mesh_config::{Config, Served};
use mesh_core::lock::UnpoisonedMutex as _;
use mesh_core::ordered::Ordered;
use mesh_core::snapshot::Snapshot;

use crate::istio::{ADDRESS_TYPE, AUTHORIZATION_TYPE, IstioTypes};
use crate::table::{Body, OBJECT_TYPE, Resource, Table, Version};

/// Everything that is served, by type. A copy shares all with what it is of.
#[derive(Debug, Clone, Default)]
pub struct State {
    objects: Arc<Table>,
    istio: Arc<Istio>,
    /// What there is of every other type.
    nothing: Arc<Table>,
}

impl State {
    /// The resources of a type; none of a type that is not served.
    #[must_use]
    pub fn table(&self, type_url: &str) -> &Arc<Table> {
        match type_url {
            OBJECT_TYPE => &self.objects,
            ADDRESS_TYPE => &self.istio.tables().addresses,
            AUTHORIZATION_TYPE => &self.istio.tables().authorizations,
            _ => &self.nothing,
        }
    }

    /// Which state it is: that of our own resources, of which all others are made.
    #[must_use]
    pub fn version(&self) -> Version {
        self.objects.version()
    }
}

/// Resources of Istio's types, made when somebody asks for them.
#[derive(Debug, Default)]
struct Istio {
    snapshot: Arc<Snapshot>,
    generation: u64,
    tables: OnceLock<Tables>,
    /// What was made last, whoever asked for it.
    made: Arc<Mutex<IstioTypes>>,
}

#[derive(Debug)]
struct Tables {
    addresses: Arc<Table>,
    authorizations: Arc<Table>,
}

impl Istio {
    fn tables(&self) -> &Tables {
        self.tables.get_or_init(|| {
            let mut made = self.made.lock_unpoisoned();
            let (addresses, authorizations) = made.follow(&self.snapshot);
            let at = |table: Table| Arc::new(table.at(self.generation));
            Tables { addresses: at(addresses), authorizations: at(authorizations) }
        })
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
        let (snapshot, made) = (config.snapshot.clone(), self.state.istio.made.clone());
        self.state.istio = Arc::new(Istio { snapshot, generation, tables: OnceLock::new(), made });
        Some(self.state.clone())
    }
}
