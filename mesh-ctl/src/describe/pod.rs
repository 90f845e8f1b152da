//! A pod.

use anyhow::{Context as _, bail};
use mesh_admin::{Certificate, List, Policy, Selection, Workload, path};
use mesh_core::Snapshot;
use mesh_core::labels::{DATAPLANE_MODE, JOIN, Labels, Wish, wish};
use mesh_core::policy::effective_mode;
use serde::Serialize;

use super::{Described, Named, PortMode, lines, mode_text, policies, policy_text};
use crate::cluster::{Cluster, kind, namespaces};
use crate::fleet::Target;
use crate::output::age;

/// What the mesh makes of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pod {
    #[serde(flatten)]
    workload: Workload,
    /// What made it join, or keeps it out.
    enrolled_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<Certificate>,
    /// Why its node's daemon does not say more.
    #[serde(skip_serializing_if = "Option::is_none")]
    unreachable: Option<String>,
    modes: Vec<PortMode>,
    policies: Vec<Policy>,
    /// The waypoint of what is sent to its own address.
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<String>,
    /// The Services that it is an endpoint of, by host name and port.
    services: Vec<String>,
}

/// Looks at a pod.
pub(super) async fn describe(cluster: &Cluster, named: &Named) -> anyhow::Result<Pod> {
    let (namespace, name) = named.place(cluster);
    let config = named.reading.of_cluster(cluster).await?.publish();
    let snapshot = &config.snapshot;
    let Some(workload) = snapshot.workload(namespace, name) else {
        bail!(
            "no pod {namespace}/{name}, or it has no node yet: `mesh-ctl workload list -n {namespace}` shows those there are"
        );
    };
    let mut pod = Pod {
        enrolled_by: enrolled_by(cluster, workload).await?,
        workload: Workload::from(&**workload),
        certificate: None,
        unreachable: None,
        modes: modes(snapshot, workload),
        policies: policies(snapshot, workload),
        waypoint: snapshot.l7().waypoint_of_workload(workload).map(ToString::to_string),
        services: services(snapshot, workload),
    };
    if let Err(error) = pod.ask_its_node(cluster).await {
        pod.unreachable = Some(format!("{error:#}"));
    }
    Ok(pod)
}

/// Which label of which object decides, as the translation has it: the pod's own before its namespace's.
async fn enrolled_by(cluster: &Cluster, workload: &mesh_core::Workload) -> anyhow::Result<String> {
    let labels = |object: Option<kube::api::DynamicObject>| -> Labels {
        object.and_then(|object| object.metadata.labels).unwrap_or_default()
    };
    let (namespace, name) = (&*workload.namespace, &*workload.name);
    let of_pod = labels(cluster.find(&kind("", "v1", "Pod"), Some(namespace), name).await?);
    let of_namespace = labels(cluster.find(&namespaces(), None, namespace).await?);
    let says = |labels: &Labels| {
        let label = [JOIN, DATAPLANE_MODE].into_iter().find_map(|key| Some((key, labels.get(key)?)));
        label.map_or_else(String::new, |(key, value)| format!("{key}={value}"))
    };
    Ok(match (wish(&of_pod), wish(&of_namespace)) {
        (Wish::Join | Wish::StayOut, _) => format!("the pod's label {}", says(&of_pod)),
        (Wish::Silent, Wish::Join | Wish::StayOut) => {
            format!("the label {} of namespace {namespace}", says(&of_namespace))
        }
        (Wish::Silent, Wish::Silent) => "no label of the pod or its namespace".to_owned(),
    })
}

/// What each port takes; one line where all take the same.
fn modes(snapshot: &Snapshot, workload: &mesh_core::Workload) -> Vec<PortMode> {
    if !workload.is_enrolled() {
        return Vec::new();
    }
    // Port 0 is nobody's: what is in force there is in force where nothing is said of a port.
    let general = effective_mode(snapshot, workload, 0);
    let policies = snapshot.policies().peer_authentication_of(workload);
    let mut ports: Vec<u16> = policies.iter().flat_map(|policy| policy.ports.keys().copied()).collect();
    ports.sort_unstable();
    ports.dedup();
    let of_ports = ports.into_iter().filter_map(|port| {
        let mode = effective_mode(snapshot, workload, port);
        (mode != general).then(|| PortMode { port: Some(port), mode: (&mode).into() })
    });
    [PortMode { port: None, mode: (&general).into() }].into_iter().chain(of_ports).collect()
}

fn services(snapshot: &Snapshot, workload: &mesh_core::Workload) -> Vec<String> {
    let mut found = Vec::new();
    for service in snapshot.services() {
        for port in &service.ports {
            let is_own = |pod: &mesh_core::Workload| pod.uid == workload.uid;
            if port.endpoints.iter().any(|endpoint| endpoint.workload.as_deref().is_some_and(is_own)) {
                found.push(format!("{}:{}", service.hostname, port.port));
            }
        }
    }
    found
}

impl Pod {
    /// What only the daemon of its node knows.
    async fn ask_its_node(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        let Target { name, daemon } =
            cluster.daemons(Some(&self.workload.node)).await?.pop().context("there is no daemon on its node")?;
        let daemon = daemon.map_err(|why| anyhow::anyhow!("{name}: {why}"))?;
        let selection = Selection { namespace: Some(self.workload.namespace.clone()), ..Selection::default() };
        let mut query = selection.to_query();
        let mut offset = 0;
        loop {
            let part: List<Workload> = daemon.get(path::WORKLOADS, &query).await?;
            offset += part.items.len();
            let is_last = part.items.is_empty() || offset >= part.total;
            if let Some(found) = part.items.into_iter().find(|found| found.uid == self.workload.uid) {
                self.workload = found;
                break;
            }
            if is_last {
                anyhow::bail!("{name}: its daemon does not know the pod yet");
            }
            query = Selection { offset, ..selection.clone() }.to_query();
        }
        let certificates: List<Certificate> = daemon.get(path::CERTIFICATES, &selection.to_query()).await?;
        self.certificate = certificates.items.into_iter().find(|it| it.identity == self.workload.identity);
        Ok(())
    }
}

impl Described for Pod {
    fn text(&self) -> String {
        let (mut text, pod) = (String::new(), &self.workload);
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        let ready = if pod.ready { "ready" } else { "not ready" };
        let place = format!("on {}, {}, {ready}", pod.node, addresses.join(", "));
        lines(&mut text, "pod", [format!("{}/{} ({}) {place}", pod.namespace, pod.name, pod.workload)]);
        let state = match (&pod.state, pod.enrolled, &pod.outside) {
            (Some(state), ..) => format!("{state} by {}", self.enrolled_by),
            (None, true, _) => {
                format!("to be part of it by {}; what its node makes of it is not known", self.enrolled_by)
            }
            (None, false, outside) => {
                format!("outside: {} ({})", outside.as_deref().unwrap_or("unknown why"), self.enrolled_by)
            }
        };
        lines(&mut text, "mesh", [state].into_iter().chain(pod.reason.clone()));
        if pod.enrolled {
            lines(&mut text, "identity", [pod.identity.clone()]);
            lines(&mut text, "certificate", [self.certificate_text()]);
        }
        if let Some(count) = pod.existing_connections {
            lines(&mut text, "older", [format!("{count} plaintext connections from before it joined live on")]);
        }
        lines(&mut text, "mode", self.modes.iter().map(mode_text));
        let none = || vec!["none is about it".to_owned()];
        let policies: Vec<String> = self.policies.iter().map(policy_text).collect();
        lines(&mut text, "policies", if policies.is_empty() { none() } else { policies });
        let waypoint = self.waypoint.clone().unwrap_or_else(|| "none for its own address".to_owned());
        lines(&mut text, "waypoint", [waypoint]);
        lines(&mut text, "services", self.services.clone());
        lines(&mut text, "note", self.unreachable.iter().map(|why| format!("its node's daemon says nothing: {why}")));
        text
    }

    fn is_well(&self) -> bool {
        let failed = self.workload.state.as_deref() == Some("failed");
        let without =
            self.certificate.as_ref().is_some_and(|it| it.error.is_some() || it.expires_in_seconds == Some(0));
        let unknown = self.workload.enrolled && self.unreachable.is_some();
        !(failed || without || unknown)
    }
}

impl Pod {
    fn certificate_text(&self) -> String {
        match &self.certificate {
            None if self.unreachable.is_some() => "not known".to_owned(),
            None => "none yet: it is fetched for the first connection".to_owned(),
            Some(certificate) => match (&certificate.error, certificate.expires_in_seconds) {
                (Some(error), _) => format!("WITHOUT A NEW ONE: {error}"),
                (None, Some(left)) => format!("ends in {}", age(left)),
                (None, None) => "none yet".to_owned(),
            },
        }
    }
}
