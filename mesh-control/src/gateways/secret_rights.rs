//! Lets the proxies of Gateways read the Secrets and ConfigMaps that they need, each by its name, and no others.
//!
//! One may be in another namespace than the Gateway, and its Role is where it is: no owner takes it away, so this does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::rbac::v1::{Role as RbacRole, RoleBinding};
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use mesh_config::{Config, Key, NamedKind};
use serde_json::{Value, json};

use super::Gateways;
use super::manifest::{MANAGED, MANAGED_BY_US};
use super::object::made_name;

/// Who writes them.
const MANAGER: &str = "mesh-control-secrets";
/// HTTP's "not found".
const NOT_FOUND: u16 = 404;
/// Pause before what was not written is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(3);

/// Who may read what: by namespace of the objects and the Role's name.
type Rights = BTreeMap<(String, String), Right>;

/// An account, and the objects that it may read.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Right {
    account: (String, String),
    objects: BTreeMap<NamedKind, BTreeSet<String>>,
}

/// Follows what Gateways name until dropped.
pub(super) async fn follow(gateways: &Gateways) {
    let (mut config, mut classes) = (gateways.config.clone(), gateways.classes.changes());
    let (mut given, mut failed) = (None, false);
    loop {
        let wanted = wanted(gateways, &config.borrow_and_update().clone());
        if given.as_ref() != Some(&wanted) {
            let done = give(gateways, &wanted).await;
            failed = done.is_err();
            match done {
                Ok(()) => given = Some(wanted),
                Err(error) => tracing::error!(%error, "what proxies may read of TLS is not as it should be"),
            }
        }
        tokio::select! {
            changed = config.changed() => if changed.is_err() { return },
            changed = classes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(TRY_AGAIN), if failed => {}
        }
    }
}

fn wanted(gateways: &Gateways, config: &Config) -> Rights {
    let mut rights = Rights::new();
    for ((namespace, name), named) in &*config.named {
        let key: Key = (Arc::clone(namespace), Arc::clone(name));
        let Some(class) = class_of(config, &key) else { continue };
        let Some(role) = gateways.classes.role(class) else { continue };
        let account = made_name((name, class), role);
        for (kind, (at, object)) in named {
            let right = rights.entry((at.to_string(), format!("mesh:{namespace}:{account}"))).or_insert_with(|| {
                Right { account: (namespace.to_string(), account.clone()), objects: BTreeMap::new() }
            });
            right.objects.entry(*kind).or_default().insert(object.to_string());
        }
    }
    rights
}

/// The class of a Gateway, which lets traffic in or is a waypoint.
fn class_of<'a>(config: &'a Config, key: &Key) -> Option<&'a Arc<str>> {
    let waypoints = config.snapshot.l7().waypoints().iter();
    let waypoint = || waypoints.clone().find(|it| it.namespace == key.0 && it.name == key.1);
    let ingress = config.statuses.gateways.get(key).map(|status| &status.class);
    ingress.or_else(|| waypoint().map(|waypoint| &waypoint.class))
}

async fn give(gateways: &Gateways, rights: &Rights) -> Result<(), kube::Error> {
    let client = &gateways.client;
    let parameters = PatchParams::apply(MANAGER).force();
    for ((namespace, name), Right { account, objects }) in rights {
        let metadata = json!({"name": name, "namespace": namespace, "labels": {MANAGED: MANAGED_BY_US}});
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": metadata,
            "rules": objects.iter().map(|(kind, names)| rule(*kind, names)).collect::<Vec<_>>(),
        });
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "namespace": account.0, "name": account.1}],
        });
        let roles: Api<RbacRole> = Api::namespaced(client.clone(), namespace);
        let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), namespace);
        for applied in [
            roles.patch(name, &parameters, &Patch::Apply(&role)).await.map(drop),
            bindings.patch(name, &parameters, &Patch::Apply(&binding)).await.map(drop),
        ] {
            match applied {
                // A namespace that is named and does not exist has no Secrets either.
                Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {}
                other => other?,
            }
        }
    }
    take_back(gateways, rights).await
}

fn rule(kind: NamedKind, names: &BTreeSet<String>) -> Value {
    let resource = match kind {
        NamedKind::Secret => "secrets",
        NamedKind::ConfigMap => "configmaps",
    };
    json!({"apiGroups": [""], "resources": [resource], "resourceNames": names, "verbs": ["get", "list", "watch"]})
}

/// Removes what nobody needs any more.
async fn take_back(gateways: &Gateways, rights: &Rights) -> Result<(), kube::Error> {
    let client = &gateways.client;
    let ours = ListParams::default().labels(&format!("{MANAGED}={MANAGED_BY_US}"));
    for there in Api::<RoleBinding>::all(client.clone()).list_metadata(&ours).await? {
        let (namespace, name) = (there.namespace().unwrap_or_default(), there.name_any());
        if rights.contains_key(&(namespace.clone(), name.clone())) {
            continue;
        }
        let (roles, bindings) = (
            Api::<RbacRole>::namespaced(client.clone(), &namespace),
            Api::<RoleBinding>::namespaced(client.clone(), &namespace),
        );
        let gone = DeleteParams::default();
        // The binding last: by it the rest of an unfinished removal is found.
        for deleted in [roles.delete(&name, &gone).await.map(drop), bindings.delete(&name, &gone).await.map(drop)] {
            match deleted {
                Err(kube::Error::Api(status)) if status.code == NOT_FOUND => {}
                other => other?,
            }
        }
    }
    Ok(())
}
