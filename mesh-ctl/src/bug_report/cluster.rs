//! What the API server says: of the mesh's own objects, their logs and events, and of the configuration.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams, LogParams};
use mesh_admin::{DISTRIBUTION, Distribution};
use mesh_config::{Credentials, LiveObjects, ObjectName, Options};
use serde_json::{Map, Value, json};

use super::Inquiry;
use super::archive::Archive;
use crate::cluster::{CONTROL_PORT, kind};
use crate::precheck;

/// The mesh's own objects, and those of Gateways.
const OURS: [&str; 2] = ["app.kubernetes.io/part-of=mesh", "gateway.istio.io/managed=mesh.dev-gateway-controller"];
/// The kinds of them that are kept, as the API server has them.
const KINDS: [(&str, &str, &str); 5] = [
    ("apps", "v1", "Deployment"),
    ("apps", "v1", "DaemonSet"),
    ("", "v1", "Pod"),
    ("", "v1", "Service"),
    ("autoscaling", "v2", "HorizontalPodAutoscaler"),
];
/// Events of the whole cluster.
const MAX_EVENTS: u32 = 2_000;
/// Octets of a log that the API server sends at most.
const MAX_LOG: i64 = 4 << 20;

impl Inquiry<'_> {
    /// Each replica of mesh-control: whom it serves.
    pub(super) async fn control(&self, archive: &mut Archive) -> anyhow::Result<()> {
        let replicas = self.within("mesh-control", self.cluster.control(CONTROL_PORT)).await;
        let replicas = match replicas {
            Ok(replicas) => replicas,
            Err(why) => {
                archive.leave_out(why);
                return Ok(());
            }
        };
        for replica in replicas {
            let what = format!("control/{}", replica.name);
            let asked = async {
                let daemon = replica.daemon.map_err(|why| anyhow::anyhow!(why))?;
                let told: Distribution = daemon.get(DISTRIBUTION, &[]).await?;
                Ok(serde_json::to_value(told)?)
            };
            let told = self.within(&what, asked).await;
            archive.value(&format!("{what}/distribution.json"), told)?;
        }
        Ok(())
    }

    /// Its version, nodes, the mesh's objects with logs and events, and what precheck finds.
    pub(super) async fn cluster(&self, archive: &mut Archive) -> anyhow::Result<()> {
        let asked = async { Ok(serde_json::to_value(precheck::of_cluster(self.cluster, &[]).await?)?) };
        let found = self.within("precheck", asked).await;
        archive.value("cluster/precheck.json", found)?;
        for labels in OURS {
            self.logs(archive, labels).await?;
            for (group, version, name) in KINDS {
                let (kind, labelled) = (kind(group, version, name), ListParams::default().labels(labels));
                let listed = self.within(&kind.plural, self.cluster.list(&kind, None, &labelled)).await;
                for object in listed.map(|list| list.map(|list| list.items).unwrap_or_default()).unwrap_or_else(|why| {
                    archive.leave_out(why);
                    Vec::new()
                }) {
                    let place =
                        format!("objects/{}/{name}-{}.json", object.namespace().unwrap_or_default(), object.name_any());
                    let mut object = serde_json::to_value(object)?;
                    forget_history(&mut object);
                    archive.value(&place, Ok(object))?;
                }
            }
        }
        let events = kind("", "v1", "Event");
        let newest = ListParams::default().limit(MAX_EVENTS);
        let told = self.within("events", self.cluster.list(&events, None, &newest)).await.map(|list| {
            let lines = list.into_iter().flat_map(|list| list.items).map(|event| event_line(&event.data));
            lines.collect::<String>()
        });
        archive.text("cluster/events.txt", told)
    }

    /// The ends of the logs of each container, and of the one before it where it was restarted.
    async fn logs(&self, archive: &mut Archive, labels: &str) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::all(self.cluster.client.clone());
        let labelled = ListParams::default().labels(labels);
        let asked = async { Ok(pods.list(&labelled).await?.items) };
        let pods = match self.within("pods", asked).await {
            Ok(pods) => pods,
            Err(why) => {
                archive.leave_out(why);
                return Ok(());
            }
        };
        let node = self.wanted.node.as_deref();
        let is_wanted = |pod: &&Pod| {
            let on = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
            let is_daemon = pod.labels().get("app.kubernetes.io/name").is_some_and(|name| name == "mesh-node");
            node.is_none() || !is_daemon || on == node
        };
        for pod in pods.iter().filter(is_wanted) {
            let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
            let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &namespace);
            let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
            let was_restarted = statuses.into_iter().flatten().any(|status| status.restart_count > 0);
            for previous in [false, true].into_iter().filter(|previous| !previous || was_restarted) {
                let wanted = LogParams {
                    previous,
                    tail_lines: Some(self.wanted.log_lines),
                    limit_bytes: Some(MAX_LOG),
                    timestamps: true,
                    ..LogParams::default()
                };
                let suffix = if previous { "-previous" } else { "" };
                let place = format!("logs/{namespace}/{name}{suffix}.log");
                let asked = async { Ok(api.logs(&name, &wanted).await?) };
                let log = self.within(&place, asked).await;
                archive.text(&place, log)?;
            }
        }
        Ok(())
    }

    /// The objects that the configuration is made of, as nodes are told of them, and the findings about them.
    pub(super) async fn configuration(&self, archive: &mut Archive) -> anyhow::Result<()> {
        let options = Options { credentials: Credentials::Nobodys, served: true, ..self.wanted.reading.options() };
        let asked = async { Ok(mesh_kube::read(&self.cluster.client, options).await?) };
        let mut objects = match self.within("configuration", asked).await {
            Ok(objects) => objects,
            Err(why) => {
                archive.leave_out(why);
                return Ok(());
            }
        };
        let config = LiveObjects::publish(&mut objects).clone();
        archive.value("configuration/findings.json", Ok(serde_json::to_value(&*config.findings)?))?;
        let mut kinds: Map<String, Value> = Map::new();
        for served in config.served.iter() {
            let Some(name) = ObjectName::of_path(served.path()) else { continue };
            let kind = kinds.entry(name.kind.to_string()).or_insert_with(|| json!([]));
            let object = serde_json::from_str(&served.source.object).unwrap_or_default();
            kind.as_array_mut().into_iter().for_each(|all| all.push(Value::clone(&object)));
        }
        for (kind, objects) in kinds {
            archive.value(&format!("configuration/{kind}.json"), Ok(objects))?;
        }
        Ok(())
    }
}

/// What kubectl and the API server keep of earlier versions, with whatever was in them.
fn forget_history(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
        metadata.remove("annotations");
    }
}

fn event_line(event: &Value) -> String {
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let times = ["/lastTimestamp", "/eventTime", "/firstTimestamp"].map(text);
    let time = times.into_iter().find(|time| !time.is_empty()).unwrap_or_default();
    let [kind, namespace, name] = ["kind", "namespace", "name"].map(|field| text(&format!("/involvedObject/{field}")));
    let [kind_of, reason, message] = ["/type", "/reason", "/message"].map(text);
    format!("{time} {kind_of} {reason} {kind} {namespace}/{name}: {}\n", message.replace('\n', " "))
}
