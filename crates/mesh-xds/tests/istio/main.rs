//! What Istio's node proxies are told: that it decides as our own nodes do, that changes end where a fresh start would, and
//! what it says of pods, Services and waypoints.
#![allow(clippy::unwrap_used)]

mod cluster;
#[path = "../control/mod.rs"]
mod control;
mod decisions;
mod resources;
mod ztunnel;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_config::Options;
use mesh_xds::istio_proto::{Address, Authorization, Service, Workload, address::Type};
use mesh_xds::proto::{DeltaDiscoveryRequest, Resource};
use mesh_xds::{ADDRESS_TYPE, AUTHORIZATION_TYPE, ResponseSize, Subscription, Version};
use prost::Message;

use self::control::Control;

impl Control {
    /// Of manifests as YAML.
    fn of(manifests: &str) -> Self {
        let mut control = Self::new();
        control.read(manifests);
        control
    }

    /// The cluster is what these manifests say.
    fn read(&mut self, manifests: &str) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("all.yaml"), manifests).unwrap();
        let options = Options { served: true, ..Options::default() };
        self.config = Arc::new(mesh_config::load(directory.path(), &options).unwrap());
        self.state = self.publication.next(&self.config).unwrap();
    }

    /// What a proxy is told that asks for all of a type.
    fn all(&self, type_url: &str) -> BTreeMap<String, Resource> {
        let mut subscription = Subscription::new(type_url, ResponseSize { octets: usize::MAX, resources: usize::MAX });
        let request = DeltaDiscoveryRequest { type_url: type_url.to_owned(), ..DeltaDiscoveryRequest::default() };
        subscription.take(&request, self.state.table(type_url)).unwrap();
        let response = subscription.next(self.state.table(type_url)).unwrap();
        response.resources.into_iter().map(|resource| (resource.name.clone(), resource)).collect()
    }

    fn told(&self) -> Told {
        let (mut workloads, mut services) = (BTreeMap::new(), BTreeMap::new());
        for (name, resource) in self.all(ADDRESS_TYPE) {
            match decoded::<Address>(&resource).r#type.unwrap() {
                Type::Workload(workload) => drop(workloads.insert(name, *workload)),
                Type::Service(service) => drop(services.insert(name, *service)),
            }
        }
        let policies = self.all(AUTHORIZATION_TYPE);
        let policies = policies.into_iter().map(|(name, resource)| (name, decoded(&resource))).collect();
        Told { workloads, services, policies }
    }

    fn versions(&self) -> [Version; 2] {
        [ADDRESS_TYPE, AUTHORIZATION_TYPE].map(|type_url| self.state.table(type_url).version())
    }
}

fn decoded<M: Message + Default>(resource: &Resource) -> M {
    M::decode(resource.resource.clone().unwrap().value).unwrap()
}

/// What a proxy knows.
#[derive(Debug, PartialEq)]
struct Told {
    workloads: BTreeMap<String, Workload>,
    services: BTreeMap<String, Service>,
    policies: BTreeMap<String, Authorization>,
}
