//! Waiting for a condition, always with a bound.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long the lab itself waits for what takes milliseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Asks `condition` until it answers with a value; fails after `limit`, naming `what` was awaited.
///
/// The condition is asked every millisecond at first and every 10 ms later. It is asked once more after the limit,
/// so that a machine that stood still does not fail a condition that holds.
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        let late = start.elapsed() >= limit;
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if late {
            bail!("waited {limit:?} in vain for {what}");
        }
        let pause = if start.elapsed() < Duration::from_millis(100) { 1 } else { 10 };
        thread::sleep(Duration::from_millis(pause));
    }
}
