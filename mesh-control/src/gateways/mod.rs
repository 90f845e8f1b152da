//! Runs what Gateways ask for: a proxy with its account, Service and configuration for each, and says in their status how they are.
//!
//! One replica at a time does this (`kubernetes/leader.rs`). What is made is owned by its Gateway, and goes with it.

mod apply;
mod backend_tls;
mod classes;
pub(crate) mod condition;
mod controller;
mod deploy;
mod listener_sets;
mod manifest;
mod object;
mod routes;
mod secret_rights;
mod settings;
mod status;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use kube::Client;
use mesh_config::{Config, Key, ListenerProtocol};
use mesh_transport::LocalAuthority;
use tokio::sync::{mpsc, watch};

pub(crate) use settings::{GatewayArgs, Settings};

use classes::Classes;
use deploy::Outcomes;

/// The port of the authority's Service.
const CA_PORT: u16 = 15_012;

/// What all of it works with.
pub(crate) struct Gateways {
    client: Client,
    settings: Settings,
    config: watch::Receiver<Arc<Config>>,
    authority: Arc<LocalAuthority>,
    classes: Classes,
    outcomes: Outcomes,
}

impl Gateways {
    pub(crate) fn new(
        client: Client,
        settings: Settings,
        config: watch::Receiver<Arc<Config>>,
        authority: Arc<LocalAuthority>,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            settings,
            config,
            authority,
            classes: Classes::default(),
            outcomes: Outcomes::default(),
        })
    }

    /// Runs until dropped.
    pub(crate) async fn run(self: &Arc<Self>) {
        tokio::join!(
            classes::follow(self),
            secret_rights::follow(self),
            deploy::follow(self),
            status::follow(self),
            listener_sets::follow(self),
            routes::follow(self),
            backend_tls::follow(self),
        );
    }

    /// Tells whenever something else is to be said in objects' status.
    async fn tell_of_statuses(&self, again: mpsc::Sender<()>) {
        let (mut config, mut classes) = (self.config.clone(), self.classes.changes());
        let mut said = Arc::clone(&config.borrow_and_update().statuses);
        loop {
            tokio::select! {
                changed = config.changed() => {
                    let now = Arc::clone(&config.borrow_and_update().statuses);
                    match changed {
                        // Nobody tells of changes any more once this program ends.
                        Err(_) => return,
                        Ok(()) if Arc::ptr_eq(&now, &said) => continue,
                        Ok(()) => said = now,
                    }
                }
                changed = classes.changed() => if changed.is_err() { return },
            }
            if again.send(()).await.is_err() {
                return;
            }
        }
    }

    /// The ports that ListenerSets have open at each Gateway.
    fn set_ports(&self) -> BTreeMap<Key, BTreeMap<u16, ListenerProtocol>> {
        let mut ports: BTreeMap<Key, BTreeMap<u16, ListenerProtocol>> = BTreeMap::new();
        for set in self.config.borrow().statuses.listener_sets.values().filter(|set| !set.ports.is_empty()) {
            let of_gateway = ports.entry(set.gateway.clone()).or_default();
            of_gateway.extend(set.ports.iter().map(|(port, protocol)| (*port, *protocol)));
        }
        ports
    }

    /// Where certificates are signed, as a pod without DNS reaches it.
    fn authority_address(&self) -> Option<String> {
        let config = self.config.borrow();
        let Settings { namespace, service, .. } = &self.settings;
        let own = config.snapshot.services().find(|known| *known.namespace == **namespace && *known.name == **service);
        own.and_then(|own| own.vips.first().copied()).map(|vip| SocketAddr::new(vip, CA_PORT).to_string())
    }
}
