//! mesh-hostile: a client of the tunnel port that means no good. It prints one line of JSON about what it met.
#![forbid(unsafe_code)]

mod crowd;
mod direct;
mod first_bytes;
mod flood;
mod forge;
mod peer;
mod request;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use crowd::{Crowd, Plan};
use direct::Misuse;
use first_bytes::FirstBytes;
use flood::Flood;
use forge::{Flaw, Forge};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use peer::{Offer, first_answer, how_refused, shake_hands};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

#[derive(Debug, Parser)]
#[command(name = "mesh-hostile", about = "A client of the tunnel port that means no good")]
struct Arguments {
    #[command(subcommand)]
    attack: Attack,
}

#[derive(Debug, Args)]
struct Place {
    /// Address and port
    #[arg(long)]
    to: SocketAddr,
    /// Directory of the CA whose key the attacker has stolen
    #[arg(long)]
    ca: PathBuf,
    /// What is wrong with its certificate
    #[arg(long, value_enum, default_value = "none")]
    flaw: Flaw,
    /// Where it wants to be connected with
    #[arg(long, default_value = "192.0.2.1:80")]
    target: SocketAddr,
}

impl Place {
    fn offer(&self) -> Result<Offer> {
        Ok(Offer::h2(Forge::of(&self.ca)?.certificate(self.flaw)?))
    }
}

#[derive(Debug, Subcommand)]
enum Attack {
    /// Says something else than a ClientHello
    Say {
        #[command(flatten)]
        place: Place,
        /// What
        #[arg(value_enum)]
        what: FirstBytes,
    },
    /// Shakes hands in a bad way
    Offer {
        #[command(flatten)]
        place: Place,
        /// Application protocols instead of h2; an empty one stands for none at all
        #[arg(long)]
        alpn: Option<String>,
        /// Nothing newer than TLS 1.2
        #[arg(long)]
        tls12: bool,
        /// Without certificate
        #[arg(long)]
        nameless: bool,
    },
    /// Sends one request
    Ask {
        #[command(flatten)]
        place: Place,
        /// Its method
        #[arg(long, default_value = "CONNECT")]
        method: String,
        /// Its authority, as it is
        #[arg(long)]
        authority: String,
        /// NAME:VALUE; may be repeated
        #[arg(long)]
        header: Vec<String>,
    },
    /// Misuses HTTP/2
    Flood {
        #[command(flatten)]
        place: Place,
        /// How
        #[arg(value_enum)]
        how: Flood,
        /// Steps, where the server lets it
        #[arg(long, default_value_t = 1000)]
        rounds: u32,
    },
    /// Misuses mesh-tunnel/1
    Direct {
        #[command(flatten)]
        place: Place,
        /// How
        #[arg(value_enum)]
        how: Misuse,
        /// Steps, where it takes several
        #[arg(long, default_value_t = 1000)]
        rounds: u32,
    },
    /// Opens many connections
    Crowd {
        #[command(flatten)]
        place: Place,
        /// Of which kind
        #[arg(value_enum)]
        crowd: Crowd,
        /// How many
        #[arg(long, default_value_t = 1000)]
        count: usize,
        /// Tunnels a connection
        #[arg(long, default_value_t = 4)]
        tunnels: usize,
    },
    /// Is a server that listens and never accepts
    Deaf {
        /// Address and port
        #[arg(long)]
        listen: SocketAddr,
        /// Connections that the kernel accepts in its stead
        #[arg(long, default_value_t = 4096)]
        backlog: i32,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit of open files")?;
    if let Attack::Deaf { listen, backlog } = arguments.attack {
        return be_deaf(listen, backlog);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(run(arguments.attack));
    // A read of standard input that still blocks must not hold the end back.
    runtime.shutdown_background();
    println!("{}", report?);
    Ok(())
}

async fn run(attack: Attack) -> Result<Value> {
    match attack {
        Attack::Say { place, what } => {
            let ending = first_bytes::say(place.to, what, place.offer()?.config()?).await?;
            Ok(json!({ "ended": ending }))
        }
        Attack::Offer { place, alpn, tls12, nameless } => {
            let mut offer = place.offer()?;
            offer.tls12 = tls12;
            if let Some(alpn) = alpn {
                offer.alpn =
                    alpn.split(',').filter(|name| !name.is_empty()).map(|name| name.as_bytes().to_vec()).collect();
            }
            if nameless {
                offer.certificate = None;
            }
            let ended = match shake_hands(place.to, offer.config()?).await {
                Ok(mut stream) => first_answer(&mut stream).await,
                Err(error) => how_refused(&error),
            };
            Ok(json!({ "ended": ended }))
        }
        Attack::Ask { place, method, authority, header } => {
            let stream = shake_hands(place.to, place.offer()?.config()?).await?;
            match request::ask(stream, &method, &authority, &header).await {
                Ok(status) => Ok(json!({ "status": status })),
                Err(error) => Ok(json!({ "error": format!("{error:#}") })),
            }
        }
        Attack::Flood { place, how, rounds } => {
            let stream = shake_hands(place.to, place.offer()?.config()?).await?;
            flood::flood(stream, how, rounds, place.target).await
        }
        Attack::Direct { place, how, rounds } => {
            let mut offer = place.offer()?;
            offer.alpn = vec![direct::ALPN.to_vec()];
            let stream = shake_hands(place.to, offer.config()?).await?;
            direct::misuse(stream, how, place.target, rounds).await
        }
        Attack::Crowd { place, crowd, count, tunnels } => {
            let mut offer = place.offer()?;
            if crowd == Crowd::HalfRecord {
                offer.alpn = vec![direct::ALPN.to_vec()];
            }
            let config = offer.config()?;
            crowd::gather(Plan { to: place.to, crowd, count, tunnels, target: place.target, config }).await
        }
        Attack::Deaf { .. } => Ok(Value::Null),
    }
}

fn be_deaf(address: SocketAddr, backlog: i32) -> Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&address.into()).with_context(|| format!("listening at {address}"))?;
    socket.listen(backlog)?;
    println!("listening {address}");
    loop {
        std::thread::park();
    }
}
