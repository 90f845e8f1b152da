//! The Secrets that listeners name.

use std::sync::Arc;

use mesh_core::l7::gateway::Credential;

use crate::credential::Secret;
use crate::object::ObjectSet;

/// The certificate and key of a Secret.
///
/// # Errors
/// Why there is none.
pub(super) fn credential(objects: &ObjectSet, namespace: &str, name: &str) -> Result<Arc<Credential>, String> {
    match secret(objects, namespace, name)? {
        Secret::Credential(credential) => Ok(Arc::clone(credential)),
        Secret::Roots(_) => Err(format!("Secret {namespace}/{name} has roots alone, and no certificate")),
        Secret::Unusable(why) => Err(format!("Secret {namespace}/{name} cannot be used: {why}")),
    }
}

/// The roots of clients' certificates: of the Secret `NAME-cacert`, else of the one that has the server's certificate.
///
/// # Errors
/// Why there are none.
pub(super) fn client_roots(objects: &ObjectSet, namespace: &str, name: &str) -> Result<Arc<[Arc<[u8]>]>, String> {
    let of = |secret: &Secret| match secret {
        Secret::Roots(roots) => Some(Arc::clone(roots)),
        Secret::Credential(credential) if !credential.roots.is_empty() => Some(Arc::clone(&credential.roots)),
        Secret::Credential(_) | Secret::Unusable(_) => None,
    };
    let beside = format!("{name}-cacert");
    let found = [&*beside, name].into_iter().find_map(|name| of(secret(objects, namespace, name).ok()?));
    found.ok_or_else(|| format!("neither Secret {namespace}/{beside} nor {namespace}/{name} has a ca.crt"))
}

fn secret<'a>(objects: &'a ObjectSet, namespace: &str, name: &str) -> Result<&'a Secret, String> {
    let found = objects.secrets.get(&(namespace.into(), name.into()));
    found.map(|located| &*located.object).ok_or_else(|| format!("there is no Secret {namespace}/{name}"))
}
