//! The watch of one kind: what is there, what changes, and whether the cluster knows the kind at all.

use std::pin::pin;
use std::time::Duration;

use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, TypeMeta};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use mesh_config::{ObjectName, ReadKind};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

/// HTTP's "not found": the cluster does not know the kind in that version.
pub(crate) const NOT_FOUND: u16 = 404;
/// How often to ask for a kind that the cluster does not know. Its definition may be installed at any time.
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// How long a kind that was known has to be unknown until its objects count as gone. API servers that start say this of
/// kinds that they are about to serve.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// What is told of a kind.
#[derive(Debug)]
pub(crate) enum KindEvent {
    /// A list of all of it begins.
    Begin,
    /// An object of that list.
    Listed(ObjectName, Value),
    /// The list is complete.
    Complete,
    /// An object is new, or changed.
    Changed(ObjectName, Value),
    /// An object is gone.
    Gone(ObjectName),
    /// The cluster does not know the kind.
    Unknown,
    /// It has not for so long that there can be no objects of it.
    AllGone,
}

/// Watches until the receiver is dropped. Watches that end are resumed where they ended; where that cannot be, everything is
/// listed anew. Pauses between attempts grow.
pub(crate) async fn run(client: Client, index: usize, kind: ReadKind, told: mpsc::Sender<(usize, KindEvent)>) {
    let mut unknown_since = None;
    for version in kind.versions.iter().copied().cycle() {
        let is_unknown = follow(&client, index, &kind, version, &told, &mut unknown_since).await;
        if !is_unknown {
            return;
        }
        let since = *unknown_since.get_or_insert_with(Instant::now);
        let message = if since.elapsed() > GONE_AFTER { KindEvent::AllGone } else { KindEvent::Unknown };
        // One version may be unknown and the next not: only all of them say something.
        if Some(&version) == kind.versions.last() {
            if told.send((index, message)).await.is_err() {
                return;
            }
            tokio::time::sleep(ASK_AGAIN.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
        }
    }
}

/// Follows the kind in one version. True when the cluster does not know it.
async fn follow(
    client: &Client,
    index: usize,
    kind: &ReadKind,
    version: &str,
    told: &mpsc::Sender<(usize, KindEvent)>,
    unknown_since: &mut Option<Instant>,
) -> bool {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group, version, kind.kind));
    let (api, what): (Api<DynamicObject>, _) = match &kind.only {
        None => (Api::all_with(client.clone(), &resource), watcher::Config::default()),
        Some((namespace, name)) => {
            let what = watcher::Config::default().fields(&format!("metadata.name={name}"));
            (Api::namespaced_with(client.clone(), namespace, &resource), what)
        }
    };
    let mut events = pin!(watcher(api, what).default_backoff());
    let mut failing = false;
    while let Some(event) = events.next().await {
        let message = match event {
            Ok(event) => {
                if std::mem::take(&mut failing) {
                    tracing::info!(kind = kind.kind, "watched again");
                }
                *unknown_since = None;
                message(event, &resource)
            }
            Err(error) if is_unknown(&error) => return true,
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(kind = kind.kind, %error, "not watched; what is known stays in force, and it is tried again");
                }
                continue;
            }
        };
        if told.send((index, message)).await.is_err() {
            return false;
        }
    }
    false
}

fn is_unknown(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == NOT_FOUND,
        _ => false,
    }
}

pub(crate) fn message(event: watcher::Event<DynamicObject>, resource: &ApiResource) -> KindEvent {
    match event {
        watcher::Event::Init => KindEvent::Begin,
        watcher::Event::InitApply(object) => {
            let (name, value) = value(object, resource);
            KindEvent::Listed(name, value)
        }
        watcher::Event::InitDone => KindEvent::Complete,
        watcher::Event::Apply(object) => {
            let (name, value) = value(object, resource);
            KindEvent::Changed(name, value)
        }
        watcher::Event::Delete(object) => KindEvent::Gone(name(&object, resource)),
    }
}

fn name(object: &DynamicObject, resource: &ApiResource) -> ObjectName {
    ObjectName {
        group: resource.group.as_str().into(),
        kind: resource.kind.as_str().into(),
        namespace: object.namespace().map(Into::into),
        name: object.name_any().into(),
    }
}

pub(crate) fn value(mut object: DynamicObject, resource: &ApiResource) -> (ObjectName, Value) {
    // Who wrote which field is much text, and says nothing here.
    object.metadata.managed_fields = None;
    // Items of a list come without.
    object.types = Some(TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
    let name = name(&object, resource);
    // An object that was read can be written.
    (name, serde_json::to_value(object).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = include_str!("../../../charts/mesh/templates/_names.tpl");

    /// A kind that may not be read is waited for without end.
    #[test]
    fn the_chart_lets_every_kind_be_read_that_is_watched() {
        for kind in mesh_config::read_kinds(&mesh_config::Options::default()) {
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group, "v1", kind.kind));
            let group = if kind.group.is_empty() { "[\"\"]".to_owned() } else { format!("[{}]", kind.group) };
            let listed = |rule: &&str, field: &str, what: &str| {
                let list = rule.lines().find_map(|line| line.trim().strip_prefix(field)?.strip_prefix(": ["));
                list.map(|list| list.trim_end_matches(']').split(", ").any(|listed| listed == what))
            };
            let mut rules = RULES.split("- apiGroups: ").filter(|rule| rule.starts_with(&group));
            let rule = rules.find(|rule| listed(rule, "resources", &resource.plural) == Some(true));
            let rule = rule.unwrap_or_else(|| panic!("{} of {group} may not be read", resource.plural));
            // Of what is read of one name alone, others are nobody's to read.
            let by_name = kind.only.as_ref().map(|(_, name)| listed(&rule, "resourceNames", name) == Some(true));
            assert!(by_name.unwrap_or(true), "{rule}");
            assert_eq!(rule.contains("resourceNames"), by_name.is_some(), "{rule}");
        }
    }
}
