//! Objects that are told of one by one, as a watch of a cluster's API server tells of them.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::code::Code;
use crate::config::{Config, Options};
use crate::directory::{DirectoryError, read_once};
use crate::finding::{Finding, ObjectName, Origin};
use crate::kind::Kind;
use crate::kubernetes::Service;
use crate::last_good::Contents;
use crate::limits::Limits;
use crate::object::{Entry, Object};
use crate::translate::Translator;

/// What stands for a file in findings.
const SOURCE: &str = "kubernetes";

/// The objects in force, and what they mean. Of an object that breaks, the last good version stays in force.
#[derive(Debug)]
pub struct LiveObjects {
    /// What is told of objects, but of those of numerous kinds with which nothing is wrong: the translator has them as they are.
    contents: HashMap<ObjectName, Contents>,
    /// Where all of them stand, to findings.
    place: Arc<Origin>,
    limits: Limits,
    translator: Translator,
}

impl LiveObjects {
    /// None yet.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let place = Arc::new(Origin::file(Path::new(SOURCE)));
        Self { contents: HashMap::new(), place, limits: Limits::of(&options), translator: Translator::new(options) }
    }

    /// Takes an object, or a new version of it.
    pub fn apply(&mut self, name: ObjectName, value: Value) {
        let contents = Contents::of_object(&self.said(&name), value, &self.place, &self.limits);
        self.put(name, contents);
    }

    /// What is told of an object now.
    fn said(&self, name: &ObjectName) -> Cow<'_, Contents> {
        if let Some(contents) = self.contents.get(name) {
            return Cow::Borrowed(contents);
        }
        let kind = Kind::numerous(&name.group, &name.kind);
        let entry = kind.and_then(|kind| self.translator.numerous_at(&name.id(kind), &self.place));
        Cow::Owned(Contents { entries: entry.into_iter().collect(), ..Contents::default() })
    }

    fn put(&mut self, name: ObjectName, contents: Contents) {
        let previous = self.said(&name).into_owned();
        if contents == previous {
            return;
        }
        self.translator.update(|| source(&name), &previous, &contents);
        if self.is_held(&name, &contents) {
            self.contents.remove(&name);
        } else {
            // The same name in texts that others have, too.
            let known = contents.entries.first().map(Entry::name).filter(|known| *known == name);
            self.contents.insert(known.unwrap_or(name), contents);
        }
    }

    /// Whether the translator has all that is told of the object.
    fn is_held(&self, name: &ObjectName, contents: &Contents) -> bool {
        let [entry] = &contents.entries[..] else { return false };
        let is_as_told = contents.findings.is_empty() && entry.stands_in.is_none();
        let is_it = |kind: Kind| entry.id == name.id(kind);
        is_as_told
            && Arc::ptr_eq(&entry.origin, &self.place)
            && Kind::numerous(&name.group, &name.kind).is_some_and(is_it)
    }

    /// Takes an object as another program serves it: what is in force of it, and after that what it refused, which is refused
    /// here for the same reasons.
    ///
    /// # Errors
    /// What is served is no JSON; then nothing is taken.
    pub fn take(&mut self, name: &ObjectName, object: &str, refused: Option<&str>) -> Result<(), serde_json::Error> {
        let at_once = || Contents::of_text(name, object, &self.place);
        if let Some(contents) = (refused.is_none() && !self.limits.served).then(at_once).flatten() {
            self.put(name.clone(), contents);
            return Ok(());
        }
        let (object, refused) = (serde_json::from_str(object)?, refused.map(serde_json::from_str).transpose()?);
        self.apply(name.clone(), object);
        if let Some(refused) = refused {
            self.apply(name.clone(), refused);
        }
        Ok(())
    }

    /// What is wrong with an object by itself.
    #[must_use]
    pub fn findings_of(&self, name: &ObjectName) -> &[Finding] {
        self.contents.get(name).map_or(&[], |contents| &contents.findings)
    }

    /// Forgets an object that is gone.
    pub fn remove(&mut self, name: &ObjectName) {
        let contents = self.said(name).into_owned();
        self.contents.remove(name);
        self.translator.update(|| source(name), &contents, &Contents::default());
    }

    /// Forgets the objects of a kind that are not among `names`: a whole list of them has been read anew.
    pub fn retain(&mut self, group: &str, kind: &str, names: &HashSet<ObjectName>) {
        let apart = self.contents.keys().filter(|name| *name.group == *group && *name.kind == *kind).cloned();
        let numerous = Kind::numerous(group, kind).map(|kind| self.translator.all_numerous_at(kind, &self.place));
        let all: HashSet<_> = apart.chain(numerous.into_iter().flatten().map(|id| id.name())).collect();
        for name in all.difference(names) {
            self.remove(name);
        }
    }

    /// Puts the manifests of a directory, or a file, in the place of the objects that they name, as if they were applied.
    ///
    /// What the cluster gives an object is left to it: a Service keeps its addresses. A Pod that is there stays as it is.
    ///
    /// # Errors
    /// The directory cannot be read. What is wrong inside it is a finding.
    pub fn overlay(&mut self, dir: &Path) -> Result<(), DirectoryError> {
        let (files, findings) = read_once(dir, &self.limits)?;
        self.translator.set_tree_findings(findings);
        for (path, mut contents) in files {
            let is_there = |finding: &Finding| {
                finding.origin.object.as_ref().is_some_and(|object| !self.said(object).entries.is_empty())
            };
            contents.findings.retain(|finding| finding.code != Code::StrictestStandsIn || !is_there(finding));
            contents.entries.retain_mut(|entry| self.make_way(entry));
            self.translator.update(|| path.clone(), &Contents::default(), &contents);
        }
        Ok(())
    }

    /// Forgets the object that a manifest takes the place of. False where it does not.
    fn make_way(&mut self, entry: &mut Entry) -> bool {
        let name = entry.name();
        let said = self.said(&name);
        let there = said.entries.first();
        // What is broken does not take the place of what is good, as it does not in a cluster.
        if entry.stands_in.is_some() && there.is_some() {
            return false;
        }
        match (&mut entry.object, there.map(|there| &there.object)) {
            (Object::Pod(_), Some(_)) => return false,
            (Object::Service(manifest), Some(Object::Service(there))) => keep_addresses(manifest, there),
            _ => {}
        }
        self.remove(&name);
        true
    }

    /// What the objects mean now: the same configuration as before if nothing of its meaning changed.
    #[must_use]
    pub fn publish(&mut self) -> Arc<Config> {
        self.translator.publish()
    }
}

/// The API server gives a Service its addresses once, and manifests seldom name them.
fn keep_addresses(manifest: &mut Arc<Service>, there: &Service) {
    if manifest.addresses.is_none() {
        let manifest = Arc::make_mut(manifest);
        manifest.addresses.clone_from(&there.addresses);
        manifest.lists_addresses = there.lists_addresses;
    }
}

/// What stands for a file among sources.
fn source(name: &ObjectName) -> PathBuf {
    PathBuf::from(format!("{} {name}", name.group))
}

#[cfg(test)]
mod tests {
    use mesh_core::labels::Wish;
    use serde_json::json;

    use super::*;

    fn name(kind: &str, name: &str) -> ObjectName {
        let namespace = (kind != "Namespace").then(|| "shop".into());
        ObjectName { group: "".into(), kind: kind.into(), namespace, name: name.into() }
    }

    fn with_pod() -> LiveObjects {
        let mut live = LiveObjects::new(Options::default());
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
        live.apply(name("Namespace", "shop"), namespace);
        live.apply(
            name("Pod", "cart"),
            json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "cart", "namespace": "shop", "uid": "u-1"},
                "spec": {"nodeName": "a", "containers": [{"name": "c"}]},
                "status": {"podIP": "10.0.0.1"},
            }),
        );
        live
    }

    fn policy(action: &str) -> Value {
        json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "namespace": "shop"},
            "spec": {"action": action},
        })
    }

    #[test]
    fn a_generation_is_a_change_of_meaning() {
        let mut live = with_pod();
        let first = live.publish();
        assert_eq!((first.generation, first.snapshot.workloads().count()), (1, 1));
        assert!(Arc::ptr_eq(&first, &live.publish()));
        live.remove(&name("Pod", "unheard-of"));
        assert!(Arc::ptr_eq(&first, &live.publish()));
        live.remove(&name("Pod", "cart"));
        assert_eq!(live.publish().generation, 2);
    }

    fn pod(name: &str, address: &str, containers: Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "shop",
                "uid": format!("u-{name}"),
                "labels": {"app": "cart"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cart", "controller": true, "uid": "s"}],
            },
            "spec": {"nodeName": "a", "containers": containers},
            "status": {"podIP": address},
        })
    }

    #[test]
    fn what_there_is_much_of_is_held_once() {
        let mut live = with_pod();
        for (number, name) in ["cart-1", "cart-2"].into_iter().enumerate() {
            let value = pod(name, &format!("10.0.0.{}", number + 5), json!([{"name": "c"}]));
            live.take(&self::name("Pod", name), &value.to_string(), None).unwrap();
        }
        assert!(live.contents.keys().all(|name| *name.kind == *"Namespace"), "{:?}", live.contents.keys());
        let config = live.publish();
        let [one, two] = ["cart-1", "cart-2"].map(|name| config.snapshot.workload("shop", name).unwrap());
        assert!(Arc::ptr_eq(&one.template, &two.template), "{one:?} and {two:?}");
    }

    #[test]
    fn a_pod_that_breaks_stays_as_it_was_until_it_is_good_again_or_gone() {
        let (mut live, cart) = (with_pod(), name("Pod", "cart"));
        let address = |live: &mut LiveObjects| {
            let config = live.publish();
            let found = config.snapshot.workload("shop", "cart").map(|pod| pod.addresses.to_vec());
            (found, config.findings.iter().filter(|finding| finding.code == Code::LastGood).count())
        };
        let at = |text: &str| Some(vec![text.parse().unwrap()]);
        assert_eq!(address(&mut live), (at("10.0.0.1"), 0));
        live.apply(cart.clone(), pod("cart", "10.0.0.2", json!("none")));
        assert_eq!(address(&mut live), (at("10.0.0.1"), 1));
        assert_eq!(live.findings_of(&cart).len(), 2, "{:?}", live.findings_of(&cart));
        live.apply(cart.clone(), pod("cart", "10.0.0.3", json!([{"name": "c"}])));
        assert_eq!(address(&mut live), (at("10.0.0.3"), 0));
        live.apply(cart.clone(), pod("cart", "10.0.0.4", json!("none")));
        live.remove(&cart);
        assert_eq!(address(&mut live), (None, 0));
        assert!(live.findings_of(&cart).is_empty());
    }

    #[test]
    fn a_list_that_is_read_anew_takes_away_what_it_does_not_say() {
        let mut live = with_pod();
        live.retain("", "Pod", &HashSet::from([name("Pod", "cart")]));
        assert_eq!(live.publish().snapshot.workloads().count(), 1);
        live.retain("", "Pod", &HashSet::new());
        assert_eq!(live.publish().snapshot.workloads().count(), 0);
    }

    #[test]
    fn manifests_take_the_place_of_what_they_name_and_addresses_stay() {
        let dir = tempfile::tempdir().unwrap();
        let service = "apiVersion: v1\nkind: Service\nmetadata: {name: cart, namespace: shop}\n\
                       spec: {selector: {app: cart}, ports: [{port: 90}]}\n";
        let policy_file = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                           metadata: {name: p, namespace: shop}\nspec: {action: PERHAPS}\n";
        std::fs::write(dir.path().join("new.yaml"), format!("{service}---\n{policy_file}")).unwrap();
        let mut live = with_pod();
        let applied = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [{"port": 80}]},
        });
        live.apply(name("Service", "cart"), applied);
        let group = "security.istio.io".into();
        live.apply(ObjectName { group, ..name("AuthorizationPolicy", "p") }, policy("DENY"));
        let before = live.publish();
        live.overlay(dir.path()).unwrap();
        let after = live.publish();
        let services = |config: &Config| {
            let of = |service: &Arc<mesh_core::Service>| {
                (service.vips.iter().map(ToString::to_string).collect::<Vec<_>>(), service.ports[0].port)
            };
            config.snapshot.services().map(of).collect::<Vec<_>>()
        };
        let address = vec!["10.96.0.9".to_owned()];
        assert_eq!(services(&before), [(address.clone(), 80)]);
        assert_eq!(services(&after), [(address, 90)]);
        let errors = after.findings.iter().filter(|finding| finding.severity == crate::Severity::Error);
        let places: Vec<_> = errors.map(|finding| finding.origin.file.display().to_string()).collect();
        assert_eq!(places, ["new.yaml"], "{:?}", after.findings);
        assert!(live.overlay(&dir.path().join("nothing")).is_err());
    }

    #[test]
    fn a_policy_that_breaks_stays_in_force_until_it_is_gone() {
        let mut live = with_pod();
        live.apply(name("AuthorizationPolicy", "p"), policy("DENY"));
        let good = live.publish();
        live.apply(name("AuthorizationPolicy", "p"), policy("PERHAPS"));
        let kept = live.publish();
        assert_eq!(kept.snapshot, good.snapshot);
        assert!(kept.findings.iter().any(|finding| finding.code == Code::LastGood), "{:?}", kept.findings);
        live.remove(&name("AuthorizationPolicy", "p"));
        assert_ne!(live.publish().snapshot, good.snapshot);
    }

    #[test]
    fn what_a_namespace_without_pods_asks_for_is_a_change_of_its_own() {
        let mut live = LiveObjects::new(Options::default());
        let wishes = |config: &Config| (config.snapshot.namespace_wish("shop"), config.changes.namespaces);
        assert_eq!(wishes(&live.publish()), (None, false));
        for (labels, wish) in [
            (json!({}), Wish::Silent),
            (json!({"mesh.dev/join": "enabled"}), Wish::Join),
            (json!({"istio.io/dataplane-mode": "none"}), Wish::StayOut),
        ] {
            let metadata = json!({"name": "shop", "labels": labels});
            live.apply(
                name("Namespace", "shop"),
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
            );
            assert_eq!(wishes(&live.publish()), (Some(wish), true));
        }
        live.remove(&name("Namespace", "shop"));
        assert_eq!(wishes(&live.publish()), (None, true));
    }
}
