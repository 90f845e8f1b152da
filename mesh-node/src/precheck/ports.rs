//! The mesh's ports: who listens there now.

use std::{collections::HashMap, fs, path::Path};

use mesh_abi::ports;
use mesh_admin::{Found, Requirement};

use super::requirement;
use crate::pods::each_namespace;

/// In the node's own namespace.
const ON_NODE: [(u16, &str); 2] = [(15_020, "--metrics-addr"), (15_021, "--readiness-addr")];
/// In each pod's namespace.
const IN_PODS: [u16; 3] = [ports::OUTBOUND, ports::PLAINTEXT_INBOUND, ports::HBONE];
/// State of a listening socket in /proc/net/tcp (`TCP_LISTEN`).
const LISTEN: &str = "0A";
/// The daemon's name in /proc: its own listeners are as they should be.
const DAEMON: &str = "mesh-node";
/// Pods that are named at most.
const MAX_NAMED: usize = 5;

/// Looks at the node's ports, and at those of every pod that runs.
pub(super) fn look(proc: &Path) -> [Requirement; 2] {
    let holders = Holders::read(proc);
    let taken = |pid: &str, port: u16| holders.of(&listening(proc, pid, port)).filter(|holder| holder.name != DAEMON);
    let on_node = ON_NODE.into_iter().filter_map(|(port, flag)| {
        let holder = taken("self", port)?;
        Some(format!("{port} is taken by {holder}: pass another address with {flag}"))
    });
    let mut in_pods = Vec::new();
    for (pid, uid) in each_namespace(proc) {
        let Some(uid) = uid else { continue };
        let pid = pid.to_string();
        let taken = IN_PODS.into_iter().filter_map(|port| Some((port, taken(&pid, port)?)));
        in_pods.extend(taken.map(|(port, holder)| format!("{port} is taken by {holder} in the pod {uid}")));
    }
    let remedy = "such a pod cannot be enrolled: let the application listen at another port";
    let pods = match &in_pods[..] {
        [] => requirement("ports in pods", Found::Ok, "15001, 15006 and 15008 are free, or the daemon's own"),
        taken => {
            let named = taken[..taken.len().min(MAX_NAMED)].join("; ");
            let more = taken.len().saturating_sub(MAX_NAMED);
            let more = if more == 0 { String::new() } else { format!("; and {more} more") };
            requirement("ports in pods", Found::Warning, format!("{named}{more}; {remedy}"))
        }
    };
    let on_node: Vec<_> = on_node.collect();
    let node = match &on_node[..] {
        [] => requirement("ports on the node", Found::Ok, "15020 and 15021 are free, or the daemon's own"),
        taken => requirement("ports on the node", Found::Missing, taken.join("; ")),
    };
    [node, pods]
}

/// Inodes of the sockets that listen at a port in the process's network namespace.
fn listening(proc: &Path, pid: &str, port: u16) -> Vec<u64> {
    let tables = ["tcp", "tcp6"].map(|table| proc.join(format!("{pid}/net/{table}")));
    // A namespace without IPv6 has no table of it.
    let text: String = tables.iter().filter_map(|table| fs::read_to_string(table).ok()).collect();
    inodes(&text, port)
}

/// Of /proc/net/tcp (Documentation/networking/proc_net_tcp.rst): local address, state and inode are columns 1, 3 and 9.
fn inodes(table: &str, port: u16) -> Vec<u64> {
    let local_port = format!(":{port:04X}");
    let listening = table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let listens = columns.get(1)?.ends_with(&local_port) && *columns.get(3)? == LISTEN;
        if listens { columns.get(9)?.parse().ok() } else { None }
    });
    listening.collect()
}

/// A process that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Holder {
    name: String,
    pid: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

/// Which process has which socket.
struct Holders(HashMap<u64, Holder>);

impl Holders {
    fn read(proc: &Path) -> Self {
        let mut holders = HashMap::new();
        for process in fs::read_dir(proc).into_iter().flatten().flatten() {
            let pid = process.file_name().to_string_lossy().into_owned();
            if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let holder = Holder { name: name.trim().to_owned(), pid };
            // A process that is gone meanwhile has none.
            for descriptor in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
                let Ok(target) = fs::read_link(descriptor.path()) else { continue };
                let target = target.to_string_lossy();
                let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
                if let Some(inode) = inode {
                    holders.insert(inode, holder.clone());
                }
            }
        }
        Self(holders)
    }

    /// Who has one of the sockets. A socket that nobody seems to have is of a process that may not be looked into.
    fn of(&self, inodes: &[u64]) -> Option<Holder> {
        let unknown = || Holder { name: "a process that cannot be seen".to_owned(), pid: "?".to_owned() };
        inodes.iter().map(|inode| self.0.get(inode).cloned().unwrap_or_else(unknown)).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listeners_at_the_port_are_found() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 00000000:3AAC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 77 1 0 100 0 0 10 0\n\
             1: 0100007F:3AAC 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 78 1 0 100 0 0 10 0\n\
             2: 00000000:3AAD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 79 1 0 100 0 0 10 0\n";
        assert_eq!(inodes(table, 15_020), [77]);
        assert_eq!(inodes(table, 15_021), [79]);
        assert_eq!(inodes(table, 80), [0; 0]);
    }

    #[test]
    fn the_holder_of_a_listener_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let proc = Path::new("/proc");
        let holder = Holders::read(proc).of(&listening(proc, "self", port)).unwrap();
        assert_eq!(holder.pid, std::process::id().to_string());
        assert!(!holder.name.is_empty());
    }
}
