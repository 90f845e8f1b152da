//! Which listeners of the Gateway API a route attaches itself to.

use mesh_core::policy::HostPattern;

use super::super::waypoints::admits;
use super::ListenerPlace;
use super::hosts::{common, patterns};
use super::listener_sets::{self, Admission};
use crate::code::Code;
use crate::gateway_api::{Listener, ListenersOf, ListenersRef, Role};
use crate::object::{Key, ObjectSet};

/// A listener that a route is attached to.
#[derive(Debug)]
pub(in crate::translate) struct Attachment {
    /// The listener.
    pub(in crate::translate) listener: ListenerPlace,
    /// The hosts that the two have in common.
    pub(in crate::translate) hosts: Vec<HostPattern>,
}

/// Why a route is not attached by a reference.
#[derive(Debug)]
pub(in crate::translate) struct NotAttached {
    /// What it is as a finding.
    pub(in crate::translate) code: Code,
    /// What the route's status says; none where the listeners are nobody's, and so nobody writes one.
    pub(in crate::translate) refused: Option<&'static str>,
    /// What was found.
    pub(in crate::translate) message: String,
}

impl NotAttached {
    fn new(code: Code, refused: Option<&'static str>, message: String) -> Self {
        Self { code, refused, message }
    }
}

/// The listeners that a route of that kind and namespace, for those hosts, is attached to by a reference; none where they
/// are another program's.
///
/// # Errors
/// Why there is none.
pub(in crate::translate) fn attach(
    objects: &ObjectSet,
    reference: &ListenersRef,
    (kind, namespace): (&str, &str),
    hostnames: &[String],
) -> Result<Option<Vec<Attachment>>, NotAttached> {
    let ListenersRef { of, namespace: at, name, listener, port } = reference;
    let key: Key = (at.as_str().into(), name.as_str().into());
    let object = format!("{} {at}/{name}", of.as_str());
    let Some(listeners) = listeners(objects, *of, &key, &object)? else { return Ok(None) };
    let labels = objects.namespaces.get(namespace).and_then(|located| located.object.metadata.labels.as_ref());
    let (mut named, mut allowed) = (false, false);
    let mut found = Vec::new();
    for (index, candidate) in listeners.iter().enumerate() {
        let is_named = listener.as_ref().is_none_or(|name| *name == candidate.name)
            && port.is_none_or(|port| port == candidate.port);
        if !is_named {
            continue;
        }
        named = true;
        if !candidate.kinds.contains(&kind) || !admits(&candidate.allowed, at, namespace, labels) {
            continue;
        }
        allowed = true;
        if let Some(hosts) = common(&patterns(&candidate.hostname), &patterns(hostnames)) {
            let place = ListenerPlace { of: *of, key: key.clone(), index };
            found.push(Attachment { listener: place, hosts });
        }
    }
    let (code, reason, message) = match (found.is_empty(), named, allowed) {
        (false, ..) => return Ok(Some(found)),
        (true, false, _) => (Code::ParentNotFound, "NoMatchingParent", format!("{object} has no such listener")),
        (true, true, false) => {
            let message = format!("no listener of {object} admits a {kind} of {namespace}");
            (Code::RouteNotAllowed, "NotAllowedByListeners", message)
        }
        (true, true, true) => {
            let message = format!("no listener of {object} is for one of its hosts");
            (Code::RouteNotAllowed, "NoMatchingListenerHostname", message)
        }
    };
    Err(NotAttached::new(code, Some(reason), message))
}

/// The listeners of an object of that kind; none where they are another program's.
fn listeners<'a>(
    objects: &'a ObjectSet,
    of: ListenersOf,
    key: &Key,
    object: &str,
) -> Result<Option<&'a [Listener]>, NotAttached> {
    let absent = || NotAttached::new(Code::ParentNotFound, None, format!("there is no {object}"));
    if of == ListenersOf::ListenerSet {
        let set = &*objects.listener_sets.get(key).ok_or_else(absent)?.object;
        return match listener_sets::admission(objects, set) {
            Admission::Admitted => Ok(Some(&set.listeners)),
            Admission::Foreign => Ok(None),
            Admission::NoGateway(why) => Err(NotAttached::new(Code::ParentNotFound, None, format!("{object}: {why}"))),
            Admission::Refused(refusal) => {
                let message = format!("{object} is not in force: {}", refusal.message);
                Err(NotAttached::new(Code::ParentNotFound, Some("NoMatchingParent"), message))
            }
        };
    }
    match &objects.gateways.get(key).ok_or_else(absent)?.object.role {
        Role::Ingress(ingress) => Ok(Some(&ingress.listeners)),
        Role::Foreign => Ok(None),
        Role::Waypoint { .. } => {
            let message = format!("{object} is a waypoint: name a Service instead");
            Err(NotAttached::new(Code::ParentNotFound, Some("NoMatchingParent"), message))
        }
    }
}
