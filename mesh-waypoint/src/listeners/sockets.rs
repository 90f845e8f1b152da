//! The sockets of a gateway's listeners: opened and closed as the configuration says, none for the sake of another.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    task::{AbortHandle, spawn_local},
    time::sleep,
};

use super::Listeners;
use crate::{
    serve::{Shared, accept},
    worker::{Door, Workers},
};

/// How often a port is asked for that somebody else has; nothing tells when it is free.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A task that ends with its owner.
struct Accepting(AbortHandle);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Follows the configuration for good.
pub(crate) async fn follow(shared: &Arc<Shared>, address: IpAddr, workers: &Arc<Workers>) {
    let mut config = shared.config.clone();
    let mut open: HashMap<u16, (u16, Accepting)> = HashMap::new();
    loop {
        let snapshot = config.borrow_and_update().snapshot.clone();
        let now = Arc::new(Listeners::of(&snapshot, &shared.own, &shared.listeners.borrow().clone()));
        shared.listeners.send_replace(now.clone());
        open.retain(|bound, (number, _)| now.ports.get(number).is_some_and(|port| port.bound == *bound));
        let mut waiting = false;
        for port in now.ports.values() {
            if open.contains_key(&port.bound) {
                continue;
            }
            let at = SocketAddr::new(address, port.bound);
            match TcpListener::bind(at).await {
                Ok(listener) => {
                    tracing::info!(port = port.number, address = %at, "listener open");
                    let (shared, workers, door) = (shared.clone(), workers.clone(), Door::Gateway(port.number));
                    let task = spawn_local(async move { accept(listener, &shared, &workers, door).await });
                    open.insert(port.bound, (port.number, Accepting(task.abort_handle())));
                }
                Err(error) => {
                    waiting = true;
                    tracing::error!(port = port.number, address = %at, %error, "listener cannot be opened; it is tried again");
                }
            }
        }
        tokio::select! {
            changed = config.changed() => if changed.is_err() {
                // The last good configuration stays in force.
                std::future::pending::<()>().await;
            },
            () = sleep(ASK_AGAIN), if waiting => {}
        }
    }
}
