//! The application layer: routes and what they ask for, how requests are spread, and which waypoint does that.
//!
//! Pure, and independent of any HTTP library: a request is a [`RequestView`], and chance and time are passed in.

mod backend_tls;
pub mod backing;
pub mod connections;
pub mod cors;
mod describe;
pub mod field_value;
pub mod gateway;
mod hosts;
pub mod matching;
pub mod path;
pub mod place;
mod redirect;
pub mod request;
pub mod resilience;
pub mod rule;
mod session;
pub mod split;
pub mod table;
pub mod topology;
pub mod traffic;
pub mod waypoint;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

pub use backend_tls::BackendTls;
pub use backing::Backing;
pub use connections::{Begun, ConnectionMatch, ConnectionRule, ConnectionView, ServiceConnections};
pub use field_value::FieldValue;
pub use gateway::Gateway;
pub use matching::{ClientMatch, FieldMatch, PathMatch, Regex, RegexError, RequestMatch, TextMatch};
pub use place::{GatewayPlace, Place, routes_for, service_meant};
pub use request::RequestView;
pub use resilience::{Abort, Fault, Percent, Retry, RetryOn, Timeouts};
pub use rule::{Action, Backend, BackendTarget, HeaderEdits, Rule, RuleRef};
pub use session::{Session, SessionPlace, SessionToken};
pub use table::{Found, HostRules, Precedence, RouteTable};
pub use topology::{Topologies, Topology};
pub use traffic::{TrafficPolicy, TrafficRule};
pub use waypoint::{GATEWAY_NAME, Guard, Served, WAYPOINT_PORT, Waypoint};

use self::gateway::{Credential, GatewayPods, Listener};
use self::traffic::{Defaults, OriginSecret};
use crate::label_set::LabelSet;
use crate::model::{Service, Workload};
use crate::workload_uid::WorkloadUid;

/// The rules of one Service, for some of its ports and clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceRoutes {
    /// The Service's full host name; or a host that is none's, by which requests to Services may ask for these rules.
    pub hostname: Arc<str>,
    /// Where the host is no Service's, the namespace whose Services' requests may ask so.
    pub of_host_in: Option<Arc<str>>,
    /// The port that they are for; none for all that have none of their own.
    pub port: Option<u16>,
    /// The namespace whose clients they are for; none for all that have none of their own.
    pub clients: Option<Arc<str>>,
    /// The rules.
    pub table: Arc<RouteTable>,
}

/// Everything of the application layer in a snapshot.
#[derive(Debug, Clone, Default)]
pub struct L7 {
    routes: Vec<ServiceRoutes>,
    by_hostname: HashMap<Arc<str>, Vec<usize>>,
    connections: HashMap<Arc<str>, Vec<ServiceConnections>>,
    waypoints: Vec<Arc<Waypoint>>,
    service_waypoints: HashMap<Arc<str>, Arc<Waypoint>>,
    workload_waypoints: HashMap<WorkloadUid, Arc<Waypoint>>,
    guards: HashMap<WorkloadUid, Vec<Guard>>,
    gateways: Vec<Arc<Gateway>>,
    topologies: Topologies,
    defaults: Defaults,
    origin_secrets: HashMap<(Arc<str>, Arc<str>), OriginSecret>,
    backend_tls: HashMap<Arc<str>, Vec<BackendTls>>,
}

impl PartialEq for L7 {
    fn eq(&self, other: &Self) -> bool {
        self.routes == other.routes
            && self.connections == other.connections
            && self.waypoints == other.waypoints
            && self.service_waypoints == other.service_waypoints
            && self.workload_waypoints == other.workload_waypoints
            && self.guards == other.guards
            && self.gateways == other.gateways
            && self.topologies == other.topologies
            && self.defaults == other.defaults
            && self.origin_secrets == other.origin_secrets
            && self.backend_tls == other.backend_tls
    }
}

impl Eq for L7 {}

impl L7 {
    /// The routes of Services. Of several for the same host, port and clients, the first counts.
    #[must_use]
    pub fn with_routes(mut self, routes: Vec<ServiceRoutes>) -> Self {
        self.by_hostname.clear();
        for (index, routes) in routes.iter().enumerate() {
            self.by_hostname.entry(Arc::clone(&routes.hostname)).or_default().push(index);
        }
        self.routes = routes;
        self
    }

    /// The rules of connections to Services. Of several for the same host and clients, the first counts.
    #[must_use]
    pub fn with_connections(mut self, connections: Vec<ServiceConnections>) -> Self {
        self.connections.clear();
        for rules in connections {
            self.connections.entry(Arc::clone(&rules.hostname)).or_default().push(rules);
        }
        self
    }

    /// The waypoints, and what is reached by them: Services by their full host name, and workloads.
    #[must_use]
    pub fn with_waypoints(
        mut self,
        waypoints: Vec<Arc<Waypoint>>,
        services: HashMap<Arc<str>, Arc<Waypoint>>,
        workloads: HashMap<WorkloadUid, Arc<Waypoint>>,
    ) -> Self {
        self.waypoints = waypoints;
        self.service_waypoints = services;
        self.workload_waypoints = workloads;
        self
    }

    /// The ports at which workloads take connections from waypoints alone.
    #[must_use]
    pub fn with_guards(mut self, guards: HashMap<WorkloadUid, Vec<Guard>>) -> Self {
        self.guards = guards;
        self
    }

    /// The gateways.
    #[must_use]
    pub fn with_gateways(mut self, gateways: Vec<Arc<Gateway>>) -> Self {
        self.gateways = gateways;
        self
    }

    /// What stands before gateways.
    #[must_use]
    pub fn with_topologies(mut self, topologies: Topologies) -> Self {
        self.topologies = topologies;
        self
    }

    /// What the mesh configuration asks for where nothing nearer does.
    #[must_use]
    pub fn with_defaults(mut self, defaults: Defaults) -> Self {
        self.defaults = defaults;
        self
    }

    /// The same.
    #[must_use]
    pub const fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// What Secrets have for TLS to endpoints, by namespace and name.
    #[must_use]
    pub fn with_origin_secrets(mut self, secrets: HashMap<(Arc<str>, Arc<str>), OriginSecret>) -> Self {
        self.origin_secrets = secrets;
        self
    }

    /// What the Secret of that name has for a proxy of that namespace.
    #[must_use]
    pub fn origin_secret(&self, namespace: &str, name: &Arc<str>) -> Option<&OriginSecret> {
        self.origin_secrets.get(&(namespace.into(), Arc::clone(name)))
    }

    /// What BackendTLSPolicies say, by the Services' full host names.
    #[must_use]
    pub fn with_backend_tls(mut self, backend_tls: HashMap<Arc<str>, Vec<BackendTls>>) -> Self {
        self.backend_tls = backend_tls;
        self
    }

    /// What BackendTLSPolicies say of a Service.
    #[must_use]
    pub fn backend_tls_of(&self, hostname: &str) -> &[BackendTls] {
        self.backend_tls.get(hostname).map_or(&[], Vec::as_slice)
    }

    /// What stands before gateways.
    #[must_use]
    pub const fn topologies(&self) -> &Topologies {
        &self.topologies
    }

    /// All gateways, the oldest first.
    #[must_use]
    pub fn gateways(&self) -> &[Arc<Gateway>] {
        &self.gateways
    }

    /// What the Gateway API's Gateway of that name shows to backends to which a BackendTLSPolicy has TLS begun.
    #[must_use]
    pub fn shown_by(&self, namespace: &str, name: &str) -> Option<&Arc<Credential>> {
        let own = self.gateways.iter().find(|gateway| {
            gateway.pods == GatewayPods::Own && *gateway.namespace == *namespace && *gateway.name == *name
        });
        own?.shown.as_ref()
    }

    /// The listeners, by port, of the pod of these labels that runs for the Gateway of that name.
    #[must_use]
    pub fn listeners_of(
        &self,
        namespace: &str,
        name: &str,
        labels: Option<&LabelSet>,
    ) -> BTreeMap<u16, Vec<Arc<Listener>>> {
        let mut by_port: BTreeMap<u16, Vec<_>> = BTreeMap::new();
        let own = self.gateways.iter().filter(|gateway| gateway.runs_as(namespace, name, labels));
        for listener in own.flat_map(|gateway| &gateway.listeners) {
            by_port.entry(listener.port).or_default().push(Arc::clone(listener));
        }
        by_port
    }

    /// The ports at which a workload takes connections from waypoints alone.
    #[must_use]
    pub fn guards_of(&self, workload: &Workload) -> &[Guard] {
        self.guards.get(&workload.uid).map_or(&[], Vec::as_slice)
    }

    /// The rules for what clients of a namespace send to a port of a Service. Rules for these clients come before those
    /// for all, and then rules for the port before those for every port. None where nobody has written any.
    #[must_use]
    pub fn service_routes(&self, clients: Option<&str>, hostname: &str, port: u16) -> Option<&Arc<RouteTable>> {
        let candidates = self.by_hostname.get(hostname)?.iter().filter_map(|index| self.routes.get(*index));
        let fitting = candidates.filter(|routes| {
            routes.of_host_in.is_none()
                && routes.port.is_none_or(|own| own == port)
                && routes.clients.as_deref().is_none_or(|own| Some(own) == clients)
        });
        let best = fitting.min_by_key(|routes| (routes.clients.is_none(), routes.port.is_none()));
        best.map(|routes| &routes.table)
    }

    /// The rules for connections of clients of a namespace to a Service; those for these clients come before those for all.
    #[must_use]
    pub fn connection_rules(&self, clients: Option<&str>, hostname: &str) -> Option<&Arc<[ConnectionRule]>> {
        let is_for = |rules: &&ServiceConnections| rules.clients.as_deref().is_none_or(|own| Some(own) == clients);
        let fitting = self.connections.get(hostname)?.iter().filter(is_for);
        fitting.min_by_key(|rules| rules.clients.is_none()).map(|rules| &rules.rules)
    }

    /// The rules of a host that is no Service's, for a request of it to a Service of that namespace.
    #[must_use]
    pub fn host_routes(&self, clients: Option<&str>, namespace: &str, host: &str) -> Option<&Arc<RouteTable>> {
        let mut candidates = self.by_hostname.get(host)?.iter().filter_map(|index| self.routes.get(*index));
        let found = candidates.find(|routes| {
            routes.of_host_in.as_deref() == Some(namespace)
                && routes.clients.as_deref().is_none_or(|own| Some(own) == clients)
        });
        found.map(|routes| &routes.table)
    }

    /// All routes of Services, in the order given.
    #[must_use]
    pub fn routes(&self) -> &[ServiceRoutes] {
        &self.routes
    }

    /// All waypoints, in the order given.
    #[must_use]
    pub fn waypoints(&self) -> &[Arc<Waypoint>] {
        &self.waypoints
    }

    /// The waypoint that takes what is sent to a Service.
    #[must_use]
    pub fn waypoint_of(&self, service: &Service) -> Option<&Arc<Waypoint>> {
        self.service_waypoints.get(&service.hostname)
    }

    /// The waypoint that takes what is sent to a workload's own address.
    #[must_use]
    pub fn waypoint_of_workload(&self, workload: &Workload) -> Option<&Arc<Waypoint>> {
        self.workload_waypoints.get(&workload.uid)
    }
}
