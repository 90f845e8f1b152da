//! What controllers tell of what failed.

use std::pin::pin;

use kube::api::DynamicObject;
use kube::runtime::controller::Error;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tokio_stream::{Stream, StreamExt as _};

/// Tells what failed of an object, and what keeps objects from being followed, for as long as a controller runs.
pub(crate) async fn report<O, E: std::error::Error + 'static>(
    running: impl Stream<Item = Result<O, Error<E, watcher::Error>>>,
    failed: impl Fn(&ObjectRef<DynamicObject>, &E),
    lost: impl Fn(&dyn std::error::Error),
) {
    let mut running = pin!(running);
    while let Some(result) = running.next().await {
        match result {
            // It is gone meanwhile.
            Ok(_) | Err(Error::ObjectNotFound(_)) => {}
            Err(Error::ReconcilerFailed(error, object)) => failed(&object, &error),
            Err(error) => lost(&error),
        }
    }
}
