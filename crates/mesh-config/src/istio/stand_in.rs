//! What is in force in the place of a broken policy of which no good version is known: the strictest that it can have
//! meant. Without it, a restart after a slip of the pen would open what the policy keeps shut.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::policy::{self, Action, ClientTls, Mode, PolicyTarget, Rule, Selector, TokenRule};
use serde_json::Value;

use super::policy_target::{TargetRef, targets};
use super::{Age, AuthorizationPolicy, DestinationRule, PeerAuthentication, RequestAuthentication, policy_name};
use crate::finding::ObjectName;
use crate::gateway_api::BackendTlsPolicy;
use crate::kind::Kind;
use crate::object::Object;

/// The stand-in for an object that is broken, as far as its scope can be read, and what it does.
pub(crate) fn stand_in(kind: Kind, value: &Value, name: &ObjectName) -> Option<(Object, String)> {
    let place = name.namespace.as_deref().unwrap_or_default();
    match kind {
        Kind::AuthorizationPolicy => {
            let (targets, selector, of) = scope(value, place)?;
            let dry_run = value.pointer("/metadata/annotations/istio.io~1dry-run").and_then(Value::as_str);
            let action = action(value);
            let (action, rules, effect) = match action {
                _ if dry_run == Some("true") => return None,
                Some("AUDIT") => return None,
                Some("ALLOW") => (Action::Allow, Vec::new(), "what no other policy allows is refused"),
                _ => (Action::Deny, vec![Rule::default()], "every connection is refused"),
            };
            let (name, provider, dry_run) = (policy_name(name), None, false);
            let policy = policy::AuthorizationPolicy { name, selector, action, provider, dry_run, rules };
            let read =
                AuthorizationPolicy { policy: Arc::new(policy), targets, age: Age::unknown(), remarks: Vec::new() };
            Some((Object::AuthorizationPolicy(Arc::new(read)), format!("{effect} to {of}")))
        }
        Kind::PeerAuthentication => {
            let (selector, of) = selected(value, place);
            let (name, mode, ports) = (policy_name(name), Some(Mode::Strict), BTreeMap::new());
            let policy = Arc::new(policy::PeerAuthentication { name, selector, mode, ports });
            let read = PeerAuthentication { policy, age: Age::unknown(), remarks: Vec::new() };
            Some((Object::PeerAuthentication(Arc::new(read)), format!("the mode is STRICT for {of}")))
        }
        Kind::RequestAuthentication => {
            let (targets, selector, of) = scope(value, place)?;
            let policy = policy::RequestAuthentication {
                name: policy_name(name),
                selector,
                rules: vec![Arc::new(TokenRule::of_nobody())],
            };
            let (policy, age, remarks) = (Arc::new(policy), Age::unknown(), Vec::new());
            let read = RequestAuthentication { policy, targets, age, remarks };
            Some((Object::RequestAuthentication(Arc::new(read)), format!("it vouches for no token sent to {of}")))
        }
        Kind::DestinationRule => {
            let host = spec(value, "host").and_then(Value::as_str)?.to_owned();
            let effect = format!("connections to {host} are refused");
            let read = DestinationRule {
                name: policy_name(name),
                host,
                exported_to: None,
                clients: None,
                tls: Some(ClientTls::Unreadable),
                ports: BTreeMap::new(),
                traffic: Arc::default(),
                age: Age::unknown(),
                remarks: Vec::new(),
            };
            Some((Object::DestinationRule(Arc::new(read)), effect))
        }
        Kind::BackendTlsPolicy => Some(believing_nobody(value, name)),
        _ => None,
    }
}

fn believing_nobody(value: &Value, name: &ObjectName) -> (Object, String) {
    let read = BackendTlsPolicy::believing_nobody(spec(value, "targetRefs"), name);
    (Object::BackendTlsPolicy(Arc::new(read)), "gateways and waypoints send nothing to its Services".to_owned())
}

/// The stand-in for an object of a text that does not even parse: its name is all that is known.
pub(crate) fn stand_in_of_text(name: &ObjectName) -> Option<(Object, String)> {
    let kind = match &*name.kind {
        "AuthorizationPolicy" => Kind::AuthorizationPolicy,
        "PeerAuthentication" => Kind::PeerAuthentication,
        "RequestAuthentication" => Kind::RequestAuthentication,
        _ => return None,
    };
    // An unknown action may be DENY.
    stand_in(kind, &serde_json::json!({"spec": {"action": "unknown"}}), name)
}

/// The action of an AuthorizationPolicy; none where it cannot be told, since a key may be misspelt.
fn action(value: &Value) -> Option<&str> {
    const KEYS: [&str; 6] = ["action", "provider", "rules", "selector", "targetRef", "targetRefs"];
    let spec = value.get("spec")?.as_object()?;
    match spec.get("action") {
        None if spec.keys().all(|key| KEYS.contains(&key.as_str())) => Some("ALLOW"),
        action => action?.as_str(),
    }
}

/// What a policy is attached to, or whom it selects, and that in words.
fn scope(value: &Value, namespace: &str) -> Option<(Vec<PolicyTarget>, Option<Selector>, String)> {
    if ["targetRef", "targetRefs"].iter().any(|field| spec(value, field).is_some()) {
        return Some((attached(value, namespace)?, None, "what its targetRefs name".to_owned()));
    }
    let (selector, of) = selected(value, namespace);
    Some((Vec::new(), selector, of))
}

/// What the policy is attached to, where that can be read; else nothing can stand in for it.
fn attached(value: &Value, namespace: &str) -> Option<Vec<PolicyTarget>> {
    let listed = spec(value, "targetRefs").and_then(Value::as_array).into_iter().flatten();
    let given = spec(value, "targetRef").into_iter().chain(listed).cloned();
    let given: Vec<TargetRef> = given.map(serde_json::from_value).collect::<Result<_, _>>().ok()?;
    targets(given, &namespace.into()).ok().filter(|targets| !targets.is_empty())
}

fn spec<'a>(value: &'a Value, field: &str) -> Option<&'a Value> {
    value.get("spec")?.get(field)
}

/// The selector, where it can be read to the last label, and whom it selects in words. Else all of the namespace.
fn selected(value: &Value, namespace: &str) -> (Option<Selector>, String) {
    let labels = spec(value, "selector").and_then(|selector| selector.get("matchLabels")).and_then(Value::as_object);
    let labels = labels.and_then(|labels| {
        let pairs = labels.iter().map(|(key, value)| Some((key.as_str(), value.as_str()?)));
        let pairs = pairs.collect::<Option<Vec<_>>>()?;
        pairs.iter().all(|(key, value)| !key.contains('*') && !value.contains('*')).then_some(pairs)
    });
    let selector = labels.and_then(Selector::new);
    let of = match &selector {
        Some(selector) => format!("workloads of namespace {namespace} with {selector}"),
        None => format!("all workloads of namespace {namespace}"),
    };
    (selector, of)
}
