//! Whether the caller may do what an installation does. The API server is asked by doing it, with nothing kept (`dryRun`): so admission
//! and the rule that nobody gives rights that he has not are asked, too.

use std::collections::BTreeSet;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::api::{Api, ApiResource, GroupVersionKind, Patch, PatchParams, PostParams};
use mesh_admin::{Found, Requirement};
use serde_json::{Value, json};

use super::requirement;
use crate::cluster::{Cluster, kind, namespaces};

const NAME: &str = "rights";
const ADMISSION: &str = "pods' admission";
/// Kinds of the chart that are in no namespace.
const OF_CLUSTER: [&str; 4] =
    ["ClusterRole", "ClusterRoleBinding", "ValidatingWebhookConfiguration", "CustomResourceDefinition"];
const MANAGER: &str = "mesh-ctl";

/// What the caller lacks, and what would refuse the daemons' pods.
pub(super) async fn look(cluster: &Cluster, wanted: &[Value]) -> anyhow::Result<Vec<Requirement>> {
    let has_namespace = cluster.find(&namespaces(), None, &cluster.mesh_namespace).await?.is_some();
    let mut missing = Vec::new();
    if !has_namespace && !may(cluster, "create", &namespaces(), None).await? {
        missing.push("create namespaces".to_owned());
    }
    let definitions = kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
    if !may(cluster, "patch", &definitions, None).await? {
        missing.push("patch customresourcedefinitions".to_owned());
    }
    let mut asked = BTreeSet::new();
    for object in wanted {
        let Some(resource) = resource(object) else { continue };
        let namespace = namespace_of(object, &resource, &cluster.mesh_namespace);
        if namespace != Some(&*cluster.mesh_namespace) || has_namespace {
            missing.extend(refused(cluster, &resource, object, namespace).await?);
        } else if asked.insert(resource.plural.clone()) && !may(cluster, "create", &resource, namespace).await? {
            missing.push(format!("create {}", resource.plural));
        }
    }
    let mut told = vec![match &missing[..] {
        [] => requirement(NAME, Found::Ok, "this user may install"),
        missing => {
            let remedy = "ask whoever runs the cluster, or let a cluster's administrator install";
            requirement(NAME, Found::Missing, format!("{}; {remedy}", missing.join("; ")))
        }
    }];
    if has_namespace {
        told.extend(pods(cluster, wanted).await?);
    }
    Ok(told)
}

fn resource(object: &Value) -> Option<ApiResource> {
    let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    Some(ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind)))
}

/// Where an object of the chart belongs: the dashboard's rights are in namespaces of others, what names none is in the mesh's own.
fn namespace_of<'a>(object: &'a Value, resource: &ApiResource, own: &'a str) -> Option<&'a str> {
    let named = object.pointer("/metadata/namespace").and_then(Value::as_str);
    (!OF_CLUSTER.contains(&&*resource.kind)).then(|| named.unwrap_or(own))
}

/// What the API server says against an object, in its own words.
async fn refused(
    cluster: &Cluster,
    resource: &ApiResource,
    object: &Value,
    namespace: Option<&str>,
) -> anyhow::Result<Option<String>> {
    let api = cluster.objects(resource, namespace);
    let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let tried = async {
        match api.patch(name, &PatchParams::apply(MANAGER).force().dry_run(), &Patch::Apply(object)).await {
            // A binding to a role that is not there yet, a namespace of others that is not, and kinds of monitoring that the cluster does not have, which helm tells of.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(kube::Error::Api(status)) => Ok(Some(status.message.clone())),
            Err(error) => Err(error),
            Ok(_) => Ok(None),
        }
    };
    cluster.within(name, tried).await
}

async fn may(cluster: &Cluster, verb: &str, resource: &ApiResource, namespace: Option<&str>) -> anyhow::Result<bool> {
    let attributes = ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(resource.group.clone()),
        resource: Some(resource.plural.clone()),
        namespace: namespace.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let spec =
        SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = cluster.within("rights", api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Whether a daemon's pod would be let in: Pod Security, quotas, webhooks.
async fn pods(cluster: &Cluster, wanted: &[Value]) -> anyhow::Result<Option<Requirement>> {
    let template = wanted.iter().find(|it| it["kind"] == "DaemonSet").and_then(|it| it.pointer("/spec/template"));
    let Some(template) = template else { return Ok(None) };
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]});
    pod["metadata"] = json!({"generateName": "mesh-node-", "labels": template["metadata"]["labels"]});
    // The account may not be there yet, and would be another reason.
    pod["spec"]["serviceAccountName"] = "default".into();
    let api = cluster.objects(&kind("", "v1", "Pod"), Some(&cluster.mesh_namespace));
    let pod = serde_json::from_value(pod)?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let tried = async {
        match api.create(&dry, &pod).await {
            Err(kube::Error::Api(status)) => Ok(Err(status.message.clone())),
            done => done.map(|_| Ok(())),
        }
    };
    Ok(Some(match cluster.within("a daemon's pod", tried).await? {
        Ok(()) => requirement(ADMISSION, Found::Ok, "a daemon's pod is let in"),
        Err(said) => {
            let remedy = if said.contains("PodSecurity") {
                format!(
                    "label the namespace: pod-security.kubernetes.io/enforce=privileged on {}",
                    cluster.mesh_namespace
                )
            } else {
                "the daemon needs its privileges: let its namespace be an exception".to_owned()
            };
            requirement(ADMISSION, Found::Missing, format!("{said}; {remedy}"))
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_is_asked_for_where_it_says_that_it_belongs() {
        let place = |kind: &str, metadata: Value| {
            let object = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata});
            let resource = resource(&object).unwrap();
            namespace_of(&object, &resource, "mesh-system").map(str::to_owned)
        };
        assert_eq!(place("Role", json!({"name": "mesh-dashboard", "namespace": "shop"})).as_deref(), Some("shop"));
        assert_eq!(place("Role", json!({"name": "mesh-dashboard"})).as_deref(), Some("mesh-system"));
        assert_eq!(place("ClusterRole", json!({"name": "mesh-node"})), None);
    }
}
