//! Which certificates the clients of a Gateway of the Gateway API show.

use mesh_core::l7::gateway::ClientCertificates;

use super::credentials::Keychain;
use crate::code::Code;
use crate::finding::{Finding, Origin};
use crate::gateway_api::{ClientValidation, RootsRef};
use crate::object::ObjectSet;
use crate::status::{ListenerStatus, Refusal};

/// What comes of a validation.
pub(super) struct Asked {
    pub(super) clients: ClientCertificates,
    /// What cannot be used of its references.
    pub(super) refused: Vec<Refusal>,
    /// None of them can.
    pub(super) has_none: bool,
}

/// Resolves it for a Gateway of that namespace. Where none of its references can be used, nobody gets in.
pub(super) fn clients(
    validation: &ClientValidation,
    namespace: &str,
    objects: &ObjectSet,
    keychain: &Keychain<'_>,
) -> Asked {
    let (mut roots, mut refused) = (Vec::new(), Vec::new());
    for reference in validation.roots.iter().filter(|_| keychain.is_read()) {
        match resolve(reference, namespace, objects, keychain) {
            Ok(found) => roots.extend(found.iter().cloned()),
            Err(refusal) => refused.push(refusal),
        }
    }
    let has_none = keychain.is_read() && roots.is_empty();
    let clients = match (validation.lets_others_in, has_none) {
        (true, false) => ClientCertificates::Any(roots.into()),
        _ => ClientCertificates::Required(roots.into()),
    };
    Asked { clients, refused, has_none }
}

/// What is to be said of the Gateway.
pub(super) fn findings<'a>(
    asked: &'a Asked,
    validation: &'a ClientValidation,
    origin: &'a Origin,
) -> impl Iterator<Item = Finding> + use<'a> {
    let finding = |refusal: &Refusal| Finding::new(Code::NoRoots, origin.clone(), refusal.message.clone());
    asked.refused.iter().map(move |refusal| finding(refusal).at(validation.field.clone()))
}

/// Has the listener's status say so.
pub(super) fn note(asked: Asked, status: &mut ListenerStatus) -> ClientCertificates {
    if status.refused.is_none() && asked.has_none {
        status.refused = Some(Refusal::new("NoValidCACertificate", "none of its caCertificateRefs has roots"));
    }
    if status.unresolved.is_none() {
        status.unresolved = asked.refused.into_iter().next();
    }
    asked.clients
}

fn resolve(
    RootsRef { kind, written, namespace: at, name }: &RootsRef,
    namespace: &str,
    objects: &ObjectSet,
    keychain: &Keychain<'_>,
) -> Result<std::sync::Arc<[std::sync::Arc<[u8]>]>, Refusal> {
    let Some(kind) = kind else {
        let message = format!("{written} {at}/{name}: roots are read of ConfigMaps and Secrets");
        return Err(Refusal::new("InvalidCACertificateKind", message));
    };
    if !objects.may_refer(("Gateway", namespace), at, (kind.as_str(), name)) {
        let message = format!("no ReferenceGrant of {at} lets Gateways of {namespace} use {} {name}", kind.as_str());
        return Err(Refusal::new("RefNotPermitted", message));
    }
    keychain.roots(*kind, at, name).map_err(|why| Refusal::new("InvalidCACertificateRef", why))
}
