//! How a configuration comes to be in force: made off the runtime's threads, and told to those who follow it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Config;
use crate::live::LiveObjects;

/// Runs `work` where it may block; a panic of it is the caller's. `None` when the runtime shuts down first.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Some(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => None,
        },
    }
}

impl LiveObjects {
    /// What the objects mean now, as [`publish`](Self::publish) says it, and the objects. A large cluster takes a while: others
    /// go on meanwhile. `None` when the runtime shuts down first. Must be called within a tokio runtime.
    pub async fn publish_off_thread(mut self) -> Option<(Self, Arc<Config>)> {
        off_thread(move || {
            let config = self.publish();
            (self, config)
        })
        .await
    }
}

/// Puts a configuration in force. Those who follow are woken if it is another one.
pub fn put_in_force(configs: &watch::Sender<Arc<Config>>, config: Arc<Config>) {
    configs.send_if_modified(|current| {
        let differs = !Arc::ptr_eq(current, &config);
        *current = config;
        differs
    });
}
