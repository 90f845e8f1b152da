//! What is translated as a whole, when something of it changes or something that it names comes or goes: policies and the
//! application layer. Policies do not care for a Pod's change, nor does the application layer where nobody uses it.

use std::sync::Arc;

use mesh_core::labels::{Labels, USE_WAYPOINT};
use mesh_core::{Service, Workload};

use super::changes::Changes;
use super::finding_set::Owner;
use super::{
    Translator, attached_routes, authorizers, backend_tls, conflicts, gateways, guards, mesh_config, policies,
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
        let l7 = std::mem::take(&mut self.dirty.l7) || policies || self.concerns_l7(changes);
        if !policies && !l7 {
            return;
        }
        let services: Vec<Arc<Service>> = self.snapshot.services().cloned().collect();
        if policies {
            changes.policies = self.settle_policies(&services);
        }
        if l7 {
            changes.l7 = self.settle_l7(&services);
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

    fn settle_l7(&mut self, services: &[Arc<Service>]) -> bool {
        let workloads: Vec<Arc<Workload>> = self.snapshot.workloads().cloned().collect();
        let mut findings = Vec::new();
        let (objects, policies) = (&self.definitions.objects, self.snapshot.policies());
        let l7 = waypoints::waypoints(objects, &self.options, &workloads, services, &mut findings);
        waypoints::report_missing(objects, services, policies, &l7, &mut findings);
        authorizers::report_missing(objects, self.snapshot.providers(), &mut findings);
        let l7 = guards::guards(l7, policies, services, &workloads);
        let (routes, at_gateways) =
            virtual_services::routes(objects, &self.options, services, policies, &l7, &mut findings);
        let (attached, at_listeners, of_routes) =
            attached_routes::routes(objects, services, &l7, &routes, &mut findings);
        let by = (&self.options, &*workloads);
        let mut gateways = gateways::gateways(objects, by, at_listeners, at_gateways, &mut findings);
        conflicts::report_weights(objects, &mut findings);
        conflicts::report_listeners(objects, &gateways.all, &workloads, &mut findings);
        conflicts::report_shadows(objects, &gateways.all, &mut findings);
        let of_services = (services, &l7);
        let tls = backend_tls::policies(objects, &self.options, of_services, &mut gateways.named, &mut findings);
        let l7 = l7.with_backend_tls(tls);
        backend_tls::report_rules(objects, &l7, &self.options.cluster_domain, &mut findings);
        if *self.named != gateways.named {
            self.named = Arc::new(gateways.named);
        }
        if self.options.statuses {
            let statuses = Statuses { gateways: gateways.statuses, routes: of_routes };
            if *self.statuses != statuses {
                self.statuses = Arc::new(statuses);
            }
        }
        let l7 = l7.with_routes(routes.into_iter().chain(attached).collect()).with_gateways(gateways.all);
        let l7 = l7.with_topologies(gateways::topologies(objects, &mut findings));
        targets::report_idle(objects, policies, services, &workloads, &l7, &mut findings);
        self.findings.set(Owner::L7, findings);
        let changed = l7 != *self.snapshot.l7();
        if changed {
            self.snapshot.set_l7(l7);
        }
        changed
    }

    /// Whether Pods and Services that changed are the application layer's business: routes name ports and subsets, guards are
    /// of endpoints, and waypoints have Pods. Where nobody uses it, nothing is.
    fn concerns_l7(&self, changes: &Changes) -> bool {
        let objects = &self.definitions.objects;
        let routes = objects.virtual_services.len()
            + objects.http_routes.len()
            + objects.grpc_routes.len()
            + objects.istio_gateways.len();
        let asks = |labels: Option<&Labels>| labels.is_some_and(|labels| labels.contains_key(USE_WAYPOINT));
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
