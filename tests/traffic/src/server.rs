//! Servers. Each prints `listening ADDRESS` and then a line for every connection that ended.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::outcome::{self, Failure};
use crate::report;
use crate::socket;
use crate::transfer::{self, Header, Moved, Pace, Script};

#[derive(Debug, Args)]
pub(crate) struct Listen {
    /// Address and port; [::]:PORT takes IPv4 too. May be repeated
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Server {
    /// Sends back what comes; ends its direction when the client has ended the other
    Echo(Listen),
    /// Reads to the end, then answers with a JSON line that says how many octets came
    Sink(Listen),
    /// Sends a sequence and ends its direction, then reads to the end
    Source {
        #[command(flatten)]
        listen: Listen,
        /// Octets to send
        #[arg(long, default_value_t = 1024)]
        bytes: u64,
    },
    /// Does what `send`, `half-close` and `reset` ask for, checking every octet
    Stream(Listen),
    /// The same, reading slowly
    SlowReader {
        #[command(flatten)]
        listen: Listen,
        /// Octets a read
        #[arg(long, default_value_t = 4096)]
        chunk: usize,
        /// Milliseconds after each read
        #[arg(long, default_value_t = 1)]
        pause: u64,
    },
    /// Sends the client's address and its own as accept() and getsockname() show them, in one line of JSON, and ends
    ReportPeer(Listen),
    /// Accepts and resets
    Refuse(Listen),
    /// Sends back UDP datagrams
    UdpEcho(Listen),
    /// Answers DNS with the same addresses for every name, and prints what is asked
    Dns(crate::names::Resolver),
    /// Speaks HTTP/1.1 and does what a request's path asks for
    Http {
        /// Address and port; [::]:PORT takes IPv4 too
        #[arg(long)]
        listen: SocketAddr,
        /// What every response names it
        #[arg(long)]
        name: String,
        /// Answers everything with this status, whatever is asked for
        #[arg(long)]
        status: Option<u16>,
    },
}

/// What serves a connection.
#[derive(Clone, Copy, Debug)]
enum Service {
    Echo,
    Sink,
    Source(u64),
    Stream(Pace),
    ReportPeer,
    Refuse,
}

/// Serves until the process is killed.
pub(crate) async fn run(server: Server) -> Result<()> {
    let slow = |chunk, pause| Pace { chunk, pause: Duration::from_millis(pause) };
    let (listen, service) = match server {
        Server::Dns(resolver) => return resolver.run().await,
        Server::UdpEcho(listen) => return echo_datagrams(listen).await,
        Server::Http { listen, name, status } => return crate::http::run(listen, &name, status).await,
        Server::Echo(listen) => (listen, Service::Echo),
        Server::Sink(listen) => (listen, Service::Sink),
        Server::Source { listen, bytes } => (listen, Service::Source(bytes)),
        Server::Stream(listen) => (listen, Service::Stream(Pace::FULL)),
        Server::SlowReader { listen, chunk, pause } => (listen, Service::Stream(slow(chunk, pause))),
        Server::ReportPeer(listen) => (listen, Service::ReportPeer),
        Server::Refuse(listen) => (listen, Service::Refuse),
    };
    let mut tasks = Vec::new();
    for address in listen.listen {
        let listener = socket::listen(address).with_context(|| format!("listening at {address}"))?;
        report::print(&format!("listening {}", listener.local_addr()?));
        tasks.push(tokio::spawn(accept(listener, service)));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn accept(listener: TcpListener, service: Service) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await.context("accepting")?;
        tokio::spawn(async move {
            let addresses = report::addresses(&stream);
            let mut moved = Moved::default();
            let result = serve(stream, service, &mut moved).await;
            report::print(&report::ended("serve", &addresses, moved, &result));
        });
    }
}

async fn serve(mut stream: TcpStream, service: Service, moved: &mut Moved) -> Result<(), Failure> {
    stream.set_nodelay(true)?;
    match service {
        Service::Echo => echo(&mut stream, moved).await,
        Service::Sink => {
            read_to_end(&mut stream, moved).await?;
            answer(&mut stream, &json!({"received": moved.received})).await
        }
        Service::Source(bytes) => {
            transfer::write(&mut stream, 0, bytes, Pace::FULL.chunk, &mut moved.sent).await?;
            stream.shutdown().await?;
            read_to_end(&mut stream, moved).await
        }
        Service::Stream(pace) => follow(stream, pace, moved).await,
        Service::ReportPeer => {
            let addresses = report::addresses(&stream);
            answer(&mut stream, &addresses).await?;
            // Closing with octets unread would reset the connection, and the answer might be lost.
            read_to_end(&mut stream, moved).await
        }
        Service::Refuse => Ok(socket::reset(stream)?),
    }
}

/// Sends one line of JSON and ends the direction.
async fn answer(stream: &mut TcpStream, line: &serde_json::Value) -> Result<(), Failure> {
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

async fn echo(stream: &mut TcpStream, moved: &mut Moved) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = stream.read(&mut buffer).await?;
        if count == 0 {
            return Ok(stream.shutdown().await?);
        }
        moved.received += count as u64;
        stream.write_all(&buffer[..count]).await?;
        moved.sent += count as u64;
    }
}

async fn read_to_end(stream: &mut TcpStream, moved: &mut Moved) -> Result<(), Failure> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => moved.received += count as u64,
        }
    }
}

/// Plays the server's part of the script that the client asks for.
async fn follow(mut stream: TcpStream, pace: Pace, moved: &mut Moved) -> Result<(), Failure> {
    let header = Header::read(&mut stream).await?;
    let Header { script, upload, download, seed } = header;
    let chunk = Pace::FULL.chunk;
    let (mut reader, mut writer) = stream.split();
    match script {
        Script::Exchange => {
            let (wrote, read) = tokio::join!(
                transfer::write(&mut writer, !seed, download, chunk, &mut moved.sent),
                read_upload(&mut reader, &header, pace, &mut moved.received)
            );
            wrote?;
            // The client learns what arrived here, even when it is wrong.
            let verdict = json!({"outcome": outcome::of(&read), "received": moved.received});
            answer(&mut stream, &verdict).await?;
            read
        }
        Script::ClientFirst => {
            read_upload(&mut reader, &header, pace, &mut moved.received).await?;
            transfer::write(&mut writer, !seed, download, chunk, &mut moved.sent).await?;
            Ok(writer.shutdown().await?)
        }
        Script::ServerFirst => {
            transfer::write(&mut writer, !seed, download, chunk, &mut moved.sent).await?;
            writer.shutdown().await?;
            read_upload(&mut reader, &header, pace, &mut moved.received).await
        }
        Script::ClientResets => read_upload(&mut reader, &header, pace, &mut moved.received).await,
        Script::ServerResets => {
            transfer::read(&mut reader, seed, upload, pace, &mut moved.received).await?;
            Ok(socket::reset(stream)?)
        }
    }
}

async fn read_upload(
    reader: &mut (impl tokio::io::AsyncRead + Unpin),
    header: &Header,
    pace: Pace,
    received: &mut u64,
) -> Result<(), Failure> {
    transfer::read(reader, header.seed, header.upload, pace, received).await?;
    transfer::expect_end(reader).await
}

async fn echo_datagrams(listen: Listen) -> Result<()> {
    let mut tasks = Vec::new();
    for address in listen.listen {
        let socket = socket::datagrams(address).with_context(|| format!("binding to {address}"))?;
        report::print(&format!("listening {}", socket.local_addr()?));
        tasks.push(tokio::spawn(echo_datagrams_of(socket)));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn echo_datagrams_of(socket: UdpSocket) -> Result<()> {
    let mut buffer = vec![0; 65_536];
    loop {
        // An ICMP error for an earlier answer ends up here and is no reason to stop.
        if let Ok((count, peer)) = socket.recv_from(&mut buffer).await {
            report::print(&json!({"operation": "serve", "peer": peer.to_string(), "received": count}));
            let _ = socket.send_to(&buffer[..count], peer).await;
        }
    }
}
