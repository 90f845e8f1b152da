//! ListenerSets: which of them their Gateways take listeners from.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::policies::{by_age, report};
use super::super::waypoints::admits;
use crate::code::Code;
use crate::finding::Finding;
use crate::gateway_api::{ListenerSet, Role};
use crate::object::{Key, Located, ObjectSet};
use crate::status::{ListenerSetStatus, Refusal};

/// Sets of one Gateway, each of up to 64 listeners.
const MAX_SETS: usize = 64;

/// The sets that each Gateway takes.
pub(super) type SetsByGateway<'a> = BTreeMap<Key, Vec<&'a Located<ListenerSet>>>;

/// Whether a Gateway takes a set's listeners.
pub(super) enum Admission {
    /// It does.
    Admitted,
    /// It does not.
    Refused(Refusal),
    /// It is another program's.
    Foreign,
    /// There is none.
    NoGateway(String),
}

/// Whether the Gateway that a set names takes its listeners.
pub(super) fn admission(objects: &ObjectSet, set: &ListenerSet) -> Admission {
    let (at, name) = &set.gateway;
    let Some(gateway) = objects.gateways.get(&set.gateway) else {
        return Admission::NoGateway(format!("there is no Gateway {at}/{name}"));
    };
    let ingress = match &gateway.object.role {
        Role::Ingress(ingress) => ingress,
        Role::Foreign => return Admission::Foreign,
        Role::Waypoint { .. } => {
            let message = format!("Gateway {at}/{name} is a waypoint, and has no listeners of others");
            return Admission::Refused(Refusal::new("ParentNotAccepted", message));
        }
    };
    let namespace = &*set.name.namespace;
    let labels = objects.namespaces.get(namespace).and_then(|located| located.object.metadata.labels.as_ref());
    if admits(&ingress.sets, at, namespace, labels) {
        return Admission::Admitted;
    }
    let message = format!("allowedListeners of Gateway {at}/{name} admits no ListenerSet of {namespace}");
    Admission::Refused(Refusal::new("NotAllowed", message))
}

/// The sets that each Gateway takes, the oldest first, and what is to be said of those that are not taken.
pub(super) fn admitted<'a>(
    objects: &'a ObjectSet,
    findings: &mut Vec<Finding>,
) -> (SetsByGateway<'a>, BTreeMap<Key, ListenerSetStatus>) {
    let mut admitted: BTreeMap<Key, Vec<_>> = BTreeMap::new();
    let mut refused = BTreeMap::new();
    for located in by_age(&objects.listener_sets, |set| &set.age) {
        let set = &*located.object;
        report(located, &set.remarks, findings);
        let mut tell = |code, message: String| {
            findings.push(Finding::new(code, (*located.origin).clone(), message).at("spec.parentRef"));
        };
        let refusal = match admission(objects, set) {
            Admission::Admitted => {
                let of_gateway = admitted.entry(set.gateway.clone()).or_default();
                if of_gateway.len() < MAX_SETS {
                    of_gateway.push(located);
                    continue;
                }
                let (at, name) = &set.gateway;
                Refusal::new("NotAllowed", format!("Gateway {at}/{name} has {MAX_SETS} older ListenerSets"))
            }
            Admission::Refused(refusal) => refusal,
            Admission::Foreign => continue,
            Admission::NoGateway(why) => {
                tell(Code::ParentNotFound, why);
                continue;
            }
        };
        tell(Code::ListenersNotTaken, refusal.message.clone());
        let status = status(objects, set, Some(refusal));
        refused.insert((Arc::clone(&set.name.namespace), Arc::clone(&set.name.name)), status);
    }
    (admitted, refused)
}

/// What is to be said of a set, but for its listeners.
pub(super) fn status(objects: &ObjectSet, set: &ListenerSet, refused: Option<Refusal>) -> ListenerSetStatus {
    let class = objects.gateways.get(&set.gateway).map(|located| Arc::clone(&located.object.class));
    ListenerSetStatus {
        generation: set.generation,
        gateway: set.gateway.clone(),
        class: class.unwrap_or_else(|| Arc::from("")),
        refused,
        listeners: Vec::new(),
        ports: BTreeMap::new(),
    }
}
