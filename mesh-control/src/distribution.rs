//! The configuration as it is served to nodes and gateways: what is served, and how far everybody is.

use std::sync::Arc;

use mesh_admin::Subscriber;
use mesh_config::Config;
use mesh_xds::{Publication, State, Subscribers};
use tokio::sync::watch;

/// What is served now, kept current.
pub(crate) struct Distribution {
    config: watch::Receiver<Arc<Config>>,
    publication: Publication,
    state: watch::Sender<State>,
}

impl Distribution {
    /// Serves what a configuration says that is translated with `served`.
    pub(crate) fn new(mut config: watch::Receiver<Arc<Config>>) -> Self {
        let mut publication = Publication::default();
        let first = publication.next(&config.borrow_and_update()).unwrap_or_default();
        Self { config, publication, state: watch::Sender::new(first) }
    }

    /// What is served, as it is and as it changes.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Serves what changes, until dropped.
    pub(crate) async fn follow(mut self) {
        while self.config.changed().await.is_ok() {
            let next = self.publication.next(&self.config.borrow_and_update());
            if let Some(next) = next {
                tracing::info!(version = %next.version(), "configuration served");
                self.state.send_replace(next);
            }
        }
        // What was served last is served on.
        std::future::pending().await
    }
}

/// What is served, and to whom.
#[derive(Debug, Clone)]
pub(crate) struct Audience {
    pub(crate) state: watch::Receiver<State>,
    pub(crate) subscribers: Subscribers,
}

impl Audience {
    /// Who has what is served, as it is now.
    pub(crate) fn standing(&self) -> mesh_admin::Distribution {
        let now = self.state.borrow().version();
        let all = self.subscribers.all().into_iter().map(|subscriber| {
            let told = subscriber.told.unwrap_or_default();
            Subscriber {
                caller: subscriber.caller.to_string(),
                name: subscriber.node.id,
                program: format!("{} {}", subscriber.node.user_agent_name, subscriber.node.user_agent_version),
                for_seconds: subscriber.since.elapsed().as_secs(),
                sent: told.sent.map(|version| version.to_string()),
                acknowledged: told.acknowledged.map(|version| version.to_string()),
                rejected: told.rejected,
                current: told.acknowledged == Some(now),
            }
        });
        mesh_admin::Distribution { generation: now.generation, version: now.to_string(), subscribers: all.collect() }
    }
}
