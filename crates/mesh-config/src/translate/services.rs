//! Services to the model.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service as KubeService, ServiceSpec};
use mesh_core::{Protocol, Service, ServicePort};

use super::endpoints::Endpoints;
use super::{port_number, protocol, unicast};
use crate::code::Code;
use crate::config::Options;
use crate::finding::{Finding, Origin};
use crate::object::{Located, ObjectSet};

/// Translates all Services, in the order of namespace and name.
pub(super) fn services(
    objects: &ObjectSet,
    options: &Options,
    endpoints: &mut Endpoints,
    findings: &mut Vec<Finding>,
) -> Vec<Service> {
    let mut vips = HashMap::new();
    let mut services = Vec::with_capacity(objects.services.len());
    for (key, located) in &objects.services {
        let origin = &*located.origin;
        let mut report = |code, field: String, message: String| {
            findings.push(Finding::new(code, origin.clone(), message).at(field));
        };
        if let Some(service) = service(key, located, options, endpoints, &mut vips, &mut report) {
            report_empty(&service, origin, findings);
            services.push(service);
        }
    }
    services
}

/// Takes a finding's code, field and message.
type Report<'a> = dyn FnMut(Code, String, String) + 'a;

fn service(
    key: &(String, String),
    located: &Located<KubeService>,
    options: &Options,
    endpoints: &mut Endpoints,
    taken: &mut HashMap<IpAddr, String>,
    report: &mut Report<'_>,
) -> Option<Service> {
    let (namespace, name) = key;
    let nothing = ServiceSpec::default();
    let spec = located.object.spec.as_ref().unwrap_or(&nothing);
    if spec.type_.as_deref() == Some("ExternalName") {
        let target = spec.external_name.as_deref().unwrap_or_default();
        let message = format!("it stands for {target:?} in DNS only");
        report(Code::NoClusterAddress, "spec.type".to_owned(), message);
        return None;
    }
    report_not_honoured(spec, report);
    let hostname = format!("{name}.{namespace}.svc.{}", options.cluster_domain);
    Some(Service {
        namespace: namespace.as_str().into(),
        name: name.as_str().into(),
        hostname: hostname.into(),
        vips: addresses(key, spec, taken, report),
        ports: ports(key, spec, endpoints, report),
    })
}

fn addresses(
    (namespace, name): &(String, String),
    spec: &ServiceSpec,
    taken: &mut HashMap<IpAddr, String>,
    report: &mut Report<'_>,
) -> Vec<IpAddr> {
    let listed = spec.cluster_ips.iter().flatten().enumerate();
    let mut given: Vec<(String, &str)> =
        listed.map(|(index, ip)| (format!("spec.clusterIPs[{index}]"), ip.as_str())).collect();
    if let Some(single) = spec.cluster_ip.as_deref()
        && given.is_empty()
    {
        given.push(("spec.clusterIP".to_owned(), single));
    }
    given.retain(|(_, ip)| !matches!(*ip, "" | "None"));
    let mut addresses = Vec::new();
    for (field, text) in given {
        let address = match unicast(text) {
            Ok(address) => address,
            Err(message) => {
                report(Code::BadServiceAddress, field, message);
                continue;
            }
        };
        if addresses.contains(&address) {
            continue;
        }
        if let Some(first) = taken.get(&address) {
            let message = format!("{address} is {first}'s already");
            report(Code::SharedServiceAddress, field, message);
            continue;
        }
        taken.insert(address, format!("{namespace}/{name}"));
        addresses.push(address);
    }
    addresses
}

fn ports(
    key: &(String, String),
    spec: &ServiceSpec,
    endpoints: &mut Endpoints,
    report: &mut Report<'_>,
) -> Vec<ServicePort> {
    let mut ports: Vec<ServicePort> = Vec::new();
    for (index, given) in spec.ports.iter().flatten().enumerate() {
        let field = format!("spec.ports[{index}]");
        let number = port_number(given.port).map_err(|message| ("port", message));
        let protocol = protocol(given.protocol.as_deref()).map_err(|e| ("protocol", e));
        let (port, protocol) = match number.and_then(|number| Ok((number, protocol?))) {
            Ok(both) => both,
            Err((sub, message)) => {
                report(Code::BadPort, format!("{field}.{sub}"), message);
                continue;
            }
        };
        if ports.iter().any(|p| p.port == port && p.protocol == protocol) {
            let message = format!("{port}/{protocol} is declared before");
            report(Code::BadPort, format!("{field}.port"), message);
            continue;
        }
        if protocol != Protocol::Tcp {
            let message = format!("{port}/{protocol} goes past the mesh");
            report(Code::ProtocolNotCarried, format!("{field}.protocol"), message);
        }
        let name = given.name.as_deref().filter(|name| !name.is_empty());
        ports.push(ServicePort {
            name: name.map(Into::into),
            port,
            protocol,
            endpoints: endpoints.take(key, name.unwrap_or_default(), protocol),
        });
    }
    ports
}

fn report_not_honoured(spec: &ServiceSpec, report: &mut Report<'_>) {
    let fields = [
        ("sessionAffinity", spec.session_affinity.as_deref(), "None"),
        ("internalTrafficPolicy", spec.internal_traffic_policy.as_deref(), "Cluster"),
        ("trafficDistribution", spec.traffic_distribution.as_deref(), ""),
    ];
    for (field, value, default) in fields {
        if let Some(value) = value.filter(|value| *value != default) {
            let message = format!("{value:?} has no effect");
            report(Code::FieldNotHonoured, format!("spec.{field}"), message);
        }
    }
    if spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()) {
        let message = "these addresses are not the Service's to the mesh".to_owned();
        report(Code::FieldNotHonoured, "spec.externalIPs".to_owned(), message);
    }
}

/// Says which TCP ports would refuse every connection to one of the Service's addresses.
fn report_empty(service: &Service, origin: &Origin, findings: &mut Vec<Finding>) {
    let tcp = || {
        let ports = service.ports.iter();
        ports.filter(|port| port.protocol == Protocol::Tcp)
    };
    if service.vips.is_empty() || tcp().next().is_none() {
        return;
    }
    if tcp().all(|port| port.endpoints.is_empty()) {
        let message = "nothing ready stands behind it";
        findings.push(Finding::new(Code::NoEndpoints, origin.clone(), message));
        return;
    }
    let families: HashSet<bool> = service.vips.iter().map(IpAddr::is_ipv6).collect();
    for ipv6 in [false, true] {
        if !families.contains(&ipv6) {
            continue;
        }
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        for port in tcp() {
            let mut endpoints = port.endpoints.iter();
            if !endpoints.any(|endpoint| endpoint.address.is_ipv6() == ipv6) {
                let message = format!("nothing ready stands behind port {} on {family}", port.port);
                let finding = Finding::new(Code::NoEndpoints, origin.clone(), message);
                findings.push(finding.at("spec.ports"));
            }
        }
    }
}
