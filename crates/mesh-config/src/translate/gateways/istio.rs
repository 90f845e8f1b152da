//! Istio's Gateways, with the VirtualServices that name them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::Workload;
use mesh_core::l7::gateway::{ClientCertificates, ConnectionRoute, GatewayPods, Listener, Serves, Termination, Tls};
use mesh_core::l7::{GATEWAY_NAME, Gateway, Precedence, Rule};
use mesh_core::policy::{HostPattern, Selector};

use super::Tables;
use super::credentials::Keychain;
use super::hosts::{common, pattern, patterns};
use crate::code::Code;
use crate::config::{NamedObjects, Options};
use crate::finding::{Finding, Origin};
use crate::istio::{Carries, Clients, IstioGateway, Server, ServerTls};
use crate::object::{Key, Located, ObjectSet};

/// A route of connections, with the port that it is for; none for all.
pub(in crate::translate) type AtPort = (Option<u16>, ConnectionRoute);

/// What VirtualServices say of the traffic of gateways, by the gateway, the oldest first.
#[derive(Debug, Default)]
pub(in crate::translate) struct VirtualServiceRoutes {
    /// Rules of requests.
    pub(in crate::translate) rules: BTreeMap<Key, Vec<Routes<Arc<Rule>>>>,
    /// Routes of connections, with the port that each is for.
    pub(in crate::translate) connections: BTreeMap<Key, Vec<Routes<AtPort>>>,
}

/// What one VirtualService says.
#[derive(Debug)]
pub(in crate::translate) struct Routes<T> {
    /// The VirtualService's namespace.
    pub(in crate::translate) namespace: Arc<str>,
    /// The namespaces whose gateways it is for; none for all.
    pub(in crate::translate) exported_to: Option<Vec<Arc<str>>>,
    /// Where it stands.
    pub(in crate::translate) origin: Arc<Origin>,
    /// Its hosts.
    pub(in crate::translate) hosts: Vec<HostPattern>,
    /// What it says.
    pub(in crate::translate) said: Vec<T>,
}

pub(super) fn gateway(
    located: &Located<IstioGateway>,
    objects: &ObjectSet,
    (options, workloads): (&Options, &[Arc<Workload>]),
    named: &RefCell<NamedObjects>,
    (routes, tables): (&mut VirtualServiceRoutes, &Tables<'_>),
    findings: &mut Vec<Finding>,
) -> Gateway {
    let IstioGateway { name, selector, servers, .. } = &*located.object;
    let key: Key = (Arc::clone(&name.namespace), Arc::clone(&name.name));
    let mut rules = routes.rules.remove(&key).unwrap_or_default();
    let mut connections = routes.connections.remove(&key).unwrap_or_default();
    let full_name: Arc<str> = name.to_string().into();
    let pod = workloads.iter().find(|workload| is_selected(selector.as_ref(), workload));
    // Pods use Secrets, and are told of VirtualServices, of their own namespace.
    let at = pod.map_or(&name.namespace, |pod| &pod.namespace);
    report_kept(&rules, at, &full_name, findings);
    rules.retain(|routes| routes.is_for(at));
    connections.retain(|routes| routes.is_for(at));
    let runs = pod.and_then(|pod| pod.labels.get(GATEWAY_NAME)).map_or_else(|| Arc::clone(&name.name), Into::into);
    let keychain = Keychain::new(objects, (Arc::clone(at), runs), &options.credentials, named);
    let listener = |server: &Server| {
        let tls = tls(&server.tls, at, &keychain, |message| {
            let finding = Finding::new(Code::NoCertificate, (*located.origin).clone(), message);
            findings.push(finding.at(format!("spec.servers[{}].tls.credentialName", server.index)));
        });
        let serves = match server.carries {
            Carries::Http => {
                let of_server = rules
                    .iter()
                    .filter_map(|routes| Some((common_of(server, &name.namespace, routes)?, routes.said.clone())));
                let table = tables.table((&full_name, &server.name), of_server.collect(), Precedence::AsWritten);
                Serves::Requests { table, to_https: server.to_https }
            }
            Carries::Tcp => Serves::Connections(
                connections
                    .iter()
                    .filter(|routes| common_of(server, &name.namespace, routes).is_some())
                    .flat_map(|routes| &routes.said)
                    .filter(|(port, _)| port.is_none_or(|port| port == server.port))
                    .map(|(_, route)| route.clone())
                    .collect(),
            ),
        };
        Arc::new(Listener {
            gateway: Arc::clone(&full_name),
            name: server.name.as_str().into(),
            port: server.port,
            hosts: patterns(server.hosts.iter().map(|(_, host)| host)),
            tls,
            serves,
        })
    };
    let listeners = servers.iter().map(listener).collect();
    let (namespace, name) = key;
    Gateway { namespace, name, pods: GatewayPods::Selected(selector.clone()), listeners, shown: None }
}

/// Whether the pod may be one of the Gateway's. Without a selector it is for all gateways, which their label tells from other pods.
fn is_selected(selector: Option<&Selector>, workload: &Workload) -> bool {
    match selector {
        Some(own) => own.selects(&workload.labels),
        None => workload.labels.get(GATEWAY_NAME).is_some(),
    }
}

/// Says which VirtualServices name a gateway that runs where they are not exported to.
fn report_kept<T>(all: &[Routes<T>], at: &str, gateway: &str, findings: &mut Vec<Finding>) {
    for routes in all.iter().filter(|routes| !routes.is_for(at)) {
        let message = format!("exportTo does not name {at}, where Gateway {gateway} runs: it is not in force there");
        findings.push(Finding::new(Code::RouteNotAllowed, (*routes.origin).clone(), message).at("spec.exportTo"));
    }
}

impl<T> Routes<T> {
    /// Whether gateways of that namespace are told of it.
    fn is_for(&self, namespace: &str) -> bool {
        self.exported_to.as_ref().is_none_or(|namespaces| namespaces.iter().any(|known| **known == *namespace))
    }
}

/// The hosts that a server has in common with a VirtualService, among those of which it may say something.
fn common_of<T>(server: &Server, own: &str, routes: &Routes<T>) -> Option<Vec<HostPattern>> {
    let of_namespace = server.hosts.iter().filter(|(namespace, _)| match namespace.as_deref() {
        None => true,
        Some(".") => *routes.namespace == *own,
        Some(namespace) => *routes.namespace == *namespace,
    });
    let ours: Vec<_> = of_namespace.map(|(_, host)| pattern(host)).collect();
    common(&ours, &routes.hosts)
}

fn tls(written: &ServerTls, namespace: &str, keychain: &Keychain<'_>, mut tell: impl FnMut(String)) -> Tls {
    let (names, clients, only_tls13) = match written {
        ServerTls::None => return Tls::None,
        ServerTls::Passthrough => return Tls::Passthrough,
        ServerTls::Terminate { credentials, clients, only_tls13 } => (credentials, clients, *only_tls13),
    };
    let mut credentials = Vec::new();
    let mut roots: Vec<Arc<[u8]>> = Vec::new();
    for name in names.iter().filter(|_| keychain.is_read()) {
        match keychain.credential(namespace, name) {
            Ok(credential) => credentials.push(credential),
            Err(why) => tell(why),
        }
        if *clients != Clients::NotAsked {
            match keychain.client_roots(namespace, name) {
                Ok(found) => roots.extend(found.iter().cloned()),
                Err(why) => tell(why),
            }
        }
    }
    let clients = match clients {
        Clients::NotAsked => ClientCertificates::NotAsked,
        Clients::Required => ClientCertificates::Required(roots.into()),
        Clients::Optional => ClientCertificates::Optional(roots.into()),
    };
    Tls::Terminate(Arc::new(Termination { credentials, clients, only_tls13 }))
}
