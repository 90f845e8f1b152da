//! `get`: asks a server by HTTP/1.1, and says who answered what, how often.

use std::collections::BTreeMap;
use std::io;

use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::client::Target;
use crate::outcome::{self, Failure, Outcome};

/// Bytes of a response that are read at most: what is asked for here is short.
const MOST: u64 = 1 << 20;

#[derive(Debug, Args)]
pub(crate) struct Get {
    #[command(flatten)]
    target: Target,
    /// What to ask for
    #[arg(default_value = "/")]
    path: String,
    /// How often, each on a connection of its own
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// The host that is asked for
    #[arg(long, default_value = "test")]
    host: String,
    /// A field of the header, as `NAME: VALUE`. May be repeated
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
}

impl Get {
    /// The outcome is that of the first request that failed.
    pub(crate) async fn run(self) -> (Outcome, Value) {
        let mut answers: BTreeMap<String, u32> = BTreeMap::new();
        let mut outcome = Outcome::Ok;
        for _ in 0..self.count {
            let result = timeout(self.target.limit(), self.ask()).await.unwrap_or(Err(Failure::Timeout));
            if outcome == Outcome::Ok {
                outcome = outcome::of(&result);
            }
            let answer = result.unwrap_or_else(|failure| failure.to_string());
            *answers.entry(answer).or_default() += 1;
        }
        (outcome, json!({"operation": "get", "outcome": outcome, "answers": answers}))
    }

    /// The status, and who says that it answered.
    async fn ask(&self) -> Result<String, Failure> {
        let mut stream = self.target.dial().connect().await?;
        let mut request = format!("GET {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.path, self.host);
        for field in &self.headers {
            request.push_str(field);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::new();
        stream.take(MOST).read_to_end(&mut response).await?;
        let head = String::from_utf8_lossy(&response);
        let status = head.split(' ').nth(1).ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let server = head.lines().find_map(|line| line.strip_prefix("x-served-by: "));
        Ok(format!("{status} {}", server.unwrap_or("-")))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        get: Get,
    }

    #[tokio::test]
    async fn answers_are_counted_by_status_and_server() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
        let server = tokio::spawn(crate::http::run(address, "cart", None));
        let line = ["get", "--to", &address.to_string(), "--count", "3", "/status/418"];
        // The server listens as soon as it is first polled.
        tokio::task::yield_now().await;
        let (outcome, report) = Line::parse_from(line).get.run().await;
        server.abort();
        assert_eq!(outcome, Outcome::Ok, "{report}");
        assert_eq!(report["answers"], json!({"418 cart": 3}));
    }
}
