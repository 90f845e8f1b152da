//! What daemons log, line by line.

use mesh_lab::Daemon;
use serde_json::Value;

/// Every whole line of a daemon's log.
pub fn lines(daemon: &Daemon) -> Vec<Value> {
    daemon.logs().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The lines about connections that have ended.
pub fn connections(daemon: &Daemon) -> Vec<Value> {
    lines(daemon).into_iter().filter(|line| line["target"] == "access").collect()
}
