//! What is made for a Gateway: names and labels are those that Istio's have, so that people and tools find them.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use mesh_config::ListenerProtocol;
use mesh_core::l7::{GATEWAY_NAME, WAYPOINT_PORT};
use serde_json::{Value, json};

use super::object::{GatewayObject, RequestedAddress, Role, Scale, limits, made_name, service_type};
use super::settings::Settings;

/// By which what was made for Gateways is known, and its value for what was made here.
pub(crate) const MANAGED: &str = "gateway.istio.io/managed";
pub(crate) const MANAGED_BY_US: &str = "mesh.dev-gateway-controller";
/// The label by which pods name their Gateway's class.
const CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
/// Where probes are answered.
const READINESS_PORT: u16 = 15_021;
/// Where Prometheus scrapes.
const METRICS_PORT: u16 = 15_020;
/// Where mesh-ctl asks by the API server, at loopback.
const ADMIN_PORT: u16 = 15_000;
/// What a proxy listens on itself, whatever it is a proxy for.
const OWN_PORTS: [u16; 4] = [READINESS_PORT, METRICS_PORT, WAYPOINT_PORT, ADMIN_PORT];
/// How long the proxy lets requests end, in seconds, and the whole pod has.
const DRAIN: u32 = 25;
const GRACE: u32 = 30;
/// The load of processors by which replicas are added, in percent of what they request.
const LOAD: u32 = 80;

/// All that a Gateway's objects are made of.
pub(crate) struct Plan<'a> {
    pub(crate) gateway: &'a GatewayObject,
    pub(crate) role: Role,
    /// The ports that ListenerSets have open.
    pub(crate) of_sets: &'a BTreeMap<u16, ListenerProtocol>,
    pub(crate) settings: &'a Settings,
    /// Where certificates are signed and the configuration is told: ADDRESS:PORT.
    pub(crate) authority: &'a str,
    /// The roots by which the authority is known, in PEM.
    pub(crate) roots: &'a str,
}

impl Plan<'_> {
    /// What has to be there, in the order in which it is applied.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let scale = Scale::of(self.gateway);
        let mut objects = vec![
            self.object("v1", "ServiceAccount", self.name(), json!({})),
            self.object("v1", "ConfigMap", self.root_map(), json!({"data": {"root-cert.pem": self.roots}})),
            self.object("v1", "Service", self.name(), json!({"spec": self.service()})),
            self.object("apps/v1", "Deployment", self.name(), json!({"spec": self.deployment(scale)})),
        ];
        if scale.is_several() {
            let spec = json!({"minAvailable": 1, "selector": {"matchLabels": self.selector()}});
            objects.push(self.object("policy/v1", "PodDisruptionBudget", self.name(), json!({"spec": spec})));
        }
        if let Some(most) = scale.most {
            let spec = json!({
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name()},
                "minReplicas": scale.replicas.unwrap_or(1),
                "maxReplicas": most.max(scale.replicas.unwrap_or(1)),
                "metrics": [{
                    "type": "Resource",
                    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": LOAD}},
                }],
            });
            objects.push(self.object("autoscaling/v2", "HorizontalPodAutoscaler", self.name(), json!({"spec": spec})));
        }
        objects
    }

    fn name(&self) -> String {
        made_name((&self.gateway.name_any(), &self.gateway.spec.gateway_class_name), self.role)
    }

    /// Others of the namespace may have roots of their own.
    fn root_map(&self) -> String {
        format!("{}-mesh-ca-root", self.name())
    }

    fn object(&self, api_version: &str, kind: &str, name: String, mut rest: Value) -> Value {
        rest["apiVersion"] = api_version.into();
        rest["kind"] = kind.into();
        let infrastructure = &self.gateway.spec.infrastructure;
        rest["metadata"] = json!({
            "name": name,
            "namespace": self.gateway.namespace(),
            "labels": self.labels(),
            "annotations": infrastructure.annotations,
            // Kubernetes' garbage collector removes it with the Gateway.
            "ownerReferences": [{
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "name": self.gateway.name_any(),
                "uid": self.gateway.uid(),
                "controller": true,
            }],
        });
        rest
    }

    fn selector(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(GATEWAY_NAME.to_owned(), self.gateway.name_any())])
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.gateway.spec.infrastructure.labels.clone();
        labels.extend(self.selector());
        labels.insert(CLASS_NAME.to_owned(), self.gateway.spec.gateway_class_name.clone());
        labels.insert(MANAGED.to_owned(), MANAGED_BY_US.to_owned());
        labels
    }

    fn service(&self) -> Value {
        let mut ports = vec![json!({"name": "status-port", "port": READINESS_PORT, "targetPort": READINESS_PORT})];
        match self.role {
            Role::Waypoint => ports.push(json!({
                "name": "mesh", "port": WAYPOINT_PORT, "targetPort": WAYPOINT_PORT, "appProtocol": "hbone",
            })),
            Role::Ingress => ports.extend(self.listening().into_iter().map(|(port, name)| {
                json!({
                    "name": name, "port": port, "targetPort": port, "protocol": "TCP",
                })
            })),
        }
        let mut spec = json!({"type": "ClusterIP", "selector": self.selector(), "ports": ports});
        if self.role == Role::Ingress {
            spec["type"] = service_type(self.gateway).into();
            if let Some(address) = self.gateway.spec.addresses.iter().find_map(RequestedAddress::ip) {
                spec["loadBalancerIP"] = address.into();
            }
        }
        spec
    }

    /// The ports of the listeners, each once, with a name that is no other's.
    fn listening(&self) -> BTreeMap<u16, String> {
        let own = self.gateway.spec.listeners.iter().map(|listener| (listener.port, &*listener.protocol));
        let of_sets = self.of_sets.iter().map(|(port, protocol)| (*port, protocol.as_str()));
        let all: Vec<_> = own.chain(of_sets).filter(|(port, _)| !OWN_PORTS.contains(port)).collect();
        // The first of a port names it.
        let named = all.into_iter().rev();
        named.map(|(port, protocol)| (port, format!("{}-{port}", protocol.to_ascii_lowercase()))).collect()
    }

    fn deployment(&self, scale: Scale) -> Value {
        let mut labels = self.labels();
        labels.extend(
            [
                // It has a certificate and tunnels of its own, and is nobody's that a node would carry for.
                ("istio.io/dataplane-mode", "none"),
                ("mesh.dev/join", "disabled"),
                ("service.istio.io/canonical-revision", "latest"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        labels.insert("service.istio.io/canonical-name".to_owned(), self.name());
        let mut annotations = self.gateway.spec.infrastructure.annotations.clone();
        annotations.insert("prometheus.io/scrape".to_owned(), "true".to_owned());
        annotations.insert("prometheus.io/port".to_owned(), METRICS_PORT.to_string());
        let mut spec = json!({
            "selector": {"matchLabels": self.selector()},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": self.pod()},
        });
        // Where load says how many, or nobody does, whoever scales the Deployment is not overruled.
        if let (Some(replicas), None) = (scale.replicas, scale.most) {
            spec["replicas"] = replicas.into();
        }
        spec
    }

    fn pod(&self) -> Value {
        json!({
            "serviceAccountName": self.name(),
            "terminationGracePeriodSeconds": GRACE,
            "imagePullSecrets": self.settings.pull_secrets.iter().map(|name| json!({"name": name})).collect::<Vec<_>>(),
            "topologySpreadConstraints": [{
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": self.selector()},
            }],
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
                // Listeners have ports below 1024, and the proxy no right of root's. Pods may set this one (Kubernetes' safe sysctls).
                "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            },
            "containers": [self.container()],
            "volumes": [
                {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "ca-root", "configMap": {"name": self.root_map()}},
                {"name": "token", "projected": {"sources": [
                    {"serviceAccountToken": {"audience": self.settings.audience, "path": "token", "expirationSeconds": 3600}},
                ]}},
            ],
        })
    }

    fn container(&self) -> Value {
        json!({
            "name": "mesh-waypoint",
            "image": self.settings.image,
            "imagePullPolicy": self.settings.pull_policy,
            "args": self.arguments(),
            "env": [
                {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "MESH_POD", "value": format!("{}/$(POD_NAME)", self.gateway.namespace().unwrap_or_default())},
            ],
            "ports": [
                {"name": "mesh", "containerPort": WAYPOINT_PORT},
                {"name": "http-metrics", "containerPort": METRICS_PORT},
                {"name": "status-port", "containerPort": READINESS_PORT},
            ],
            "startupProbe": probe(1, 60),
            "readinessProbe": probe(5, 2),
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
            },
            "volumeMounts": [
                {"name": "run", "mountPath": "/run/mesh"},
                {"name": "ca-root", "mountPath": "/etc/mesh/ca-root", "readOnly": true},
                {"name": "token", "mountPath": "/etc/mesh/token", "readOnly": true},
            ],
        })
    }

    fn arguments(&self) -> Vec<String> {
        let namespace = self.gateway.namespace().unwrap_or_default();
        let (own, settings) = (format!("{namespace}/{}", self.gateway.name_any()), self.settings);
        let account = format!("{namespace}/{}", self.name());
        let all = vec![
            "serve".to_owned(),
            format!("--control-address={}", self.authority),
            format!("--name={own}"),
            format!("--identity={account}"),
            format!("--ca-address={}", self.authority),
            format!("--ca-name={}", settings.server_name),
            "--ca-root=/etc/mesh/ca-root/root-cert.pem".to_owned(),
            "--ca-token=/etc/mesh/token/token".to_owned(),
            format!("--trust-domain={}", settings.trust_domain),
            format!("--cluster-domain={}", settings.cluster_domain),
            format!("--root-namespace={}", settings.root_namespace),
            "--admin-socket=/run/mesh/waypoint.sock".to_owned(),
            format!("--admin-port={ADMIN_PORT}"),
            format!("--drain-time={DRAIN}"),
        ];
        // Of a waypoint's, ConfigMaps of BackendTLSPolicies.
        let secrets = ["--kubernetes-secrets".to_owned()];
        all.into_iter().chain(secrets).chain(limits(self.gateway)).collect()
    }
}

fn probe(period: u32, failures: u32) -> Value {
    json!({
        "httpGet": {"path": "/healthz/ready", "port": READINESS_PORT},
        "periodSeconds": period,
        "failureThreshold": failures,
    })
}
