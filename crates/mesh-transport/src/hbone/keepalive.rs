//! Notices a peer that is gone without a word.

use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use crate::limits::Limits;

/// Pings the peer for as long as it answers. Resolves when an answer is overdue.
pub(super) async fn until_silent(ping: Option<PingPong>, limits: &Limits) {
    let Some(mut ping) = ping else {
        return std::future::pending().await;
    };
    loop {
        sleep(limits.ping_interval).await;
        match timeout(limits.ping_timeout, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The connection's own future reports why it ended.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Resolves once `active` has been zero for `idle` without a break, give or take a quarter of it.
pub(super) async fn until_idle(idle: Duration, active: impl Fn() -> usize) {
    let mut quiet = 0;
    while quiet < 4 {
        sleep(idle / 4).await;
        quiet = if active() == 0 { quiet + 1 } else { 0 };
    }
}
