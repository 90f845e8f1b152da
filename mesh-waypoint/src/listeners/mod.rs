//! A gateway's listeners: where those come in that are no part of the mesh.

mod client_certificate;
mod hello;
mod proxied;
mod serve;
mod sockets;
mod tls;

use std::{collections::HashMap, sync::Arc};

use mesh_core::{
    LabelSet, Protocol, Snapshot, Workload,
    l7::{
        GATEWAY_NAME, Topology,
        gateway::{Listener, PortListeners, Tls},
    },
};

pub(crate) use self::client_certificate::Shown;
pub(crate) use self::hello::look;
pub(crate) use self::serve::serve;
pub(crate) use self::sockets::follow;
use self::tls::Ending;
use crate::args::GatewayName;

/// Which pod this is, as far as that is known.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// The Gateway that it is a replica of.
    pub(crate) gateway: GatewayName,
    /// The pod's own name.
    pub(crate) pod: Option<GatewayName>,
    /// What its host is called, which in a cluster is as the pod.
    pub(crate) hostname: String,
}

/// All listeners of this process, by the gateway's port.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    ports: HashMap<u16, Arc<Port>>,
    /// What stands before the gateway.
    pub(crate) topology: Topology,
    /// The workload that this process is, whose policies hold for what comes in.
    pub(crate) own: Option<Arc<Workload>>,
}

/// One port of the gateway.
#[derive(Debug)]
pub(crate) struct Port {
    /// As clients know it.
    pub(crate) number: u16,
    /// Where this process listens: a Service may lead clients' port to another one.
    bound: u16,
    /// Its listeners.
    pub(crate) listeners: PortListeners,
    /// How TLS ends, for each of them; none where it does not, or cannot.
    configs: Vec<Option<Arc<Ending>>>,
}

impl Own {
    /// The workload that this process is.
    pub(crate) fn workload<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<Workload>> {
        match &self.pod {
            Some(pod) => snapshot.workload(&pod.namespace, &pod.name),
            None => snapshot.workloads().find(|workload| {
                *workload.namespace == *self.gateway.namespace
                    && workload.labels.get(GATEWAY_NAME) == Some(&*self.gateway.name)
            }),
        }
    }
}

impl Listeners {
    /// What the snapshot has for this process. How TLS ends is taken from `before` where it is the same.
    fn of(snapshot: &Snapshot, own: &Own, before: &Self) -> Self {
        let workload = own.workload(snapshot);
        let labels: Option<&LabelSet> = workload.map(|workload| &workload.labels);
        let GatewayName { namespace, name } = &own.gateway;
        let by_port = snapshot.l7().listeners_of(namespace, name, labels);
        let port = |(number, all): (u16, Vec<Arc<Listener>>)| {
            let configs = all.iter().map(|listener| before.config(listener).or_else(|| config(listener))).collect();
            let bound = workload.and_then(|workload| target_port(snapshot, workload, number)).unwrap_or(number);
            (number, Arc::new(Port { number, bound, listeners: PortListeners::new(all), configs }))
        };
        let pod = own.pod.as_ref().map(|pod| (&*pod.namespace, &*pod.name));
        let pod = pod.or_else(|| workload.map(|workload| (&*workload.namespace, &*workload.name)));
        let topology = snapshot.l7().topologies().of((namespace, name), pod);
        Self { ports: by_port.into_iter().map(port).collect(), topology, own: workload.cloned() }
    }

    /// One port.
    pub(crate) fn port(&self, number: u16) -> Option<&Arc<Port>> {
        self.ports.get(&number)
    }

    /// All ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = &Arc<Port>> {
        self.ports.values()
    }

    fn config(&self, listener: &Listener) -> Option<Arc<Ending>> {
        let port = self.ports.get(&listener.port)?;
        let same = |known: &Arc<Listener>| known.tls == listener.tls && known.name == listener.name;
        let index = port.listeners.all().iter().position(same)?;
        port.configs.get(index)?.clone()
    }
}

impl Port {
    /// How TLS ends at a listener.
    fn config(&self, listener: &Arc<Listener>) -> Option<&Arc<Ending>> {
        let index = self.listeners.all().iter().position(|known| Arc::ptr_eq(known, listener))?;
        self.configs.get(index)?.as_ref()
    }
}

fn config(listener: &Listener) -> Option<Arc<Ending>> {
    let Tls::Terminate(termination) = &listener.tls else { return None };
    match tls::ending(termination) {
        Ok(ending) => Some(Arc::new(ending)),
        Err(error) => {
            tracing::error!(gateway = %listener.gateway, listener = %listener.name, %error, "TLS cannot end here");
            None
        }
    }
}

/// The pod's port that a Service leads to from the gateway's.
fn target_port(snapshot: &Snapshot, workload: &Workload, number: u16) -> Option<u16> {
    let beside = snapshot.services().filter(|service| service.namespace == workload.namespace);
    let ports = beside.filter_map(|service| service.port(number, Protocol::Tcp));
    let own = |endpoint: &&mesh_core::Endpoint| endpoint.workload.as_ref().is_some_and(|pod| pod.uid == workload.uid);
    ports.flat_map(|port| &port.endpoints).find(own).map(|endpoint| endpoint.address.port())
}
