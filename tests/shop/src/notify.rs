//! The notification service, as its client sees it.

use std::io;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use crate::connections::{Connection, Connections};
use crate::failure::Failure;
use crate::notification::MOST_LINE;
use crate::peers::Address;
use crate::upstream::{LEAF_TIMEOUT, connect};

/// A notification that waits to be sent.
pub(crate) struct Queued {
    /// Its place in the queue since the service started.
    pub(crate) number: u64,
    pub(crate) hop: Value,
}

pub(crate) struct Notifications {
    address: Address,
    connections: Connections<BufReader<TcpStream>>,
}

impl Notifications {
    pub(crate) fn new(address: Address, max_age: Duration) -> Self {
        let connections = Connections::new(max_age);
        Self { address, connections }
    }

    /// Queues a notification; a kept connection that proves dead is replaced once.
    pub(crate) async fn notify(&self, order: &str, text: &str) -> Result<Queued, Failure> {
        let line = line(order, text);
        let talking = tokio::time::timeout(LEAF_TIMEOUT, self.talk(&line));
        let answer = match talking.await {
            Ok(answer) => answer?,
            Err(_) => {
                let limit = LEAF_TIMEOUT.as_secs();
                return Err(self.failure(format!("no answer from {} within {limit} s", self.address)));
            }
        };
        parse(&answer).ok_or_else(|| self.failure(format!("it answered {answer:?}")))
    }

    async fn talk(&self, line: &str) -> Result<String, Failure> {
        if let Some(kept) = self.connections.take()
            && let Ok(answer) = self.talk_over(kept, line).await
        {
            return Ok(answer);
        }
        let opened = Instant::now();
        let stream = connect(&self.address).await;
        let stream = stream.map_err(|error| self.failure(error.to_string()))?;
        let inner = BufReader::with_capacity(1024, stream);
        let answer = self.talk_over(Connection { opened, inner }, line).await;
        answer.map_err(|error| self.failure(format!("the connection to {} broke: {error}", self.address)))
    }

    async fn talk_over(&self, mut connection: Connection<BufReader<TcpStream>>, line: &str) -> io::Result<String> {
        let stream = &mut connection.inner;
        stream.write_all(line.as_bytes()).await?;
        let mut answer = String::new();
        stream.take(MOST_LINE).read_line(&mut answer).await?;
        if !answer.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.connections.keep(connection);
        Ok(answer)
    }

    fn failure(&self, reason: String) -> Failure {
        Failure { failed: "notification".to_owned(), reason, reported_by: "order".to_owned() }
    }
}

/// One line, whatever the text holds: its ends of line become spaces, and a long text is cut.
fn line(order: &str, text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(900).collect();
    format!("NOTIFY {order} {text}\n")
}

fn parse(answer: &str) -> Option<Queued> {
    let (number, hop) = answer.strip_prefix("QUEUED ")?.trim_end().split_once(' ')?;
    Some(Queued { number: number.parse().ok()?, hop: serde_json::from_str(hop).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_make_a_second_line() {
        let line = line("o-1", "ada\nNOTIFY o-2 x\r\n");
        assert_eq!(line, "NOTIFY o-1 ada NOTIFY o-2 x  \n");
    }

    #[test]
    fn only_a_whole_answer_counts() {
        assert_eq!(parse("QUEUED 7 {}\n").map(|q| q.number), Some(7));
        for bad in ["", "QUEUED\n", "QUEUED 7\n", "QUEUED x {}\n", "QUEUED 7 {\n", "ERROR 7 {}\n"] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
