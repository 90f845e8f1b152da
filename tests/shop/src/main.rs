//! `mesh-shop SERVICE` runs one program of the shop; `mesh-shop checkout` is a client.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_shop::checkout::{Checkout, Client};
use mesh_shop::{About, Address, Peers, cart, frontend, notification, order, payment, product};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The shop: ordinary programs that call each other. The addresses of the others come from CART_ADDR, PRODUCT_ADDR,
/// ORDER_ADDR, PAYMENT_ADDR and NOTIFICATION_ADDR (http://cart.shop:8080 and the like), the node's name from
/// NODE_NAME, and the time after which connections are replaced from CONNECTION_MAX_AGE_MS.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// HTTP: /checkout?user=U&item=I, /, /healthz
    Frontend(Serve),
    /// HTTP: /carts?user=U
    Cart(Serve),
    /// HTTP: /products?item=I
    Product(Serve),
    /// HTTP: POST /orders
    Order(Serve),
    /// gRPC: shop.v1.Payment/Charge
    Payment(Serve),
    /// Lines over TCP: NOTIFY ORDER TEXT
    Notification(Serve),
    /// Checks out and prints a line of JSON for each; exits with 1 if one failed
    Checkout(Buy),
}

#[derive(Debug, Args)]
struct Serve {
    /// Where to listen; [::] takes both families. By default [::]:8080, payment 9090, notification 7070
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// The version to answer with; product v2 has a field more
    #[arg(long, default_value = "v1")]
    version: String,
}

#[derive(Debug, Args)]
struct Buy {
    /// The frontend, for example http://frontend.shop:8080
    #[arg(long)]
    frontend: Address,
    /// How many checkouts, one after the other
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Who buys
    #[arg(long, default_value = "ada")]
    user: String,
    /// What
    #[arg(long, default_value = "book")]
    item: String,
    /// A text that every hop carries in plaintext
    #[arg(long, default_value = "")]
    marker: String,
    /// The card that is charged
    #[arg(long)]
    card: Option<String>,
    /// A tracing header, as "traceparent: 00-..."; may be repeated
    #[arg(long = "header")]
    headers: Vec<String>,
    /// Use one connection for all
    #[arg(long)]
    keep_alive: bool,
}

fn main() -> ExitCode {
    match begin(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("mesh-shop: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin(command: Command) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime did not start")?;
    match command {
        Command::Checkout(buy) => runtime.block_on(check_out(buy)),
        service => {
            runtime.block_on(run(service))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    let peers = Peers::from_variables(|name| std::env::var(name).ok())?;
    let (service, port, options) = match &command {
        Command::Frontend(options) => ("frontend", 8080, options),
        Command::Cart(options) => ("cart", 8080, options),
        Command::Product(options) => ("product", 8080, options),
        Command::Order(options) => ("order", 8080, options),
        Command::Payment(options) => ("payment", 9090, options),
        Command::Notification(options) => ("notification", 7070, options),
        Command::Checkout(_) => anyhow::bail!("checkout is not a service"),
    };
    let about = About {
        service,
        version: options.version.clone(),
        node: std::env::var("NODE_NAME").unwrap_or_else(|_| "unknown".to_owned()),
    };
    // Taken before the ready line, so that whoever reads that line may send the signal.
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let listener = listen(options.listen.unwrap_or(SocketAddr::new([0u16; 8].into(), port))).await?;
    tokio::select! {
        () = serve(command, listener, about, peers) => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn serve(command: Command, listener: TcpListener, about: About, peers: Peers) {
    match command {
        Command::Frontend(_) => frontend::serve(listener, about, peers).await,
        Command::Cart(_) => cart::serve(listener, about).await,
        Command::Product(_) => product::serve(listener, about).await,
        Command::Order(_) => order::serve(listener, about, peers).await,
        Command::Payment(_) => payment::serve(listener, about).await,
        Command::Notification(_) => notification::serve(listener, about).await,
        Command::Checkout(_) => {}
    }
}

/// Listens, and says so on stdout: `listening ADDRESS`.
async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let bound = listener.local_addr().context("the listener has no address")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening {bound}").context("stdout is closed")?;
    Ok(listener)
}

async fn check_out(buy: Buy) -> anyhow::Result<ExitCode> {
    let mut headers = HeaderMap::new();
    for header in &buy.headers {
        let (name, value) = header.split_once(':').with_context(|| format!("{header:?} is not a header"))?;
        headers.insert(HeaderName::from_bytes(name.trim().as_bytes())?, HeaderValue::from_str(value.trim())?);
    }
    let client = Client::new(buy.frontend, buy.keep_alive);
    let checkout = Checkout { user: buy.user, item: buy.item, marker: buy.marker, card: buy.card, headers };
    let mut code = ExitCode::SUCCESS;
    for _ in 0..buy.count {
        let answer = client.checkout(&checkout).await;
        let line = match answer {
            Ok(answer) => answer.to_string(),
            Err(failure) => {
                code = ExitCode::FAILURE;
                serde_json::to_string(&failure)?
            }
        };
        writeln!(std::io::stdout().lock(), "{line}")?;
    }
    Ok(code)
}
