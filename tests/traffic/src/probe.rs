//! `connect` and `udp`: what one exchange shows.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::client::Target;
use crate::outcome::{self, Failure, Outcome};
use crate::report;
use crate::socket;

#[derive(Debug, Args)]
pub(crate) struct Connect {
    #[command(flatten)]
    target: Target,
    /// What to send; nothing when empty
    #[arg(long, default_value = "hello\n")]
    message: String,
    /// Do not read
    #[arg(long)]
    no_read: bool,
    /// Read to the end of what the peer says, and not to that of a line
    #[arg(long, conflicts_with = "no_read")]
    whole: bool,
    /// Milliseconds between connections, one after the other, until the input ends; the report says how many ended how
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    every: Option<u64>,
}

impl Connect {
    /// What came of one connection, or of all of them.
    pub(crate) async fn run(self) -> (Outcome, Value) {
        match self.every {
            None => self.once().await,
            Some(milliseconds) => self.again(Duration::from_millis(milliseconds)).await,
        }
    }

    /// Connects until the input ends; the outcome is the first one that is not ok.
    async fn again(&self, pause: Duration) -> (Outcome, Value) {
        let mut pace = interval(pause);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ended, mut overall) = (BTreeMap::<Outcome, u64>::new(), Outcome::Ok);
        let mut input = tokio::io::stdin();
        let mut octet = [0];
        loop {
            tokio::select! {
                read = input.read(&mut octet) => match read {
                    Ok(1..) => continue,
                    Ok(0) | Err(_) => break,
                },
                _ = pace.tick() => {}
            }
            let (outcome, _) = self.once().await;
            *ended.entry(outcome).or_default() += 1;
            if overall == Outcome::Ok {
                overall = outcome;
            }
        }
        (overall, json!({"operation": "connect", "outcome": overall, "ended": ended}))
    }

    /// The outcome is that of connect() if it failed, else that of the read.
    async fn once(&self) -> (Outcome, Value) {
        let start = Instant::now();
        let limit = self.target.limit();
        let connected = timeout(limit, self.target.dial().connect())
            .await
            .map_err(|_| Failure::Timeout)
            .and_then(|result| Ok(result?));
        let mut report = json!({
            "operation": "connect",
            "connect": outcome::of(&connected),
            "connect_microseconds": u64::try_from(start.elapsed().as_micros()).ok(),
        });
        let (outcome, more) = match connected {
            Err(failure) => (failure.outcome(), json!({"outcome": failure.outcome(), "error": failure.to_string()})),
            Ok(mut stream) => {
                report::merge(&mut report, &report::addresses(&stream));
                let left = limit.saturating_sub(start.elapsed());
                let read = timeout(left, self.exchange(&mut stream)).await.unwrap_or(Err(Failure::Timeout));
                let outcome = outcome::of(&read);
                let error = read.as_ref().err().map(ToString::to_string);
                (outcome, json!({"outcome": outcome, "read": outcome, "text": read.ok(), "error": error}))
            }
        };
        report::merge(&mut report, &more);
        (outcome, report)
    }

    async fn exchange(&self, stream: &mut TcpStream) -> Result<String, Failure> {
        if !self.message.is_empty() {
            stream.write_all(self.message.as_bytes()).await?;
        }
        if self.no_read {
            return Ok(String::new());
        }
        if self.whole {
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            return Ok(text);
        }
        read_line(stream).await
    }
}

/// Reads up to a line's end; the stream's end before it is a failure.
pub(crate) async fn read_line(stream: &mut TcpStream) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(b'\n') => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Ok(octet) => bytes.push(octet),
            Err(error) => return Err(error.into()),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Udp {
    #[command(flatten)]
    target: Target,
    /// Datagrams, one after the other
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// Octets a datagram
    #[arg(long, default_value_t = 100)]
    bytes: usize,
}

impl Udp {
    pub(crate) async fn run(self) -> (Outcome, Value) {
        let mut echoed = 0;
        let result = timeout(self.target.limit(), self.exchange(&mut echoed)).await.unwrap_or(Err(Failure::Timeout));
        let error = result.as_ref().err().map(ToString::to_string);
        let outcome = outcome::of(&result);
        let report =
            json!({"operation": "udp", "outcome": outcome, "echoed": echoed, "peer": result.ok(), "error": error});
        (outcome, report)
    }

    /// Returns the address that the last answer came from.
    async fn exchange(&self, echoed: &mut u32) -> Result<Option<String>, Failure> {
        let to = self.target.to();
        let any: SocketAddr =
            if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let socket = socket::datagrams(any)?;
        let mut buffer = vec![0; 65_536];
        let mut last = None;
        for number in 0..self.count {
            let sent: Vec<u8> = (0..self.bytes).map(|at| (at as u32).wrapping_add(number) as u8).collect();
            socket.send_to(&sent, to).await?;
            let (count, peer) = socket.recv_from(&mut buffer).await?;
            if buffer[..count] != sent {
                return Err(Failure::Mismatch(u64::from(number)));
            }
            last = Some(peer.to_string());
            *echoed += 1;
        }
        Ok(last)
    }
}
