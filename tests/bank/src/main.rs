//! `mesh-bank serve SERVICE` runs one program of the bank; `pay` and `knock` are clients.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mesh_bank::{PORT, Service, get, post, serve};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The bank: ordinary programs that call each other by the names that Kubernetes gives them (risk.bank:8080).
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves one of the bank's services until SIGTERM
    Serve {
        /// Which
        service: Service,
        /// Where to listen; [::] takes both families
        #[arg(long, default_value_t = SocketAddr::new([0u16; 8].into(), PORT))]
        listen: SocketAddr,
    },
    /// Pays somebody and prints what became of it
    Pay {
        /// Who pays
        #[arg(long, default_value = "ada")]
        from: String,
        /// The payer's token
        #[arg(long, default_value = "ada-token")]
        token: String,
        /// Who is paid
        #[arg(long, default_value = "bob")]
        to: String,
        /// How much
        #[arg(long, default_value_t = 1250)]
        cents: u64,
    },
    /// Asks a service for its name and prints whether it answered; exits with 1 if it did not
    Knock {
        /// Which
        service: Service,
    },
}

fn main() -> ExitCode {
    match begin(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mesh-bank: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin(command: Command) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("the runtime did not start")?;
    runtime.block_on(async {
        match command {
            Command::Serve { service, listen } => run(service, listen).await,
            Command::Pay { from, token, to, cents } => {
                let order = json!({ "from": from, "token": token, "to": to, "cents": cents });
                say(post(&Service::Payment.address(), "/payments", &order).await)
            }
            Command::Knock { service } => say(get(&service.address(), "/healthz").await),
        }
    })
}

/// Prints the answer, or why there is none, as a line of JSON.
fn say(answer: Result<serde_json::Value, mesh_bank::CallError>) -> anyhow::Result<ExitCode> {
    let (line, code) = match answer {
        Ok(answer) => (json!({ "answer": answer }), ExitCode::SUCCESS),
        Err(error) => (json!({ "error": error.to_string() }), ExitCode::FAILURE),
    };
    writeln!(std::io::stdout().lock(), "{line}")?;
    Ok(code)
}

async fn run(service: Service, listen: SocketAddr) -> anyhow::Result<ExitCode> {
    // Taken before the ready line, so that whoever reads that line may send the signal.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let bound = listener.local_addr().context("the listener has no address")?;
    writeln!(std::io::stdout().lock(), "listening {bound}").context("stdout is closed")?;
    tokio::select! {
        () = serve(service, listener) => {}
        _ = terminate.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}
