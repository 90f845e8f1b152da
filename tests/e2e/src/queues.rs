//! What waits in the kernel of a pod to be read.

use anyhow::Result;
use mesh_lab::Place;

/// Octets that have arrived on TCP connections with this port at either end, and that nobody has read yet.
pub fn unread(place: &impl Place, port: u16) -> Result<u64> {
    let tables = place.exec(&["cat", "/proc/net/tcp", "/proc/net/tcp6"])?;
    let of_port = format!(":{port:04X}");
    // "sl local_address rem_address st tx_queue:rx_queue ..." (proc_net_tcp.txt); 01 is established.
    let rows = tables.success()?.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = rows
        .filter(|row| row.len() > 4 && row[3] == "01" && (row[1].ends_with(&of_port) || row[2].ends_with(&of_port)));
    let queues = ours.filter_map(|row| u64::from_str_radix(row[4].split_once(':')?.1, 16).ok());
    Ok(queues.sum())
}
