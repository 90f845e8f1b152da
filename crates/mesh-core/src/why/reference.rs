//! What people call a client or a destination, and what they mean.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::hosts::addresses;
use crate::model::{Protocol, Service, Workload};
use crate::snapshot::Snapshot;

/// Names that an error lists at most.
const MAX_NAMED: usize = 8;

/// Why a text names nothing. The text has to change, or the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing has that name.
    #[error("there is no {kinds} {name}{}; say NAMESPACE/NAME, or an address", within(.namespace.as_deref()))]
    Unknown {
        /// What was looked for.
        kinds: &'static str,
        /// The name.
        name: String,
        /// The only namespace that was looked into.
        namespace: Option<String>,
    },
    /// Several namespaces have such a thing.
    #[error("{name} may be {}; say which, or name its namespace with -n", .candidates.join(", "))]
    Ambiguous {
        /// The name.
        name: String,
        /// What it may be, as NAMESPACE/NAME.
        candidates: Vec<String>,
    },
    /// It has no address.
    #[error("{name} has no address{hint}")]
    NoAddress {
        /// What was found.
        name: String,
        /// What to do.
        hint: &'static str,
    },
    /// The port has to be said.
    #[error("which port of {name}? say {name}:PORT{}", ports(.known))]
    NoPort {
        /// What was found.
        name: String,
        /// The ports that it may be.
        known: Vec<u16>,
    },
    /// The port is no number.
    #[error("{0:?} is no port: a number from 1 to 65535")]
    Port(String),
}

fn within(namespace: Option<&str>) -> String {
    namespace.map_or_else(String::new, |namespace| format!(" in namespace {namespace}"))
}

fn ports(known: &[u16]) -> String {
    if known.is_empty() {
        return String::new();
    }
    let known: Vec<_> = known.iter().take(MAX_NAMED).map(u16::to_string).collect();
    format!(", such as {}", known.join(", "))
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its address, or one of several; never IPv4-mapped.
    pub address: IpAddr,
    /// Its workload, where known.
    pub workload: Option<Arc<Workload>>,
    /// How many pods the name stands for.
    pub pods: usize,
}

/// What is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The address and port that a client would use.
    pub address: SocketAddr,
    /// How many pods the name stands for; a Service's are chosen from for each connection.
    pub pods: usize,
}

/// Finds a client: `NAMESPACE/POD`, a pod's or its owner's name, or an address.
///
/// A name without a namespace is looked for in `namespace`, or where that is none in all, if it is there once.
///
/// # Errors
/// When it names nothing, or several things.
pub fn find_client(snapshot: &Snapshot, text: &str, namespace: Option<&str>) -> Result<Client, ReferenceError> {
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        return Ok(Client { address, workload: snapshot.workload_by_address(address).cloned(), pods: 1 });
    }
    let name = Name::parse(text, namespace);
    let (workload, pods) = find_pod(snapshot, &name)?.ok_or_else(|| name.unknown("pod or workload"))?;
    let address = address_of(&workload)?;
    Ok(Client { address, workload: Some(workload), pods })
}

/// Finds a destination: `SERVICE.NAMESPACE`, `NAMESPACE/SERVICE` or a Service's host name, what [`find_client`] finds, or
/// an address; each with `:PORT`, which may be left out where there is one port only.
///
/// # Errors
/// When it names nothing, several things, or no port.
pub fn find_target(snapshot: &Snapshot, text: &str, namespace: Option<&str>) -> Result<Target, ReferenceError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(Target { address: crate::snapshot::canonical(address), pods: 1 });
    }
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        let address = address.to_canonical();
        let port = only_port(&address.to_string(), None, known_ports(snapshot, address))?;
        return Ok(Target { address: SocketAddr::new(address, port), pods: 1 });
    }
    let (text, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(parse_port(port)?)),
        None => (text, None),
    };
    let name = Name::parse(text, namespace);
    if let Some(service) = find_service(snapshot, &name)? {
        let whole = format!("{}/{}", service.namespace, service.name);
        let vip = addresses(snapshot, &service).first();
        let vip = vip.ok_or_else(|| ReferenceError::NoAddress { name: whole.clone(), hint: hint(&service) })?;
        let tcp = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.port);
        let port = only_port(&whole, port, tcp.collect())?;
        return Ok(Target { address: SocketAddr::new(vip.to_canonical(), port), pods: 1 });
    }
    let (workload, pods) = find_pod(snapshot, &name)?.ok_or_else(|| name.unknown("Service, pod or workload"))?;
    let address = address_of(&workload)?;
    let port = only_port(text, port, known_ports(snapshot, address))?;
    Ok(Target { address: SocketAddr::new(address, port), pods })
}

/// What to say of a Service without an address.
fn hint(service: &Service) -> &'static str {
    match service.entry {
        Some(_) => ", and pods in the mesh are told none: `mesh-ctl analyze` says why",
        None => ": it is headless; name one of its pods",
    }
}

/// A name, and the namespace that it is looked for in.
struct Name<'a> {
    text: &'a str,
    namespace: Option<&'a str>,
    name: &'a str,
}

impl<'a> Name<'a> {
    fn parse(text: &'a str, default: Option<&'a str>) -> Self {
        match text.split_once('/') {
            Some((namespace, name)) => Self { text, namespace: Some(namespace), name },
            None => Self { text, namespace: default, name: text },
        }
    }

    /// Whether something of that name in that namespace is meant.
    fn means(&self, namespace: &str, name: &str) -> bool {
        self.name == name && self.namespace.is_none_or(|wanted| wanted == namespace)
    }

    fn unknown(&self, kinds: &'static str) -> ReferenceError {
        let namespace = self.namespace.map(str::to_owned);
        ReferenceError::Unknown { kinds, name: self.name.to_owned(), namespace }
    }

    fn one_namespace<'b>(&self, found: impl Iterator<Item = (&'b str, &'b str)>) -> Result<(), ReferenceError> {
        let mut candidates: Vec<String> = found.map(|(namespace, name)| format!("{namespace}/{name}")).collect();
        candidates.sort();
        candidates.dedup();
        if candidates.len() <= 1 {
            return Ok(());
        }
        candidates.truncate(MAX_NAMED);
        Err(ReferenceError::Ambiguous { name: self.text.to_owned(), candidates })
    }
}

/// The pod of that name, else one of the pods of the owner of that name, ready and enrolled ones first; and how many it stands for.
fn find_pod(snapshot: &Snapshot, name: &Name<'_>) -> Result<Option<(Arc<Workload>, usize)>, ReferenceError> {
    let pods = |of: fn(&Workload) -> &str| {
        let meant = move |workload: &&Arc<Workload>| name.means(&workload.namespace, of(workload));
        snapshot.workloads().filter(meant).collect::<Vec<_>>()
    };
    let mut found = pods(|workload| &workload.name);
    if found.is_empty() {
        found = pods(|workload| &workload.workload_name);
        name.one_namespace(found.iter().map(|it| (&*it.namespace, &*it.workload_name)))?;
    } else {
        name.one_namespace(found.iter().map(|it| (&*it.namespace, &*it.name)))?;
    }
    let best = found.iter().max_by_key(|workload| (workload.is_enrolled(), workload.ready));
    Ok(best.map(|workload| (Arc::clone(workload), found.len())))
}

/// The Service of that name or host name.
fn find_service(snapshot: &Snapshot, name: &Name<'_>) -> Result<Option<Arc<Service>>, ReferenceError> {
    let text = name.text.trim_end_matches('.');
    let by_host = |service: &&Arc<Service>| {
        let rest = text.strip_prefix(&*service.name).and_then(|rest| rest.strip_prefix('.'));
        let short = rest.is_some_and(|rest| rest.strip_suffix(".svc").unwrap_or(rest) == &*service.namespace);
        short || text == &*service.hostname
    };
    let meant = |service: &&Arc<Service>| name.means(&service.namespace, &service.name) || by_host(service);
    let found: Vec<_> = snapshot.services().filter(meant).collect();
    name.one_namespace(found.iter().map(|service| (&*service.namespace, &*service.name)))?;
    Ok(found.first().map(|service| Arc::clone(service)))
}

fn address_of(workload: &Workload) -> Result<IpAddr, ReferenceError> {
    let first = workload.addresses.first().map(IpAddr::to_canonical);
    let name = format!("{}/{}", workload.namespace, workload.name);
    first.ok_or(ReferenceError::NoAddress { name, hint: " yet: it is not running" })
}

/// The ports at which Services know an address.
fn known_ports(snapshot: &Snapshot, address: IpAddr) -> Vec<u16> {
    let ports = snapshot.services().flat_map(|service| &service.ports).filter(|port| port.protocol == Protocol::Tcp);
    let endpoints = ports.flat_map(|port| &port.endpoints).map(|endpoint| endpoint.address);
    let own = endpoints.filter(|endpoint| endpoint.ip().to_canonical() == address);
    own.map(|endpoint| endpoint.port()).collect()
}

fn only_port(name: &str, port: Option<u16>, mut known: Vec<u16>) -> Result<u16, ReferenceError> {
    known.sort_unstable();
    known.dedup();
    match (port, &known[..]) {
        (Some(port), _) => Ok(port),
        (None, [only]) => Ok(*only),
        (None, _) => Err(ReferenceError::NoPort { name: name.to_owned(), known }),
    }
}

fn parse_port(text: &str) -> Result<u16, ReferenceError> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| ReferenceError::Port(text.to_owned()))
}
