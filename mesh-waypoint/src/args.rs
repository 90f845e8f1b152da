//! The command line.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, Subcommand};
use mesh_ca::IdentityArgs;
use mesh_core::l7::Waypoint;
use mesh_otlp::SpanArgs;

use crate::source::SourceArgs;

/// The mesh's proxy for what no node can do alone.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Is a waypoint, which takes what nodes send to the Services and workloads that it stands before, or an ingress gateway, which
    /// lets traffic in from outside: whatever the Gateway asks for that it is a replica of.
    Serve(Box<ServeArgs>),
}

/// The arguments of a Gateway's replica.
#[derive(Debug, clap::Args)]
pub(crate) struct ServeArgs {
    /// The Gateway that this is a replica of.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub(crate) name: GatewayName,
    /// The pod that this runs in: Gateways of networking.istio.io select pods by their labels.
    #[arg(long, value_name = "NAMESPACE/NAME", env = "MESH_POD")]
    pub(crate) pod: Option<GatewayName>,
    /// Its own identity.
    #[arg(long, value_name = "NAMESPACE/SERVICE-ACCOUNT")]
    pub(crate) identity: Account,
    /// Where nodes' tunnels come in.
    #[arg(long, value_name = "ADDR", default_value = "[::]:15008")]
    pub(crate) listen: SocketAddr,
    /// The port at which nodes take tunnels for their pods.
    #[arg(long, value_name = "PORT", default_value_t = 15_008)]
    pub(crate) tunnel_port: u16,
    /// What it is configured with.
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Its certificate.
    #[command(flatten)]
    pub(crate) certificate: IdentityArgs,
    /// DNS suffix of Services.
    #[arg(long, default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Namespace whose policies are the whole mesh's.
    #[arg(long, default_value = "istio-system")]
    pub(crate) root_namespace: String,
    /// Address for readiness probes.
    #[arg(long, value_name = "ADDR", default_value = "[::]:15021")]
    pub(crate) readiness_addr: SocketAddr,
    /// Address for Prometheus: /metrics, and Envoy's /stats/prometheus.
    #[arg(long, value_name = "ADDR", default_value = "[::]:15020")]
    pub(crate) metrics_addr: SocketAddr,
    /// Name of the cluster in metrics.
    #[arg(long, default_value = "Kubernetes")]
    pub(crate) cluster: String,
    /// Spans of requests.
    #[command(flatten)]
    pub(crate) spans: SpanArgs,
    /// Threads that carry requests; one a core by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) workers: Option<u16>,
    /// Unix socket of the admin API, which `mesh-ctl waypoint` asks; none without it.
    #[arg(long, value_name = "PATH")]
    pub(crate) admin_socket: Option<PathBuf>,
    /// Port at 127.0.0.1 where the admin API is as well, for `mesh-ctl waypoint` by the API server: to root's and its own user's
    /// programs. None without it.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) admin_port: Option<u16>,
    /// After how long the keys that tokens are verified with are fetched anew.
    #[arg(long, value_name = "SECONDS", default_value = "1200", value_parser = seconds)]
    pub(crate) jwks_refresh: Duration,
    /// Seconds from one answer of DNS to the next question, for hosts of ServiceEntries whose endpoints it knows.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) dns_refresh: u32,
    /// After how long without a request a client's connection ends, and a request in which neither side has said anything; 0 for
    /// never.
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds, env = "MESH_IDLE_TIMEOUT")]
    pub(crate) idle_timeout: Duration,
    /// How long a client may keep a request's body waiting, or a response, with less than 1 KiB moving; 0 for ever. Bodies of no known
    /// length have to move at all until they are answered, and gRPC's streams may be as silent as --idle-timeout lets them.
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds, env = "MESH_STREAM_IDLE_TIMEOUT")]
    pub(crate) stream_idle_timeout: Duration,
    /// How long requests have to end after SIGTERM.
    #[arg(long, value_name = "SECONDS", default_value = "25", value_parser = seconds)]
    pub(crate) drain_time: Duration,
    /// What to log: a level, or directives such as `info,access=off`.
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub(crate) log: String,
}

/// A value of the command line that names something in the cluster is not of its form.
#[derive(Debug, thiserror::Error)]
#[error("{value:?} is not of the form {form}")]
pub struct MalformedName {
    pub(crate) value: String,
    pub(crate) form: &'static str,
}

/// `NAMESPACE/SERVICE-ACCOUNT`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl FromStr for Account {
    type Err = MalformedName;

    fn from_str(text: &str) -> Result<Self, MalformedName> {
        let (namespace, name) = pair(text, "NAMESPACE/SERVICE-ACCOUNT")?;
        Ok(Self { namespace, name })
    }
}

/// `NAMESPACE/NAME`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GatewayName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl GatewayName {
    /// Whether that waypoint is this one.
    pub(crate) fn is(&self, waypoint: &Waypoint) -> bool {
        *waypoint.namespace == *self.namespace && *waypoint.name == *self.name
    }
}

impl FromStr for GatewayName {
    type Err = MalformedName;

    fn from_str(text: &str) -> Result<Self, MalformedName> {
        let (namespace, name) = pair(text, "NAMESPACE/NAME")?;
        Ok(Self { namespace, name })
    }
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

fn pair(text: &str, form: &'static str) -> Result<(String, String), MalformedName> {
    let parts = text
        .split_once('/')
        .filter(|(namespace, name)| !namespace.is_empty() && !name.is_empty() && !name.contains('/'));
    parts
        .map(|(namespace, name)| (namespace.to_owned(), name.to_owned()))
        .ok_or_else(|| MalformedName { value: text.to_owned(), form })
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<u32>()
        .map(|seconds| Duration::from_secs(seconds.into()))
        .map_err(|_| "not a number of seconds".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_has_every_flag() {
        mesh_docs::hold("mesh-waypoint.md", &mesh_docs::flags(<Args as clap::CommandFactory>::command()));
    }

    #[test]
    fn accounts_are_taken_whole_or_not_at_all() {
        assert!("shop/gateway".parse::<Account>().is_ok());
        for text in ["shop", "/gateway", "shop/", "a/b/c"] {
            assert!(text.parse::<Account>().is_err(), "{text}");
        }
    }
}
