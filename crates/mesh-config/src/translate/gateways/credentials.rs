//! The Secrets that listeners name.

use std::cell::RefCell;
use std::sync::Arc;

use mesh_core::l7::gateway::Credential;

use crate::config::{Credentials, NamedKind, NamedObjects};
use crate::credential::Secret;
use crate::object::{Key, ObjectSet};

/// The Secrets of one gateway's replicas; notes which of them are asked for.
pub(super) struct Keychain<'a> {
    objects: &'a ObjectSet,
    /// The Gateway whose replicas show them.
    gateway: Key,
    is_read: bool,
    named: &'a RefCell<NamedObjects>,
}

impl<'a> Keychain<'a> {
    pub(super) fn new(
        objects: &'a ObjectSet,
        gateway: Key,
        credentials: &Credentials,
        named: &'a RefCell<NamedObjects>,
    ) -> Self {
        let is_read = credentials.are_read_of((&gateway.0, &gateway.1));
        Self { objects, gateway, is_read, named }
    }

    /// Whether they are read. Whoever holds no Secrets knows nothing of them.
    pub(super) const fn is_read(&self) -> bool {
        self.is_read
    }

    /// The certificate and key of a Secret.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn credential(&self, namespace: &str, name: &str) -> Result<Arc<Credential>, String> {
        match self.secret(namespace, name)? {
            Secret::Credential(credential) => Ok(Arc::clone(credential)),
            Secret::Roots(_) => Err(format!("Secret {namespace}/{name} has roots alone, and no certificate")),
            Secret::Unusable(why) => Err(format!("Secret {namespace}/{name} cannot be used: {why}")),
        }
    }

    /// The roots of clients' certificates: of the Secret `NAME-cacert`, else of the one that has the server's certificate.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) fn client_roots(&self, namespace: &str, name: &str) -> Result<Arc<[Arc<[u8]>]>, String> {
        let of = |secret: &Secret| match secret {
            Secret::Roots(roots) => Some(Arc::clone(roots)),
            Secret::Credential(credential) if !credential.roots.is_empty() => Some(Arc::clone(&credential.roots)),
            Secret::Credential(_) | Secret::Unusable(_) => None,
        };
        let beside = format!("{name}-cacert");
        let found = [&*beside, name].into_iter().find_map(|name| of(self.secret(namespace, name).ok()?));
        found.ok_or_else(|| format!("neither Secret {namespace}/{beside} nor {namespace}/{name} has a ca.crt"))
    }

    /// The roots of an object of that kind.
    ///
    /// # Errors
    /// Why there are none.
    pub(super) fn roots(&self, kind: NamedKind, namespace: &str, name: &str) -> Result<Arc<[Arc<[u8]>]>, String> {
        match kind {
            NamedKind::ConfigMap => {
                let found = self.objects.ca_bundles.get(&self.note(kind, namespace, name));
                let found = found.ok_or_else(|| format!("there is no ConfigMap {namespace}/{name} with a ca.crt"))?;
                found.object.0.clone().map_err(|why| format!("ConfigMap {namespace}/{name} cannot be used: {why}"))
            }
            NamedKind::Secret => match self.secret(namespace, name)? {
                Secret::Roots(roots) => Ok(Arc::clone(roots)),
                Secret::Credential(credential) if !credential.roots.is_empty() => Ok(Arc::clone(&credential.roots)),
                Secret::Credential(_) => Err(format!("Secret {namespace}/{name} has no ca.crt")),
                Secret::Unusable(why) => Err(format!("Secret {namespace}/{name} cannot be used: {why}")),
            },
        }
    }

    /// Notes that an object is asked for.
    fn note(&self, kind: NamedKind, namespace: &str, name: &str) -> Key {
        let key: Key = (namespace.into(), name.into());
        self.named.borrow_mut().entry(self.gateway.clone()).or_default().insert((kind, key.clone()));
        key
    }

    fn secret(&self, namespace: &str, name: &str) -> Result<&'a Secret, String> {
        let key = self.note(NamedKind::Secret, namespace, name);
        let found = self.objects.secrets.get(&key);
        found.map(|located| &*located.object).ok_or_else(|| format!("there is no Secret {namespace}/{name}"))
    }
}
