//! What servers and clients print: a JSON object a line.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::outcome::{self, Failure};
use crate::transfer::Moved;

/// The connection's addresses as the application sees them; null where the system call fails.
pub(crate) fn addresses(stream: &TcpStream) -> Value {
    json!({"peer": text(stream.peer_addr().ok()), "local": text(stream.local_addr().ok())})
}

fn text(address: Option<SocketAddr>) -> Option<String> {
    address.map(|address| address.to_string())
}

/// How an operation ended, with what was moved.
pub(crate) fn ended(operation: &str, addresses: &Value, moved: Moved, result: &Result<(), Failure>) -> Value {
    let mut report = json!({
        "operation": operation,
        "outcome": outcome::of(result),
        "sent": moved.sent,
        "received": moved.received,
        "error": result.as_ref().err().map(ToString::to_string),
    });
    merge(&mut report, addresses);
    report
}

/// Adds the fields of `more`.
pub(crate) fn merge(report: &mut Value, more: &Value) {
    if let (Some(fields), Some(more)) = (report.as_object_mut(), more.as_object()) {
        fields.extend(more.clone());
    }
}

/// Prints a line. One that nobody reads is no reason to stop serving.
pub(crate) fn print(line: &impl std::fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
