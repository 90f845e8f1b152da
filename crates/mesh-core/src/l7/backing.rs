//! What stands behind a backend: the port of a Service, and of its endpoints those of a subset.

use std::sync::Arc;

use super::{BackendTls, TrafficPolicy};
use crate::label_set::LabelSet;
use crate::locality::{Division, Preference, Standpoint, divide};
use crate::model::{Endpoint, Protocol, Service, ServicePort, Workload};
use crate::policy::{ClientTlsRule, Selector};
use crate::snapshot::Snapshot;

/// A port of a Service, as a waypoint or gateway sends to it.
#[derive(Debug, Clone, Copy)]
pub struct Backing<'a> {
    /// The Service.
    pub service: &'a Arc<Service>,
    /// Its port.
    pub port: &'a ServicePort,
    /// The DestinationRule that is about it.
    pub rule: Option<&'a Arc<ClientTlsRule>>,
    /// The BackendTLSPolicy that is about it. What it says of TLS comes before what the rule says.
    pub backend_tls: Option<&'a BackendTls>,
    /// The labels of the subset's endpoints; none for all endpoints.
    pub labels: Option<&'a Selector>,
}

impl<'a> Backing<'a> {
    /// What a host, port and subset name, for who sends from that namespace and with those labels. None where there is no such Service, port or
    /// subset.
    #[must_use]
    pub fn find(
        snapshot: &'a Snapshot,
        (own_namespace, own_labels): (&str, Option<&LabelSet>),
        hostname: &str,
        (port, subset): (u16, Option<&str>),
    ) -> Option<Self> {
        let service = snapshot.service_by_hostname(hostname)?;
        let port = service.port(port, Protocol::Tcp)?;
        let nobody = LabelSet::default();
        let own = Some((own_namespace, own_labels.unwrap_or(&nobody)));
        let rule = snapshot.policies().client_tls_for(own, &service.hostname, &service.namespace);
        let labels = match subset {
            None => None,
            Some(subset) => rule?.traffic.subsets.get(subset)?.labels.as_ref(),
        };
        let policies = snapshot.l7().backend_tls_of(&service.hostname).iter();
        let about = policies.filter(|policy| policy.port.is_none_or(|about| about == port.port));
        let backend_tls = about.min_by_key(|policy| policy.port.is_none());
        Some(Self { service, port, rule, backend_tls, labels })
    }

    /// How such endpoints are told apart by where they are, for who sends from there under this policy; none where all are alike. Those of a
    /// client's own node alone are found request by request.
    #[must_use]
    pub fn divide(
        &self,
        snapshot: &Snapshot,
        policy: Option<&TrafficPolicy>,
        from: &Workload,
        endpoints: &[&Endpoint],
    ) -> Option<Division> {
        let preference = Preference::of(self.service, policy, snapshot.policies().locality());
        if preference == Preference::None || self.service.placement.node_only {
            return None;
        }
        divide(endpoints, false, preference, Standpoint::of(from))
    }

    /// Of these endpoints of the port those that are sent to: the subset's, of one family. Where both families are there, they
    /// are the same pods twice.
    pub fn reached<'e>(&self, all: &'e [Endpoint]) -> impl Iterator<Item = &'e Endpoint> + use<'a, 'e> {
        let has_ipv4 = all.iter().any(|endpoint| endpoint.address.is_ipv4());
        let labels = self.labels;
        let of_family = all.iter().filter(move |endpoint| endpoint.address.is_ipv4() == has_ipv4);
        of_family.filter(move |endpoint| {
            labels.is_none_or(|labels| endpoint.labels().is_some_and(|own| labels.selects(own)))
        })
    }
}
