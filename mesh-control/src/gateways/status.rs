//! How a Gateway is: accepted, programmed, where it is reached, and each of its listeners.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use super::Gateways;
use super::apply::ApplyError;
use super::condition::{Condition, written};
use super::deploy::DeployError;
use super::object::{GatewayObject, Role, gateways as kind};

/// Who writes it.
const MANAGER: &str = "mesh-control-status";
/// The only protocol that waypoints speak.
const HBONE: &str = "HBONE";

/// Writes the status, if it is another than before.
pub(super) async fn write(
    gateways: &Gateways,
    gateway: &GatewayObject,
    role: Role,
    made: &Result<(), DeployError>,
) -> Result<(), kube::Error> {
    let namespace = gateway.namespace().unwrap_or_default();
    let name = gateway.name_any();
    let deployments: Api<Deployment> = Api::namespaced(gateways.client.clone(), &namespace);
    let services: Api<Service> = Api::namespaced(gateways.client.clone(), &namespace);
    let run = Run {
        ready: deployments.get_opt(&name).await?.and_then(|made| made.status?.available_replicas).unwrap_or(0) > 0,
        address: services.get_opt(&name).await?.and_then(|made| made.spec?.cluster_ip).filter(|ip| ip != "None"),
    };
    let before = gateway.status.clone().unwrap_or_default();
    let status = status(gateway, role, made, &run, &before);
    if !differs(&before, &status) {
        return Ok(());
    }
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": namespace},
        "status": status,
    });
    let api: Api<GatewayObject> = Api::namespaced_with(gateways.client.clone(), &namespace, &kind());
    api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await.map(drop)
}

/// Whether what is to be said is not said already. What others say beside it is theirs.
fn differs(before: &Value, status: &Value) -> bool {
    status.as_object().into_iter().flatten().any(|(field, value)| before[field.as_str()] != *value)
}

/// What runs for a Gateway.
struct Run {
    ready: bool,
    address: Option<String>,
}

fn status(gateway: &GatewayObject, role: Role, made: &Result<(), DeployError>, run: &Run, before: &Value) -> Value {
    let generation = gateway.metadata.generation;
    let conditions = [accepted(gateway, role), programmed(made, run)];
    let nothing = Vec::new();
    let listeners_before = before["listeners"].as_array().unwrap_or(&nothing);
    let listeners: Vec<Value> = gateway
        .spec
        .listeners
        .iter()
        .map(|listener| {
            let known = listeners_before.iter().find(|known| known["name"] == *listener.name);
            let conditions = of_listener(&listener.protocol, &conditions[1]);
            json!({
                "name": listener.name,
                "supportedKinds": [],
                // Routes of the mesh are attached to Services.
                "attachedRoutes": 0,
                "conditions": written(&conditions, known.map_or(&Value::Null, |known| &known["conditions"]), generation),
            })
        })
        .collect();
    let addresses: Vec<Value> =
        run.address.iter().map(|address| json!({"type": "IPAddress", "value": address})).collect();
    json!({
        "addresses": addresses,
        "conditions": written(&conditions, &before["conditions"], generation),
        "listeners": listeners,
    })
}

fn accepted(gateway: &GatewayObject, role: Role) -> Condition {
    let refused = match role {
        Role::Waypoint => gateway.spec.listeners.iter().find(|listener| listener.protocol != HBONE),
    };
    match refused {
        None => Condition::holds("Accepted", "Accepted"),
        Some(listener) => {
            let message =
                format!("listener {} is of protocol {}, and waypoints speak HBONE", listener.name, listener.protocol);
            Condition { message, ..Condition::holds("Accepted", "ListenersNotValid") }
        }
    }
}

fn programmed(made: &Result<(), DeployError>, run: &Run) -> Condition {
    match made {
        Err(error @ DeployError::Apply(ApplyError::Taken { .. })) => {
            Condition::fails("Programmed", "Invalid", error.to_string())
        }
        Err(error) => Condition::fails("Programmed", "NoResources", error.to_string()),
        Ok(()) if run.address.is_none() => {
            Condition::fails("Programmed", "AddressNotAssigned", "its Service has no address yet")
        }
        Ok(()) if !run.ready => Condition::fails("Programmed", "Pending", "no replica of its Deployment is ready"),
        Ok(()) => Condition::holds("Programmed", "Programmed"),
    }
}

fn of_listener(protocol: &str, gateway: &Condition) -> [Condition; 4] {
    let (accepted, programmed) = if protocol == HBONE {
        (Condition::holds("Accepted", "Accepted"), gateway.clone())
    } else {
        let message = format!("waypoints speak HBONE, and not {protocol}");
        let programmed = Condition::fails("Programmed", "Invalid", message.clone());
        (Condition::fails("Accepted", "UnsupportedProtocol", message), programmed)
    };
    let conflicted = Condition::fails("Conflicted", "NoConflicts", "");
    [accepted, conflicted, programmed, Condition::holds("ResolvedRefs", "ResolvedRefs")]
}
