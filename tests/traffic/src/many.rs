//! `many`: connections that are all open at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Barrier, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::Target;
use crate::outcome::{self, Failure, Outcome};
use crate::report;
use crate::transfer::{self, Pace};

#[derive(Debug, Args)]
pub(crate) struct Many {
    #[command(flatten)]
    target: Target,
    /// Connections
    #[arg(long, default_value_t = 1000)]
    connections: u64,
    /// Octets of a message
    #[arg(long, default_value_t = 64)]
    bytes: u64,
    /// connect() calls that may be under way at the same time
    #[arg(long, default_value_t = 256)]
    at_once: usize,
    /// When all are open, print a line and keep them until a line comes, or the end of the input
    #[arg(long)]
    hold: bool,
}

/// What the connections share.
struct Shared {
    target: Target,
    bytes: u64,
    connecting: Semaphore,
    /// Everyone and the one who waits for them.
    all_open: Barrier,
    end: watch::Receiver<bool>,
}

impl Many {
    pub(crate) async fn run(self) -> (Outcome, Value) {
        let start = Instant::now();
        let (release, end) = watch::channel(!self.hold);
        let shared = Arc::new(Shared {
            target: self.target.clone(),
            bytes: self.bytes,
            connecting: Semaphore::new(self.at_once.max(1)),
            all_open: Barrier::new(usize::try_from(self.connections).unwrap_or(usize::MAX).saturating_add(1)),
            end,
        });
        let mut tasks = JoinSet::new();
        for number in 0..self.connections {
            let shared = Arc::clone(&shared);
            tasks.spawn(async move { outcome::of(&one(&shared, number).await) });
        }
        shared.all_open.wait().await;
        let opened = start.elapsed().as_secs_f64();
        if self.hold {
            report::print(&json!({"event": "holding", "connections": self.connections, "seconds": opened}));
            let mut line = String::new();
            // The end of the input, or a failure to read it, releases them as well.
            let _ = BufReader::new(tokio::io::stdin()).read_line(&mut line).await;
            let _ = release.send(true);
        }
        let mut outcomes: BTreeMap<Outcome, u64> = BTreeMap::new();
        while let Some(joined) = tasks.join_next().await {
            *outcomes.entry(joined.unwrap_or(Outcome::Other)).or_default() += 1;
        }
        let worst = outcomes.keys().copied().find(|outcome| *outcome != Outcome::Ok).unwrap_or(Outcome::Ok);
        let counts: BTreeMap<String, u64> = outcomes.iter().map(|(outcome, count)| (name(*outcome), *count)).collect();
        let report = json!({
            "operation": "many", "outcome": worst, "connections": self.connections, "outcomes": counts,
            "seconds_to_open": opened, "seconds": start.elapsed().as_secs_f64(),
        });
        (worst, report)
    }
}

fn name(outcome: Outcome) -> String {
    json!(outcome).as_str().unwrap_or_default().to_owned()
}

/// One connection: a message when it is open, another when all are, a last one before its end.
async fn one(shared: &Shared, number: u64) -> Result<(), Failure> {
    let limit = shared.target.limit();
    let opened = timeout(limit, async {
        let _permit = shared.connecting.acquire().await.map_err(|_| Failure::Timeout)?;
        let mut stream = shared.target.dial().connect().await?;
        echo(&mut stream, number, shared.bytes).await?;
        Ok::<_, Failure>(stream)
    })
    .await
    .unwrap_or(Err(Failure::Timeout));
    shared.all_open.wait().await;
    let mut stream = opened?;
    let mut end = shared.end.clone();
    timeout(limit, echo(&mut stream, !number, shared.bytes)).await.unwrap_or(Err(Failure::Timeout))?;
    // A sender that is gone has released them too.
    let _ = end.wait_for(|end| *end).await;
    timeout(limit, async {
        echo(&mut stream, number, shared.bytes).await?;
        stream.shutdown().await?;
        transfer::expect_end(&mut stream).await
    })
    .await
    .unwrap_or(Err(Failure::Timeout))
}

async fn echo(stream: &mut TcpStream, seed: u64, bytes: u64) -> Result<(), Failure> {
    let (mut reader, mut writer) = stream.split();
    let (mut sent, mut received) = (0, 0);
    tokio::try_join!(
        transfer::write(&mut writer, seed, bytes, Pace::FULL.chunk, &mut sent),
        transfer::read(&mut reader, seed, bytes, Pace { chunk: 4096, ..Pace::FULL }, &mut received)
    )
    .map(|_| ())
}
