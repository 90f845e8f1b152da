//! `mesh-ctl resolve`: where a connection goes.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use mesh_config::load;
use mesh_core::{Destination, PlaintextReason, Refusal, Transport};
use serde::Serialize;

use crate::Outcome;
use crate::manifests::Reading;
use crate::output::{Format, print, print_value};

/// Says where a connection to an address goes, and how.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Resolve {
    /// The address and port that a pod connects to, such as 10.96.0.10:80 or [fd00::1]:80.
    destination: SocketAddr,
    /// A directory of manifests, or one file.
    #[arg(long, value_name = "PATH")]
    config: PathBuf,
    /// What chooses among a Service's endpoints, from 0 to 2^64-1: the choice is in proportion.
    #[arg(long, default_value_t = 0)]
    random: u64,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    reading: Reading,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    /// Why nothing is connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workload: Option<String>,
    /// `hbone`, `waypoint` or `plaintext`.
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'static str>,
    /// Why as plaintext.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// The only identity that the peer may have.
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
}

impl Resolve {
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        let config = load(&self.config, &self.reading.options())?;
        let answer = Answer::from(mesh_core::resolve(&config.snapshot, None, self.destination, self.random));
        match self.output {
            Format::Table => print(&answer.for_people())?,
            format => print_value(&answer, format)?,
        }
        Ok(if answer.refused.is_some() { Outcome::Bad } else { Outcome::Good })
    }
}

impl From<Result<Destination, Refusal>> for Answer {
    fn from(resolved: Result<Destination, Refusal>) -> Self {
        let destination = match resolved {
            Ok(destination) => destination,
            Err(refusal) => return Self { refused: Some(refusal.to_string()), ..Self::default() },
        };
        let (transport, reason, identity) = match destination.transport {
            Transport::Hbone { identity } => ("hbone", None, Some(identity.to_string())),
            Transport::Waypoint { identity, .. } => ("waypoint", None, Some(identity.to_string())),
            Transport::Sidecar { identity } => ("sidecar", None, Some(identity.to_string())),
            Transport::Plaintext(reason) => ("plaintext", Some(describe(reason)), None),
        };
        Self {
            refused: None,
            endpoint: Some(destination.endpoint),
            service: destination.service.map(|service| service.hostname.to_string()),
            workload: destination.workload.map(|w| format!("{}/{}", w.namespace, w.name)),
            transport: Some(transport),
            reason,
            identity,
        }
    }
}

fn describe(reason: PlaintextReason) -> &'static str {
    match reason {
        PlaintextReason::DestinationUnknown => "no workload is known at the address",
        PlaintextReason::DestinationNotEnrolled => "the workload is not part of the mesh",
        PlaintextReason::DisabledByRule => "a DestinationRule asks for tls.mode DISABLE",
    }
}

impl Answer {
    fn for_people(&self) -> String {
        let endpoint = self.endpoint.map(|endpoint| endpoint.to_string());
        let lines = [
            ("refused", self.refused.as_deref()),
            ("endpoint", endpoint.as_deref()),
            ("service", self.service.as_deref()),
            ("workload", self.workload.as_deref()),
            ("transport", self.transport),
            ("reason", self.reason),
            ("identity", self.identity.as_deref()),
        ];
        let lines = lines.iter().filter_map(|(name, value)| Some(format!("{name:10} {}\n", (*value)?)));
        lines.collect()
    }
}
