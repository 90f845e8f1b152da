//! Those that the page is about, as they come and go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use mesh_core::lock::UnpoisonedMutex as _;
use tokio::task::AbortHandle;

use super::services::Readings;
use crate::daemon::Daemon;
use crate::fleet::Target;

/// A daemon or proxy.
pub(super) struct Member<H> {
    /// By which the graph knows it; nobody else has it, ever.
    pub(super) number: usize,
    /// What it is called before it has answered.
    pub(super) name: String,
    /// The way to it, or why there is none.
    pub(super) daemon: Result<Daemon, String>,
    /// What it has said.
    pub(super) heard: Mutex<H>,
    /// Its counters.
    pub(super) readings: Mutex<Readings>,
}

struct Followed<H> {
    member: Arc<Member<H>>,
    task: AbortHandle,
}

/// All of one kind.
pub(super) struct Members<H>(Mutex<Vec<Followed<H>>>);

impl<H> Default for Members<H> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// Gives every member a number of its own.
#[derive(Debug, Default)]
pub(super) struct Numbers(AtomicUsize);

impl<H: Default> Members<H> {
    /// Those that there are now, by name.
    pub(super) fn all(&self) -> Vec<Arc<Member<H>>> {
        self.0.lock_unpoisoned().iter().map(|followed| followed.member.clone()).collect()
    }

    /// Takes over who there is: who is new is followed by the task that `follow` begins, and who is gone no more. A pod that stands in
    /// for another is somebody new. The numbers of those that are gone.
    pub(super) fn update(
        &self,
        targets: Vec<Target>,
        numbers: &Numbers,
        follow: impl Fn(Arc<Member<H>>) -> AbortHandle,
    ) -> Vec<usize> {
        let mut known = self.0.lock_unpoisoned();
        let mut before: BTreeMap<_, _> =
            known.drain(..).map(|it| ((it.member.name.clone(), way(&it.member.daemon)), it)).collect();
        for Target { name, daemon } in targets {
            let key = (name, way(&daemon));
            let kept = before.remove(&key);
            known.push(kept.unwrap_or_else(|| {
                let number = numbers.0.fetch_add(1, Ordering::Relaxed);
                let (heard, readings) = (Mutex::default(), Mutex::default());
                let member = Arc::new(Member { number, name: key.0, daemon, heard, readings });
                Followed { task: follow(member.clone()), member }
            }));
        }
        known.sort_by(|one, other| one.member.name.cmp(&other.member.name));
        let gone = before.into_values().inspect(|it| it.task.abort());
        gone.map(|it| it.member.number).collect()
    }
}

/// Two with the same are the same.
fn way(daemon: &Result<Daemon, String>) -> Result<String, String> {
    daemon.as_ref().map(Daemon::name).map_err(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, daemon: Result<&str, &str>) -> Target {
        let daemon = daemon.map(|socket| Daemon::at(socket.into())).map_err(str::to_owned);
        Target { name: name.to_owned(), daemon }
    }

    #[tokio::test]
    async fn who_is_new_is_followed_and_who_is_gone_no_more() {
        let (members, numbers) = (Members::<()>::default(), Numbers::default());
        let update =
            |targets| members.update(targets, &numbers, |_| tokio::spawn(std::future::pending::<()>()).abort_handle());
        let names = || members.all().iter().map(|it| (it.name.clone(), it.number)).collect::<Vec<_>>();
        assert!(update(vec![target("b", Ok("/1")), target("a", Err("its pod is Pending"))]).is_empty());
        assert_eq!(names(), [("a".to_owned(), 1), ("b".to_owned(), 0)]);
        let task = members.0.lock_unpoisoned()[1].task.clone();
        assert_eq!(update(vec![target("a", Ok("/2")), target("b", Ok("/1"))]), [1]);
        assert_eq!(names(), [("a".to_owned(), 2), ("b".to_owned(), 0)], "who stays has its number");
        assert_eq!(update(vec![target("a", Ok("/2"))]), [0]);
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}
