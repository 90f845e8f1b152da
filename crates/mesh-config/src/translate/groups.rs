//! What is translated as a whole, when something of it changes or something that it names comes or goes: policies and the
//! application layer. Policies do not care for a Pod's change, nor does the application layer where nobody uses it.

use std::sync::Arc;

use mesh_core::labels::{Labels, USE_WAYPOINT};
use mesh_core::{Service, Workload};

use super::changes::Changes;
use super::finding_set::Owner;
use super::{
    Translator, attached_routes, backend_tls, conflicts, gateways, guards, mesh_config, origin_secrets, policies,
    rate_limits, targets, telemetries, virtual_services, waypoints,
};
use crate::status::Statuses;

impl Translator {
    pub(super) fn settle_groups(&mut self, changes: &mut Changes) {
        let names_changed = changes.services.iter().any(|change| change.before.is_some() != change.now.is_some());
        let policies = std::mem::take(&mut self.dirty.policies) || names_changed;
        let names_providers = !self.definitions.objects.mesh_configs.is_empty();
        if std::mem::take(&mut self.dirty.providers) || names_providers && !changes.services.is_empty() {
            changes.providers = self.settle_providers();
        }
        if std::mem::take(&mut self.dirty.telemetries) {
            changes.telemetries = self.settle_telemetries();
        }
        if std::mem::take(&mut self.dirty.rate_limits) {
            changes.rate_limits = self.settle_rate_limits();
        }
        let l7 = std::mem::take(&mut self.dirty.l7) || policies;
        if l7 || changes.services.iter().any(attached_routes::is_seen) {
            self.known_routes.clear();
        }
        let l7 = std::mem::take(&mut self.dirty.routes) || l7 || self.concerns_l7(changes);
        if !policies && !l7 {
            return;
        }
        // Where nothing names a Service or a Pod, all of a large cluster's need not be looked at for a policy's change.
        let is_used = self.names_anybody();
        let services: Vec<Arc<Service>> = self.snapshot.services().filter(|_| is_used).cloned().collect();
        if policies {
            changes.policies = self.settle_policies(&services);
        }
        if l7 {
            let workloads: Vec<Arc<Workload>> = self.snapshot.workloads().filter(|_| is_used).cloned().collect();
            changes.l7 = self.settle_l7(&services, &workloads);
        }
    }

    fn settle_telemetries(&mut self) -> bool {
        let mut findings = Vec::new();
        let telemetries = telemetries::telemetries(&self.definitions.objects, &self.options, &mut findings);
        self.findings.set(Owner::Telemetries, findings);
        let changed = telemetries != *self.snapshot.telemetries();
        if changed {
            self.snapshot.set_telemetries(telemetries);
        }
        changed
    }

    fn settle_rate_limits(&mut self) -> bool {
        let mut findings = Vec::new();
        let limits = rate_limits::rate_limits(&self.definitions.objects, &self.options, &mut findings);
        self.findings.set(Owner::RateLimits, findings);
        let changed = limits != *self.snapshot.rate_limits();
        if changed {
            self.snapshot.set_rate_limits(limits);
        }
        changed
    }

    fn settle_providers(&mut self) -> bool {
        let mut findings = Vec::new();
        let objects = &self.definitions.objects;
        let providers = mesh_config::providers(objects, &self.options, &self.snapshot, &mut findings);
        self.findings.set(Owner::MeshConfig, findings);
        let changed = providers != *self.snapshot.providers();
        if changed {
            self.snapshot.set_providers(providers);
        }
        changed
    }

    fn settle_policies(&mut self, services: &[Arc<Service>]) -> bool {
        let mut findings = Vec::new();
        let policies = policies::policies(&self.definitions.objects, &self.options, services, &mut findings);
        self.findings.set(Owner::Policies, findings);
        let changed = policies != *self.snapshot.policies();
        if changed {
            self.snapshot.set_policies(policies);
        }
        changed
    }

    fn settle_l7(&mut self, services: &[Arc<Service>], workloads: &[Arc<Workload>]) -> bool {
        let mut findings = Vec::new();
        let (objects, policies) = (&self.definitions.objects, self.snapshot.policies());
        let before = self.snapshot.l7();
        let by = (objects, &self.options);
        let l7 = waypoints::waypoints(by, self.anybody_asks(), workloads, services, &mut findings);
        waypoints::report_missing(objects, (services, workloads), policies, &l7, &mut findings);
        let l7 = guards::guards(l7, policies, services, workloads);
        let said = virtual_services::routes(objects, &self.options, services, policies, &l7, &mut findings);
        let (attached, at_listeners, of_routes) = attached_routes::routes(
            (objects, &mut self.known_routes),
            services,
            (&l7, before),
            &said.routes,
            &mut findings,
        );
        let by = (&self.options, workloads);
        let attached_there = (at_listeners, said.at_gateways);
        let mut gateways = gateways::gateways(objects, by, attached_there, before.gateways(), &mut findings);
        conflicts::report_weights(objects, &mut findings);
        conflicts::report_listeners(objects, &gateways.all, workloads, &mut findings);
        conflicts::report_shadows(objects, &gateways.all, &mut findings);
        let at_gateways = (&*gateways.all, &mut gateways.named);
        let begun = backend_tls::policies(objects, &self.options, (services, &l7), at_gateways, &mut findings);
        let l7 = l7.with_backend_tls(begun.by_host);
        backend_tls::report_rules(objects, &l7, &self.options.cluster_domain, &mut findings);
        let secrets = origin_secrets::secrets(objects, &self.options, &l7, &mut gateways.named, &mut findings);
        let l7 = l7.with_origin_secrets(secrets);
        if *self.named != gateways.named {
            self.named = Arc::new(gateways.named);
        }
        if self.options.statuses {
            let statuses = Statuses {
                gateways: gateways.statuses,
                listener_sets: gateways.of_sets,
                routes: of_routes,
                backend_tls: begun.statuses,
            };
            if *self.statuses != statuses {
                self.statuses = Arc::new(statuses);
            }
        }
        let l7 = l7.with_routes(said.routes.into_iter().chain(attached).collect()).with_gateways(gateways.all);
        let l7 = l7.with_connections(said.connections).with_defaults(mesh_config::defaults(objects));
        let l7 = l7.with_topologies(gateways::topologies(objects, &self.topologies, &mut findings));
        let by = (policies, self.snapshot.providers());
        targets::report_idle(objects, by, services, workloads, &l7, &mut findings);
        self.findings.set(Owner::L7, findings);
        let changed = l7 != *self.snapshot.l7();
        if changed {
            self.snapshot.set_l7(l7);
        }
        changed
    }

    /// Whether an object names a waypoint, or none.
    fn anybody_asks(&self) -> bool {
        let objects = &self.definitions.objects;
        self.asking > 0
            || objects.namespaces.values().any(|located| asks(located.object.metadata.labels.as_ref()))
            || objects.service_entries.values().any(|located| asks(Some(&located.object.labels)))
    }

    /// Whether there is an object of the groups that names Services or Pods, or is about some of them. A policy with a selector is
    /// not: whom it selects is asked when a connection is made.
    fn names_anybody(&self) -> bool {
        let objects = &self.definitions.objects;
        let attached = || objects.authorization_policies.values().any(|located| !located.object.targets.is_empty());
        let told_of = || objects.telemetries.values().any(|located| located.object.is_attached());
        !objects.destination_rules.is_empty()
            || !objects.backend_tls_policies.is_empty()
            || !objects.gateways.is_empty()
            || !objects.istio_gateways.is_empty()
            || !objects.virtual_services.is_empty()
            || !objects.http_routes.is_empty()
            || !objects.grpc_routes.is_empty()
            || !objects.tls_routes.is_empty()
            || !objects.tcp_routes.is_empty()
            || !objects.service_entries.is_empty()
            || !objects.request_authentications.is_empty()
            || !objects.rate_limit_policies.is_empty()
            || !objects.envoy_filters.is_empty()
            || self.anybody_asks()
            || attached()
            || told_of()
    }

    /// Whether Pods and Services that changed are the application layer's business: routes name ports and subsets, guards are
    /// of endpoints, and waypoints have Pods. Where nobody uses it, nothing is.
    fn concerns_l7(&self, changes: &Changes) -> bool {
        let objects = &self.definitions.objects;
        let routes = objects.virtual_services.len()
            + objects.http_routes.len()
            + objects.grpc_routes.len()
            + objects.istio_gateways.len();
        let used = routes > 0
            || !objects.gateways.is_empty()
            || !objects.backend_tls_policies.is_empty()
            || !objects.service_entries.is_empty()
            || objects.namespaces.values().any(|namespace| asks(namespace.object.metadata.labels.as_ref()));
        let mut both = changes.workloads.iter().flat_map(|change| [&change.before, &change.now]).flatten();
        used && !(changes.workloads.is_empty() && changes.services.is_empty())
            || both.any(|workload| workload.labels.get(USE_WAYPOINT).is_some())
    }
}

fn asks(labels: Option<&Labels>) -> bool {
    labels.is_some_and(|labels| labels.contains_key(USE_WAYPOINT))
}
