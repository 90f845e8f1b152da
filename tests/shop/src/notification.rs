//! Notification: lines over plain TCP, `NOTIFY <order-id> <text>` answered by `QUEUED <number> <hop as JSON>`.
//!
//! A line that is not understood is answered by `ERROR <reason>`; one over the bound ends the connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::about::{About, Ends, LogLine};
use crate::server::accept_all;
use crate::tracing_headers::TracingHeaders;

/// Bound on a line, bytes, its end included.
pub(crate) const MOST_LINE: u64 = 4096;

struct Queue {
    about: About,
    queued: AtomicU64,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, about: About) {
    let queue = Arc::new(Queue { about, queued: AtomicU64::new(0) });
    accept_all(listener, |stream, ends| {
        let queue = Arc::clone(&queue);
        async move {
            // A broken connection concerns its client alone.
            let _ = converse(&queue, stream, ends).await;
        }
    })
    .await;
}

async fn converse(queue: &Queue, stream: TcpStream, ends: Ends) -> std::io::Result<()> {
    let mut stream = BufReader::with_capacity(1024, stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut stream).take(MOST_LINE).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Ok(());
        }
        let started = Instant::now();
        let whole = line.last() == Some(&b'\n');
        let (reply, outcome, marker) = match parse(&line) {
            Ok(notice) if whole => (queue.queue(ends), "QUEUED", notice.marker),
            Ok(_) => ("ERROR the line is too long or has no end".to_owned(), "ERROR", ""),
            Err(reason) => (format!("ERROR {reason}"), "ERROR", ""),
        };
        queue.about.log(&LogLine { ends, request: "NOTIFY", outcome, marker, took: started.elapsed() });
        stream.write_all(format!("{reply}\n").as_bytes()).await?;
        if !whole {
            return Ok(());
        }
    }
}

impl Queue {
    fn queue(&self, ends: Ends) -> String {
        let number = self.queued.fetch_add(1, Ordering::Relaxed) + 1;
        let hop = json!(self.about.hop(ends, &TracingHeaders::default()));
        format!("QUEUED {number} {hop}")
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Notice<'a> {
    order: &'a str,
    marker: &'a str,
}

fn parse(line: &[u8]) -> Result<Notice<'_>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "the line is not UTF-8")?;
    let line = line.trim_end_matches(['\r', '\n']);
    let rest = line.strip_prefix("NOTIFY ").ok_or("only NOTIFY is known")?;
    let (order, text) = rest.split_once(' ').ok_or("write NOTIFY <order-id> <text>")?;
    if order.is_empty() || text.is_empty() {
        return Err("write NOTIFY <order-id> <text>");
    }
    let marker = text.rsplit_once("marker=").map_or("", |(_, marker)| marker);
    Ok(Notice { order, marker })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_whole_or_refused() {
        let known = parse(b"NOTIFY o-1 ada bought book marker=m1\r\n");
        let expected = Notice { order: "o-1", marker: "m1" };
        assert_eq!(known, Ok(expected));
        for bad in [&b"\n"[..], b"HELO\n", b"NOTIFY\n", b"NOTIFY o-1\n", b"NOTIFY  x\n", b"NOTIFY \xff x\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
