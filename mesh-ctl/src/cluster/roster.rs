//! Who there is to ask, while pods come and go: told by watches, so that nothing is asked for that has not changed.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use tokio_stream::{StreamExt as _, StreamMap};

use super::Cluster;
use super::pods::{DAEMONS, OURS};
use crate::fleet::Target;
use crate::output::note;

/// Whom there is to ask.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// Nodes' daemons.
    pub(crate) daemons: Vec<Target>,
    /// Waypoints and gateways.
    pub(crate) proxies: Vec<Target>,
}

/// Pods by namespace and name.
type Pods = BTreeMap<(String, String), Pod>;

/// The pods of one watch.
#[derive(Debug, Default)]
struct Watched {
    pods: Pods,
    /// What a list that is not complete has so far.
    listed: Pods,
    failing: bool,
}

impl Watched {
    /// Whether something has changed.
    fn take(&mut self, event: watcher::Event<Pod>) -> bool {
        let key = |pod: &Pod| (pod.namespace().unwrap_or_default(), pod.name_any());
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(pod) => drop(self.listed.insert(key(&pod), pod)),
            watcher::Event::InitDone => {
                self.pods = std::mem::take(&mut self.listed);
                return true;
            }
            watcher::Event::Apply(pod) => return self.pods.insert(key(&pod), pod.clone()) != Some(pod),
            watcher::Event::Delete(pod) => return self.pods.remove(&key(&pod)).is_some(),
        }
        false
    }
}

/// The watch of daemons; after it come those of proxies.
const OF_DAEMONS: usize = 0;

impl Cluster {
    /// Tells who is there, proxies in these namespaces or in all where none is named, and again when pods have changed; runs until
    /// dropped. What cannot be watched is said once, stays as it was last, and is tried again.
    pub(crate) async fn follow(&self, namespaces: &[String], mut tell: impl FnMut(Roster)) {
        let of = |namespace: &str| Api::namespaced(self.client.clone(), namespace);
        let mut places = vec![(of(&self.mesh_namespace), DAEMONS, "mesh-node".to_owned())];
        let proxies = |place: &str| format!("waypoints and gateways in {place}");
        places.extend(namespaces.iter().map(|namespace| (of(namespace), OURS, proxies(namespace))));
        if namespaces.is_empty() {
            places.push((Api::all(self.client.clone()), OURS, proxies("all namespaces")));
        }
        let mut events = StreamMap::new();
        for (index, (api, labels, _)) in places.iter().enumerate() {
            let what = watcher::Config::default().labels(labels);
            events.insert(index, Box::pin(watcher::<Pod>(api.clone(), what).default_backoff()));
        }
        let mut watched: Vec<Watched> = places.iter().map(|_| Watched::default()).collect();
        while let Some((of, event)) = events.next().await {
            let own = &mut watched[of];
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    if !std::mem::replace(&mut own.failing, true) {
                        note(&format!("pods of {} cannot be watched, and it is tried again: {error}", places[of].2));
                    }
                    continue;
                }
            };
            own.failing = false;
            if own.take(event) {
                let pods =
                    |watched: &[Watched]| watched.iter().flat_map(|it| it.pods.values().cloned()).collect::<Vec<_>>();
                let (daemons, proxies) = watched.split_at(OF_DAEMONS + 1);
                tell(Roster { daemons: self.by_node(pods(daemons)), proxies: self.by_name(pods(proxies)) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Pod {
        let mut pod = Pod::default();
        (pod.metadata.namespace, pod.metadata.name) = (Some("mesh-system".to_owned()), Some(name.to_owned()));
        pod
    }

    #[test]
    fn a_list_that_begins_anew_takes_nothing_away_until_it_is_complete() {
        let mut watched = Watched::default();
        let names = |watched: &Watched| watched.pods.keys().map(|(_, name)| name.clone()).collect::<Vec<_>>();
        for event in [watcher::Event::Init, watcher::Event::InitApply(pod("a"))] {
            watched.take(event);
        }
        assert!(watched.take(watcher::Event::InitDone) && watched.take(watcher::Event::Apply(pod("b"))));
        assert!(!watched.take(watcher::Event::Apply(pod("b"))), "it is as it was");
        watched.take(watcher::Event::Init);
        assert!(!watched.take(watcher::Event::InitApply(pod("b"))));
        assert_eq!(names(&watched), ["a", "b"]);
        assert!(watched.take(watcher::Event::InitDone));
        assert_eq!(names(&watched), ["b"]);
        assert!(watched.take(watcher::Event::Delete(pod("b"))) && names(&watched).is_empty());
    }
}
