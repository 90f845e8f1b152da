//! The Gateways of waypoints: what is asked for, and how far it is there.

use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::ValueEnum;
use kube::ResourceExt as _;
use kube::api::{DynamicObject, ListParams};
use kube::runtime::wait::await_condition;
use mesh_core::l7::WAYPOINT_PORT;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cluster::{Cluster, gateways};
use crate::output::table;

/// The class by which waypoints are asked for.
const CLASS: &str = "mesh-waypoint";
/// The classes of waypoints; Istio's name means the same.
const CLASSES: [&str; 2] = [CLASS, "istio-waypoint"];
/// For what a waypoint is.
const FOR: &str = "istio.io/waypoint-for";

/// For what a waypoint is: the label `istio.io/waypoint-for`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum For {
    /// What is sent to Services.
    Service,
    /// What is sent to pods' own addresses.
    Workload,
    /// Both.
    All,
}

impl For {
    fn label(self) -> &'static str {
        match self {
            Self::Service => "service",
            Self::Workload => "workload",
            Self::All => "all",
        }
    }
}

/// The Gateway that asks for a waypoint. Without a word on what for, what is sent to Services.
pub(super) fn manifest(namespace: &str, name: &str, of: Option<For>) -> Value {
    let mut object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "gatewayClassName": CLASS,
            "listeners": [{"name": "mesh", "port": WAYPOINT_PORT, "protocol": "HBONE"}],
        },
    });
    if let Some(of) = of {
        object["metadata"]["labels"] = json!({FOR: of.label()});
    }
    object
}

/// How a Gateway is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    pub(super) namespace: String,
    pub(super) name: String,
    class: String,
    /// For what it is.
    #[serde(rename = "for")]
    of: String,
    /// Whether it runs as it is asked for now; none where nobody has said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) programmed: Option<bool>,
    addresses: Vec<String>,
    /// What its conditions say where it is not programmed.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl Summary {
    fn of(gateway: &DynamicObject) -> Self {
        let text = |pointer| gateway.data.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let addresses = gateway.data.pointer("/status/addresses").and_then(Value::as_array);
        let addresses = addresses.into_iter().flatten().filter_map(|address| address["value"].as_str());
        let condition = programmed(gateway);
        let is = condition.map(|condition| condition["status"] == "True");
        let message = condition.filter(|_| is == Some(false)).and_then(|condition| condition["message"].as_str());
        Self {
            namespace: gateway.namespace().unwrap_or_default(),
            name: gateway.name_any(),
            class: text("/spec/gatewayClassName"),
            of: gateway.labels().get(FOR).cloned().unwrap_or_else(|| For::Service.label().to_owned()),
            programmed: is,
            addresses: addresses.map(str::to_owned).collect(),
            message: message.map(str::to_owned),
        }
    }

    fn row(&self) -> Vec<String> {
        let programmed = match self.programmed {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let message = self.message.clone().or_else(|| {
            self.programmed.is_none().then(|| "nobody has looked at it: does mesh-control run?".to_owned())
        });
        vec![
            self.namespace.clone(),
            self.name.clone(),
            self.class.clone(),
            self.of.clone(),
            programmed.to_owned(),
            self.addresses.join(","),
            message.unwrap_or_default(),
        ]
    }
}

/// What is said of the Gateway as it is now; what was said of an earlier version of it does not count.
fn programmed(gateway: &DynamicObject) -> Option<&Value> {
    let conditions = gateway.data.pointer("/status/conditions")?.as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == "Programmed")?;
    let of_now = condition["observedGeneration"].as_i64() == gateway.metadata.generation;
    (of_now && condition["reason"] != "Pending").then_some(condition)
}

/// The Gateways for people.
pub(super) fn for_people(found: &[Summary]) -> String {
    let rows: Vec<_> = found.iter().map(Summary::row).collect();
    table(&["NAMESPACE", "NAME", "CLASS", "FOR", "PROGRAMMED", "ADDRESS", "WHAT"], &rows)
}

impl Cluster {
    /// The waypoints of a namespace, or of all.
    pub(super) async fn waypoints(&self, namespace: Option<&str>) -> anyhow::Result<Vec<Summary>> {
        Ok(self.proxies_asked_for(namespace).await?.into_iter().filter(|it| CLASSES.contains(&&*it.class)).collect())
    }

    /// All Gateways of a namespace, or of all.
    pub(super) async fn proxies_asked_for(&self, namespace: Option<&str>) -> anyhow::Result<Vec<Summary>> {
        match self.list(&gateways(), namespace, &ListParams::default()).await? {
            Some(list) => Ok(list.items.iter().map(Summary::of).collect()),
            None => Err(no_gateway_api()),
        }
    }

    /// Waits until a Gateway runs as it is asked for.
    pub(super) async fn wait_programmed(&self, namespace: &str, name: &str, longest: Duration) -> anyhow::Result<()> {
        let api = self.objects(&gateways(), Some(namespace));
        let is = |gateway: Option<&DynamicObject>| {
            gateway.and_then(programmed).is_some_and(|condition| condition["status"] == "True")
        };
        match tokio::time::timeout(longest, await_condition(api, name, is)).await {
            Ok(done) => done.map(drop).map_err(|error| anyhow!("Gateway {namespace}/{name} is not watched: {error}")),
            Err(_elapsed) => {
                let now = self.find(&gateways(), Some(namespace), name).await?;
                let said = now.as_ref().map(|now| Summary::of(now).row().pop().unwrap_or_default());
                bail!(
                    "Gateway {namespace}/{name} is not programmed after {} s: {}; `kubectl -n {namespace} describe gateway {name}` \
                     and the log of mesh-control say more",
                    longest.as_secs(),
                    said.filter(|said| !said.is_empty()).unwrap_or_else(|| "its pods are not ready".to_owned())
                )
            }
        }
    }
}

pub(super) fn no_gateway_api() -> anyhow::Error {
    anyhow!("the cluster has no Gateway API: install the definitions of its standard channel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_of_the_gateway_as_it_is_now_counts() {
        let mut gateway = manifest("shop", "waypoint", Some(For::All));
        gateway["metadata"]["generation"] = 2.into();
        for (generation, status, reason, expected) in [
            (2, "True", "Programmed", Some(true)),
            (1, "True", "Programmed", None),
            (2, "False", "Invalid", Some(false)),
            (2, "Unknown", "Pending", None),
        ] {
            let condition = json!({
                "type": "Programmed", "status": status, "reason": reason, "observedGeneration": generation, "message": "so",
            });
            gateway["status"] = json!({"conditions": [condition], "addresses": [{"value": "10.0.0.1"}]});
            let summary = Summary::of(&serde_json::from_value(gateway.clone()).unwrap());
            assert_eq!((summary.programmed, &*summary.of), (expected, "all"), "{reason}");
            assert_eq!(summary.message.as_deref(), (expected == Some(false)).then_some("so"));
        }
    }
}
