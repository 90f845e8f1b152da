//! DestinationRule of networking.istio.io.

mod tls;
mod traffic;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::l7::traffic::{ProxyProtocol, Subset};
use mesh_core::l7::{TrafficPolicy, TrafficRule};
use mesh_core::policy::{ClientTls, ClientTlsRule, HostPattern, Selector};
use serde::Deserialize;
use serde_json::Value;

use self::tls::RawTls;
pub(super) use self::traffic::RawKeepalive;
use self::traffic::{RawLoadBalancer, RawOutlier, RawPool, RawRetryBudget, RawTraffic};
use super::{Age, Flaw, Remark, WorkloadSelector, decode, policy_name, selector};
use crate::code::Code;
use crate::finding::ObjectName;

/// Fields of one object that get a finding each; there is no end to what an object may hold.
const MAX_REMARKS: usize = 64;

/// A DestinationRule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestinationRule {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// The host as it is written.
    pub host: String,
    /// The namespaces whose clients it is for; none for all.
    pub exported_to: Option<Vec<Arc<str>>>,
    /// The clients that it is for.
    pub clients: Option<Selector>,
    /// For all ports.
    pub tls: Option<ClientTls>,
    /// For some ports.
    pub ports: BTreeMap<u16, Option<ClientTls>>,
    /// What it says beside TLS.
    pub traffic: Arc<TrafficRule>,
    /// When it was made.
    pub age: Age,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    /// The Service that it is about.
    host: String,
    /// How it is talked to.
    traffic_policy: Option<RawPolicy>,
    /// Versions of it, by labels of its pods.
    subsets: Option<Vec<RawSubset>>,
    /// The namespaces whose clients it is for: . for its own, * for all.
    export_to: Option<Vec<String>>,
    /// The clients that it is for.
    workload_selector: Option<WorkloadSelector>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPolicy {
    /// TLS towards the endpoints.
    tls: Option<RawTls>,
    /// The same for single ports.
    port_level_settings: Option<Vec<RawPortPolicy>>,
    /// How requests are spread.
    load_balancer: Option<RawLoadBalancer>,
    /// What is kept from it: limits of connections and requests.
    connection_pool: Option<RawPool>,
    /// When an endpoint is left out for a while.
    outlier_detection: Option<RawOutlier>,
    /// Read, and not honoured: a finding says so.
    tunnel: Option<Value>,
    /// The header of the PROXY protocol that connections begin with.
    proxy_protocol: Option<RawProxyProtocol>,
    /// How many retries may be under way; connectionPool's maxRetries says nothing then.
    retry_budget: Option<RawRetryBudget>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawProxyProtocol {
    /// V1 where nothing is said.
    version: Option<RawProxyVersion>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum RawProxyVersion {
    V1,
    V2,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawPortPolicy {
    /// The port.
    port: PortSelector,
    /// TLS towards the endpoints.
    tls: Option<RawTls>,
    /// How requests are spread.
    load_balancer: Option<RawLoadBalancer>,
    /// Limits of connections and requests.
    connection_pool: Option<RawPool>,
    /// When an endpoint is left out for a while.
    outlier_detection: Option<RawOutlier>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawSubset {
    /// What it is called in routes.
    name: String,
    /// Labels of its pods.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// How it is talked to, where that differs.
    traffic_policy: Option<RawPolicy>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct PortSelector {
    /// The number.
    number: u16,
}

impl DestinationRule {
    pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let age = Age::of(&resource.metadata);
        let Some(spec) = resource.spec else {
            return Err(Flaw::value("spec.host", "the rule is about no host"));
        };
        let mut remarks = Vec::new();
        check_host(&spec.host)?;
        let name = policy_name(name);
        let exported_to = exported_to(spec.export_to, &name.namespace)?;
        let clients = selector(spec.workload_selector, "spec.workloadSelector")?;
        let settings = spec.traffic_policy.unwrap_or_default().read("spec.trafficPolicy", false, &mut remarks)?;
        let mut subsets = BTreeMap::new();
        for (index, raw) in spec.subsets.into_iter().flatten().enumerate() {
            let (subset_name, subset) = raw.read(&format!("spec.subsets[{index}]"), &mut remarks)?;
            if subsets.insert(Arc::clone(&subset_name), subset).is_some() {
                let message = format!("subset {subset_name} is there before");
                return Err(Flaw::value(format!("spec.subsets[{index}].name"), message));
            }
        }
        let Settings { tls, traffic: policy, ports } = settings;
        let (ports, port_policies) =
            ports.into_iter().map(|(port, (tls, policy))| ((port, tls), (port, policy))).unzip();
        let traffic = Arc::new(TrafficRule { policy, ports: port_policies, subsets });
        Ok(Self { name, host: spec.host, exported_to, clients, tls, ports, traffic, age, remarks })
    }

    /// The rule, with the host in full.
    pub(crate) fn rule(&self, cluster_domain: &str) -> ClientTlsRule {
        let host = match self.host.strip_prefix('*') {
            Some(end) => HostPattern::Suffix(end.into()),
            None if self.host.contains('.') => HostPattern::Exact(self.host.as_str().into()),
            None => HostPattern::Exact(format!("{}.{}.svc.{cluster_domain}", self.host, self.name.namespace).into()),
        };
        ClientTlsRule {
            name: Arc::clone(&self.name),
            host,
            exported_to: self.exported_to.clone(),
            clients: self.clients.clone(),
            tls: self.tls,
            ports: self.ports.clone(),
            traffic: Arc::clone(&self.traffic),
        }
    }
}

/// What a policy says, of all ports and of some.
struct Settings {
    tls: Option<ClientTls>,
    traffic: TrafficPolicy,
    ports: BTreeMap<u16, (Option<ClientTls>, TrafficPolicy)>,
}

impl RawPolicy {
    fn read(self, field: &str, of_subset: bool, remarks: &mut Vec<Remark>) -> Result<Settings, Flaw> {
        remark_ignored(&[("tunnel", &self.tunnel)], field, remarks);
        let retries = self.retry_budget.map(|raw| raw.read(&format!("{field}.retryBudget"))).transpose()?;
        let proxy_protocol = self.proxy_protocol.map(|raw| match raw.version {
            None | Some(RawProxyVersion::V1) => ProxyProtocol::V1,
            Some(RawProxyVersion::V2) => ProxyProtocol::V2,
        });
        let tls = self.tls.as_ref().map(|tls| tls.read(&format!("{field}.tls"), remarks));
        let begun = tls::begun(&tls, of_subset);
        let mut ports = BTreeMap::new();
        for (index, raw) in self.port_level_settings.into_iter().flatten().enumerate() {
            let field = format!("{field}.portLevelSettings[{index}]");
            let port = raw.port.number;
            if port == 0 {
                return Err(Flaw::value(format!("{field}.port.number"), "0 is no port"));
            }
            let tls = raw.tls.as_ref().map(|tls| tls.read(&format!("{field}.tls"), remarks));
            let begun = tls::begun(&tls, of_subset);
            let traffic = RawTraffic {
                load_balancer: raw.load_balancer,
                connection_pool: raw.connection_pool,
                outlier_detection: raw.outlier_detection,
            };
            // Ports have none of their own.
            let traffic = TrafficPolicy { tls: begun, proxy_protocol, retries, ..traffic.read(&field, remarks)? };
            if ports.insert(port, (tls.map(|(mode, _)| mode), traffic)).is_some() {
                let message = format!("port {port} is there before");
                return Err(Flaw::value(format!("{field}.port.number"), message));
            }
        }
        let traffic = RawTraffic {
            load_balancer: self.load_balancer,
            connection_pool: self.connection_pool,
            outlier_detection: self.outlier_detection,
        };
        let traffic = TrafficPolicy { tls: begun, proxy_protocol, retries, ..traffic.read(field, remarks)? };
        // A subset has the rule's outlier detection where it has none of its own.
        if !of_subset && fails_over_never(&traffic) {
            let message = "failover takes outlierDetection, and there is none: all localities are alike";
            let field = format!("{field}.loadBalancer.localityLbSetting");
            remarks.push(Remark::new(Code::FieldNotHonoured, field, message));
        }
        Ok(Settings { tls: tls.map(|(mode, _)| mode), traffic, ports })
    }
}

/// Whether localities are to be preferred, and nothing would ever be told of their health.
fn fails_over_never(policy: &TrafficPolicy) -> bool {
    let locality = policy.load_balancer.as_ref().and_then(|balancer| balancer.locality.as_ref());
    policy.outlier.is_none() && locality.is_some_and(|setting| setting.enabled && setting.distribute.is_empty())
}

impl RawSubset {
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<(Arc<str>, Subset), Flaw> {
        if self.name.is_empty() {
            return Err(Flaw::value(format!("{field}.name"), "the subset has no name"));
        }
        let field = format!("{field}.trafficPolicy");
        let settings = self.traffic_policy.unwrap_or_default().read(&field, true, remarks)?;
        let ports = settings.ports.into_iter().map(|(port, (_, traffic))| (port, traffic)).collect();
        let subset = Subset { labels: Selector::new(self.labels), policy: settings.traffic, ports };
        Ok((self.name.into(), subset))
    }
}

fn check_host(host: &str) -> Result<(), Flaw> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if host == "*" || name.split('.').all(label) {
        return Ok(());
    }
    Err(Flaw::value("spec.host", format!("{host:?} is no host name")))
}

/// The namespaces of `exportTo`: `.` is the rule's own, `*` are all, `~` is none.
pub(super) fn exported_to(listed: Option<Vec<String>>, own: &str) -> Result<Option<Vec<Arc<str>>>, Flaw> {
    let listed = listed.unwrap_or_default();
    if listed.is_empty() || listed.iter().any(|namespace| namespace == "*") {
        return Ok(None);
    }
    let mut namespaces = Vec::new();
    for (index, namespace) in listed.iter().enumerate() {
        match namespace.as_str() {
            "." => namespaces.push(own.into()),
            "~" => {}
            "" => return Err(Flaw::value(format!("spec.exportTo[{index}]"), "it is empty")),
            other => namespaces.push(other.into()),
        }
    }
    Ok(Some(namespaces))
}

fn remark_ignored(fields: &[(&str, &Option<Value>)], place: &str, remarks: &mut Vec<Remark>) {
    for (name, value) in fields {
        if let Some(value) = value {
            remark_leaves(value, &format!("{place}.{name}"), remarks);
        }
    }
}

/// A remark for each field that holds a value.
fn remark_leaves(value: &Value, field: &str, remarks: &mut Vec<Remark>) {
    match value {
        _ if remarks.len() >= MAX_REMARKS => {}
        Value::Null => {}
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| remark_leaves(value, &format!("{field}.{name}"), remarks));
        }
        Value::Array(items) => {
            let numbered = items.iter().enumerate();
            numbered.for_each(|(index, value)| remark_leaves(value, &format!("{field}[{index}]"), remarks));
        }
        value => remarks.push(Remark::new(Code::FieldNotHonoured, field, format!("{value} has no effect"))),
    }
}
