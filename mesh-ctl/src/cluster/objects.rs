//! Objects of any kind, as the API server has them.

use anyhow::bail;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, ObjectList, Patch, PatchParams};
use serde_json::Value;

use super::Cluster;

/// By which the API server knows what this program has written.
const MANAGER: &str = "mesh-ctl";

/// A kind whose plural is as Kubernetes makes it.
pub(crate) fn kind(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// The Gateway API's Gateways.
pub(crate) fn gateways() -> ApiResource {
    kind("gateway.networking.k8s.io", "v1", "Gateway")
}

/// Namespaces.
pub(crate) fn namespaces() -> ApiResource {
    kind("", "v1", "Namespace")
}

impl Cluster {
    /// Objects of a kind: of a namespace, or of all, or of the whole cluster.
    pub(crate) fn objects(&self, kind: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, kind),
            None => Api::all_with(self.client.clone(), kind),
        }
    }

    /// All objects of a kind, or those of a namespace. None where the cluster does not know the kind.
    pub(crate) async fn list(
        &self,
        kind: &ApiResource,
        namespace: Option<&str>,
        what: &ListParams,
    ) -> anyhow::Result<Option<ObjectList<DynamicObject>>> {
        let api = self.objects(kind, namespace);
        let listed = async {
            match api.list(what).await {
                Ok(list) => Ok(Some(list)),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.within(&kind.plural, listed).await
    }

    /// One object; none where there is none, or the cluster does not know the kind.
    pub(crate) async fn find(
        &self,
        kind: &ApiResource,
        namespace: Option<&str>,
        name: &str,
    ) -> anyhow::Result<Option<DynamicObject>> {
        let api = self.objects(kind, namespace);
        self.within(&format!("{} {name}", kind.kind), api.get_opt(name)).await
    }

    /// Writes what this program says of an object; fields of others stay theirs.
    pub(crate) async fn apply(
        &self,
        kind: &ApiResource,
        namespace: Option<&str>,
        name: &str,
        object: &Value,
    ) -> anyhow::Result<DynamicObject> {
        let api = self.objects(kind, namespace);
        let written = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await;
        match written {
            Err(kube::Error::Api(status)) if status.code == 404 && status.details.is_none() => {
                bail!("the cluster does not know {}: are its definitions installed?", kind.plural)
            }
            written => self.within(&format!("{} {name}", kind.kind), async { written }).await,
        }
    }

    /// Sets a label of a namespace.
    pub(crate) async fn label_namespace(
        &self,
        namespace: &str,
        label: &str,
        value: Option<&str>,
    ) -> anyhow::Result<()> {
        let change = serde_json::json!({"metadata": {"labels": {label: value}}});
        let api = self.objects(&namespaces(), None);
        let (parameters, change) = (PatchParams::default(), Patch::Merge(&change));
        self.within(&format!("namespace {namespace}"), api.patch(namespace, &parameters, &change)).await.map(drop)
    }
}
