//! Clients. Each prints one JSON object about how it ended, and ends with the outcome's exit code.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::outcome::{self, Failure, Outcome};
use crate::report;
use crate::socket::{self, Dial, Family};
use crate::transfer::{self, Header, Moved, Pace, Script};
use crate::{get, hold, many, probe};

#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// Address and port to connect to
    #[arg(long)]
    to: SocketAddr,
    /// Address and port to connect from
    #[arg(long)]
    from: Option<SocketAddr>,
    /// The kind of socket
    #[arg(long, value_enum, default_value_t)]
    family: Family,
    /// Call connect() on a non-blocking socket
    #[arg(long)]
    nonblocking: bool,
    /// Seconds that the operation may take; for many and hold, each step of it
    #[arg(long, default_value_t = 30.0)]
    timeout: f64,
}

impl Target {
    pub(crate) fn dial(&self) -> Dial {
        Dial { to: self.to, from: self.from, family: self.family, nonblocking: self.nonblocking }
    }

    pub(crate) fn to(&self) -> SocketAddr {
        self.to
    }

    pub(crate) fn limit(&self) -> Duration {
        Duration::try_from_secs_f64(self.timeout).unwrap_or(Duration::MAX)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    Client,
    Server,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Client {
    /// Sends a sequence to `stream`, checked there octet by octet; with --both-ways another one comes back meanwhile
    Send {
        #[command(flatten)]
        target: Target,
        /// Octets each way
        #[arg(long, default_value_t = 1_000_000)]
        bytes: u64,
        /// Octets a write
        #[arg(long, default_value_t = 65_536)]
        chunk: usize,
        /// Have `stream` send as much at the same time
        #[arg(long)]
        both_ways: bool,
        /// Milliseconds after each read, which is then of 4096 octets
        #[arg(long, default_value_t = 0)]
        read_pause: u64,
    },
    /// One side of a connection to `stream` sends all and FIN before the other sends anything
    HalfClose {
        #[command(flatten)]
        target: Target,
        /// Octets each way
        #[arg(long, default_value_t = 100_000)]
        bytes: u64,
        /// Who ends its direction first
        #[arg(long, value_enum)]
        first: Side,
    },
    /// One side of a connection to `stream` resets it after the client's octets
    Reset {
        #[command(flatten)]
        target: Target,
        /// Octets from the client before
        #[arg(long, default_value_t = 1000)]
        bytes: u64,
        /// Who resets
        #[arg(long, value_enum)]
        by: Side,
    },
    /// Connects, sends a line, reads a line, and says how connect() and the read ended
    Connect(probe::Connect),
    /// Opens many connections to `echo` at once, all open at the same time, each checking its echo
    Many(many::Many),
    /// Holds a connection to `echo`; each line of its input is sent with a number and must come back
    Hold {
        #[command(flatten)]
        target: Target,
    },
    /// Asks by HTTP/1.1 and says who answered what, how often
    Get(get::Get),
    /// Sends datagrams to `udp-echo` and waits for each to come back
    Udp(probe::Udp),
    /// Asks a DNS server and says who answered what
    Ask(crate::names::Ask),
}

/// Runs a client; the report, which says the outcome too.
pub(crate) async fn run(client: Client) -> (Outcome, Value) {
    match client {
        Client::Send { target, bytes, chunk, both_ways, read_pause } => {
            let header = Header {
                script: Script::Exchange,
                upload: bytes,
                download: if both_ways { bytes } else { 0 },
                seed: seed(),
            };
            let pace = if read_pause == 0 {
                Pace::FULL
            } else {
                Pace { chunk: 4096, pause: Duration::from_millis(read_pause) }
            };
            scripted("send", &target, header, chunk, pace).await
        }
        Client::HalfClose { target, bytes, first } => {
            let script = if first == Side::Client { Script::ClientFirst } else { Script::ServerFirst };
            let header = Header { script, upload: bytes, download: bytes, seed: seed() };
            scripted("half-close", &target, header, Pace::FULL.chunk, Pace::FULL).await
        }
        Client::Reset { target, bytes, by } => {
            let script = if by == Side::Client { Script::ClientResets } else { Script::ServerResets };
            let header = Header { script, upload: bytes, download: 0, seed: seed() };
            scripted("reset", &target, header, Pace::FULL.chunk, Pace::FULL).await
        }
        Client::Connect(connect) => connect.run().await,
        Client::Many(many) => many.run().await,
        Client::Hold { target } => hold::run(&target).await,
        Client::Get(get) => get.run().await,
        Client::Udp(udp) => udp.run().await,
        Client::Ask(ask) => ask.run().await,
    }
}

/// A seed of this process, so that another connection's octets are not taken for this one's.
fn seed() -> u64 {
    u64::from(std::process::id()).wrapping_mul(0x2545_f491_4f6c_dd1d)
}

async fn scripted(operation: &str, target: &Target, header: Header, chunk: usize, pace: Pace) -> (Outcome, Value) {
    let start = Instant::now();
    let mut moved = Moved::default();
    let mut addresses = json!({});
    let result = timeout(target.limit(), async {
        let stream = target.dial().connect().await?;
        addresses = report::addresses(&stream);
        play(stream, header, chunk, pace, &mut moved).await
    })
    .await
    .unwrap_or(Err(Failure::Timeout));
    let mut report = report::ended(operation, &addresses, moved, &result);
    report::merge(&mut report, &json!({"seconds": start.elapsed().as_secs_f64()}));
    (outcome::of(&result), report)
}

/// Plays the client's part of a script.
async fn play(
    mut stream: TcpStream,
    header: Header,
    chunk: usize,
    pace: Pace,
    moved: &mut Moved,
) -> Result<(), Failure> {
    let Header { script, upload, download, seed } = header;
    stream.write_all(&header.encode()).await?;
    let (mut reader, mut writer) = stream.split();
    match script {
        Script::Exchange => {
            let upload = async {
                transfer::write(&mut writer, seed, upload, chunk, &mut moved.sent).await?;
                Ok::<_, Failure>(writer.shutdown().await?)
            };
            let download = async {
                transfer::read(&mut reader, !seed, download, pace, &mut moved.received).await?;
                verdict(&mut reader, header.upload).await
            };
            tokio::try_join!(upload, download).map(|_| ())
        }
        Script::ClientFirst => {
            transfer::write(&mut writer, seed, upload, chunk, &mut moved.sent).await?;
            writer.shutdown().await?;
            transfer::read(&mut reader, !seed, download, pace, &mut moved.received).await?;
            transfer::expect_end(&mut reader).await
        }
        Script::ServerFirst => {
            transfer::read(&mut reader, !seed, download, pace, &mut moved.received).await?;
            transfer::expect_end(&mut reader).await?;
            transfer::write(&mut writer, seed, upload, chunk, &mut moved.sent).await?;
            writer.shutdown().await?;
            Ok(())
        }
        Script::ClientResets => {
            transfer::write(&mut writer, seed, upload, chunk, &mut moved.sent).await?;
            Ok(socket::reset(stream)?)
        }
        Script::ServerResets => {
            transfer::write(&mut writer, seed, upload, chunk, &mut moved.sent).await?;
            match transfer::expect_end(&mut reader).await {
                Err(failure) if failure.outcome() == Outcome::Reset => Ok(()),
                Err(failure) => Err(failure),
                Ok(()) => Err(Failure::Peer("FIN, where a reset was to come".into())),
            }
        }
    }
}

/// Reads what `stream` says about the upload, to the end.
async fn verdict(reader: &mut (impl tokio::io::AsyncRead + Unpin), upload: u64) -> Result<(), Failure> {
    let mut text = String::new();
    reader.read_to_string(&mut text).await?;
    let verdict: Value = serde_json::from_str(&text).map_err(|_| Failure::Peer(text.clone()))?;
    if verdict["outcome"] == "ok" && verdict["received"] == upload {
        return Ok(());
    }
    Err(Failure::Peer(text))
}
