//! The lab: what can be put into it, and taking it down.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};

use crate::binaries::binary;
use crate::builder::LabBuilder;
use crate::manifests::{self, Family};
use crate::netns::{Netns, Role};
use crate::node::{Node, Outside};
use crate::place::Context;
use crate::pod::Pod;
use crate::pod_spec::PodSpec;
use crate::service::{Service, ServiceSpec};
use crate::state::{Shared, State, service_file, slice_file, tail};
use crate::{addresses, cgroup, leftovers, network, process};

/// A running cluster. Dropping it removes everything it made.
#[derive(Debug)]
pub struct Lab {
    pub(crate) shared: Arc<Shared>,
}

impl AsRef<Self> for Lab {
    fn as_ref(&self) -> &Self {
        self
    }
}

impl Lab {
    /// Begins a lab.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// The lab's name, which everything that it makes carries; see [`crate::remains`].
    pub fn id(&self) -> String {
        self.shared.id.to_string()
    }

    /// The directory of manifests that daemons watch.
    pub fn config_dir(&self) -> &Path {
        self.shared.config.path()
    }

    /// The lab's own directory: `config`, `logs`, `ca` and more.
    pub fn home(&self) -> &Path {
        &self.shared.home
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Result<Node> {
        Ok(Node { shared: Arc::clone(&self.shared), index: self.shared.node_index(name)? })
    }

    /// The wire's end of a node's link: the network namespace and the interface in it, for a person's own tcpdump.
    pub fn link(&self, node: &str) -> Result<(String, String)> {
        let node = &self.shared.nodes[self.shared.node_index(node)?];
        Ok((self.shared.wire.name().to_owned(), node.port.clone()))
    }

    /// Makes a namespace with its `default` service account; one that exists stays as it is.
    pub fn namespace(&self, name: &str) -> Result<()> {
        let mut state = self.shared.lock();
        if state.namespaces.contains_key(name) {
            return Ok(());
        }
        state.namespaces.insert(name.into(), BTreeMap::new());
        self.write_namespace(&state, name)?;
        self.service_account(name, "default")
    }

    /// Sets a label of a namespace, which is made where it is missing.
    pub fn label_namespace(&self, name: &str, key: &str, value: &str) -> Result<()> {
        self.namespace(name)?;
        let mut state = self.shared.lock();
        state.namespaces.entry(name.into()).or_default().insert(key.into(), value.into());
        self.write_namespace(&state, name)
    }

    /// Takes a label of a namespace away.
    pub fn unlabel_namespace(&self, name: &str, key: &str) -> Result<()> {
        self.namespace(name)?;
        let mut state = self.shared.lock();
        state.namespaces.entry(name.into()).or_default().remove(key);
        self.write_namespace(&state, name)
    }

    fn write_namespace(&self, state: &State, name: &str) -> Result<()> {
        let labels = state.namespaces.get(name).cloned().unwrap_or_default();
        self.shared.config.write(&format!("namespace.{name}"), &manifests::namespace(name, &labels))
    }

    /// Makes a service account.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<()> {
        self.shared
            .config
            .write(&format!("serviceaccount.{namespace}.{name}"), &manifests::service_account(namespace, name))
    }

    /// Says in which region and zone a node is.
    pub fn place_node(&self, name: &str, region: &str, zone: &str) -> Result<()> {
        let node = self.node(name)?;
        let state = node.state();
        let mut object = manifests::node(name, &state.addresses(), &addresses::pod_ranges(state.number));
        object["metadata"]["labels"]["topology.kubernetes.io/region"] = region.into();
        object["metadata"]["labels"]["topology.kubernetes.io/zone"] = zone.into();
        self.shared.config.write(&format!("node.{name}"), &object)
    }

    /// Deploys a pod and waits until it is ready. Its namespace and service account are made where they are missing.
    pub fn deploy(&self, spec: PodSpec) -> Result<Pod> {
        self.namespace(&spec.namespace)?;
        self.service_account(&spec.namespace, &spec.service_account)?;
        Pod::deploy(&self.shared, spec)
    }

    /// Makes a Service, or replaces its ports and pods and keeps its addresses.
    pub fn service(&self, spec: ServiceSpec) -> Result<Service> {
        self.namespace(&spec.namespace)?;
        let mut state = self.shared.lock();
        let key = (spec.namespace.clone(), spec.name.clone());
        let vips = match state.services.get(&key) {
            Some(old) => old.vips,
            None => addresses::service(state.services_made)?,
        };
        state.services_made += 1;
        let service = Service { spec, vips };
        self.shared.config.write(&service_file(service.namespace(), service.name()), &manifests::service(&service))?;
        state.services.insert(key, service.clone());
        self.shared.refresh_hosts(&state)?;
        self.shared.refresh_endpoints(&mut state)?;
        Ok(service)
    }

    /// Removes a Service and its EndpointSlices.
    pub fn remove_service(&self, service: &Service) -> Result<()> {
        let mut state = self.shared.lock();
        let (namespace, name) = (service.namespace(), service.name());
        state.services.remove(&(namespace.into(), name.into()));
        self.shared.config.remove(&service_file(namespace, name))?;
        for family in Family::ALL {
            self.shared.config.remove(&slice_file(namespace, &manifests::slice_name(name, family)))?;
        }
        self.shared.refresh_hosts(&state)?;
        self.shared.refresh_endpoints(&mut state)
    }

    /// Puts a file into the config directory as it is, atomically: policies, broken manifests, anything.
    pub fn apply(&self, file: &str, text: &str) -> Result<()> {
        self.shared.config.write_text(file, text)
    }

    /// Removes a file that [`Lab::apply`] made.
    pub fn unapply(&self, file: &str) -> Result<()> {
        self.shared.config.remove_file(file)
    }

    /// Attaches a machine to the wire that is no node of the cluster.
    pub fn outside(&self, name: &str) -> Result<Outside> {
        let shared = &self.shared;
        let own = {
            let mut state = shared.lock();
            state.outside += 1;
            addresses::outside(state.outside - 1)?
        };
        let number = shared.next_number();
        let netns = Netns::create(format!("{}.outside.{name}.{number}", shared.id), Role::Host)?;
        let nodes = u8::try_from(shared.nodes.len()).context("too many nodes")?;
        network::set_up_outside(&netns, &shared.wire, own, nodes, &format!("outside{number}"))?;
        let cgroup = shared.cgroup.join(format!("outside.{name}.{number}"));
        cgroup::create(&cgroup)?;
        let name = format!("outside.{name}");
        let context = Context {
            netns: netns.path(),
            mounts: None,
            cgroup,
            env: Vec::new(),
            logs: shared.logs(),
            name,
            outlives_owner: shared.keep,
        };
        Ok(Outside { context, own })
    }

    /// The directory of the cluster's CA (trust domain `cluster.local`), made by `mesh-control ca init` on the first call.
    pub fn ca_dir(&self) -> Result<PathBuf> {
        self.ca_dir_of("ca", "cluster.local")
    }

    /// The directory of another CA, by a name of its own, for a trust domain.
    pub fn ca_dir_of(&self, name: &str, trust_domain: &str) -> Result<PathBuf> {
        let mut state = self.shared.lock();
        let dir = self.shared.home.join(name);
        if !state.ca.contains(&dir) {
            let control = binary("mesh-control")?;
            process::run(
                Command::new(control).args(["ca", "init", "--trust-domain", trust_domain, "--out"]).arg(&dir),
                "",
            )?;
            state.ca.insert(dir.clone());
        }
        Ok(dir)
    }

    /// Removes everything now, and says what could not be removed.
    pub fn take_down(self) -> Result<()> {
        let id = self.shared.id;
        let result = leftovers::take_down(id);
        leftovers::forget(id);
        result
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let id = self.shared.id;
        if thread::panicking() {
            for log in &self.shared.lock().daemon_logs {
                eprintln!("---- the end of {}:\n{}", log.display(), tail(log, 30));
            }
        } else if self.shared.keep {
            leftovers::forget(id);
            return;
        }
        if let Err(error) = leftovers::take_down(id) {
            eprintln!("cleaning up {id}: {error:#}");
        }
        leftovers::forget(id);
    }
}
