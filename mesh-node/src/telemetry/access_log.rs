//! The access log: one line at a connection's end, to standard output and to the collectors that Telemetries name.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_admin_server::{ACCESS, LogOutput};
use mesh_core::telemetry::filter::{Attributes, Number, Text};
use mesh_core::telemetry::value::{Peer, PeerAttribute};
use mesh_core::telemetry::{Choice, EffectiveTelemetry};
use mesh_core::{SpiffeId, Workload};
use mesh_metrics::{CONNECTION_LABELS, ConnectionLabels};
use mesh_transport::relay::End;
use serde::{Serialize, Serializer};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use super::labels;
use super::report::{Bytes, Ending, Report, Security};

/// A connection that is over.
pub(super) struct Ended<'a> {
    pub(super) report: &'a Report,
    pub(super) bytes: Bytes,
    pub(super) ending: &'a Ending,
}

/// What is told of a connection, in the order of the line.
#[derive(Serialize)]
struct Fields<'a> {
    target: &'static str,
    #[serde(flatten)]
    labels: Labels<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_destination: Option<SocketAddr>,
    security: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<String>,
    bytes_from_client: u64,
    bytes_to_client: u64,
    duration_us: u64,
    end: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// The labels of the connection's metrics.
struct Labels<'a>(ConnectionLabels<&'a str>);

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(CONNECTION_LABELS.iter().zip(&self.0))
    }
}

/// A line at standard output, whose other lines begin like this.
#[derive(Serialize)]
struct Logged<'a> {
    timestamp: String,
    level: &'static str,
    message: &'static str,
    #[serde(flatten)]
    fields: &'a Fields<'a>,
}

impl Ended<'_> {
    /// Writes the line where it is wanted, and gives it to `export` for each provider that is to have it. `cluster` is the name of the
    /// cluster.
    pub(super) fn tell(
        &self,
        told: Option<&EffectiveTelemetry>,
        cluster: &str,
        log: &LogOutput,
        mut export: impl FnMut(&Arc<str>, &str),
    ) {
        let random = fastrand::u64(..);
        let admits = |choice: &Choice| choice.admits(self, random);
        let is_logged = tracing::enabled!(target: ACCESS, tracing::Level::INFO)
            && told.is_none_or(|told| told.outputs.iter().any(|output| admits(&output.choice)));
        let providers: Vec<_> =
            told.iter().flat_map(|told| &told.log_to).filter(|(_, choice)| admits(choice)).collect();
        if !is_logged && providers.is_empty() {
            return;
        }
        let fields = self.fields(cluster);
        if is_logged {
            log.gather(&fields.line());
        }
        if !providers.is_empty() {
            let line = text(&fields);
            providers.iter().for_each(|(provider, _)| export(provider, &line));
        }
    }

    fn fields<'a>(&'a self, cluster: &'a str) -> Fields<'a> {
        let Self { report, bytes, ending } = self;
        Fields {
            target: ACCESS,
            labels: Labels(labels::values(report, cluster, ending.response_flags())),
            source: report.source.address,
            source_pod: pod(report.source.workload.as_deref()),
            destination: report.destination.address,
            destination_pod: pod(report.destination.workload.as_deref()),
            original_destination: report.original,
            security: report.security.as_str(),
            policy: report.decider.as_ref().map(ToString::to_string),
            bytes_from_client: bytes.from_client,
            bytes_to_client: bytes.to_client,
            duration_us: u64::try_from(report.age().as_micros()).unwrap_or(u64::MAX),
            end: ending.name(),
            error: ending.detail(),
        }
    }
}

impl Fields<'_> {
    /// As a line at standard output.
    fn line(&self) -> String {
        let mut timestamp = String::new();
        // A String takes everything.
        let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
        let mut line = text(&Logged { timestamp, level: "INFO", message: "connection", fields: self });
        line.push('\n');
        line
    }
}

/// As JSON, which has a form for all that is in a line: texts and numbers. No character is left in it that steers a terminal.
fn text(line: &impl Serialize) -> String {
    let line = serde_json::to_string(line).unwrap_or_default();
    if !line.contains(char::is_control) {
        return line;
    }
    let mut escaped = String::with_capacity(line.len() + 64);
    for character in line.chars() {
        if character.is_control() {
            // JSON itself leaves those from U+007F to U+009F.
            escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// What a filter may ask of a connection; it knows nothing of requests.
impl Attributes for Ended<'_> {
    fn number(&self, what: Number) -> Option<i64> {
        let port = |address: Option<SocketAddr>| address.map(|address| i64::from(address.port()));
        match what {
            Number::SourcePort => port(self.report.source.address),
            Number::DestinationPort => port(self.report.original.or(self.report.destination.address)),
            Number::ResponseCode | Number::ResponseGrpcStatus | Number::RequestSize | Number::ResponseSize => None,
        }
    }

    fn text(&self, what: &Text) -> Option<Cow<'_, str>> {
        match what {
            Text::SourceAddress => address(self.report.source.address).map(Cow::Owned),
            Text::UpstreamAddress => address(self.report.destination.address).map(Cow::Owned),
            Text::PeerIdentity => principal(self.report.source.principal.as_ref()).map(Cow::Borrowed),
            _ => None,
        }
    }

    fn mtls(&self) -> bool {
        self.report.security == Security::MutualTls
    }

    fn failed(&self) -> bool {
        !matches!(self.ending, Ending::Carried(End::Closed))
    }

    fn peer(&self, peer: Peer, what: &PeerAttribute) -> Option<&str> {
        let party = match peer {
            Peer::Source => &self.report.source,
            Peer::Destination => &self.report.destination,
        };
        match (party.workload.as_deref(), what) {
            (Some(workload), _) => what.of(workload),
            (None, PeerAttribute::Principal) => principal(party.principal.as_ref()),
            (None, PeerAttribute::Namespace) => party.principal.as_ref().map(SpiffeId::namespace),
            (None, _) => None,
        }
    }
}

fn address(address: Option<SocketAddr>) -> Option<String> {
    address.map(|address| address.to_string())
}

fn pod(workload: Option<&Workload>) -> Option<String> {
    workload.map(|workload| format!("{}/{}", workload.namespace, workload.name))
}

fn principal(principal: Option<&SpiffeId>) -> Option<&str> {
    principal.map(SpiffeId::as_str)
}

#[cfg(test)]
mod tests {
    use mesh_core::l7::Percent;
    use mesh_core::telemetry::parse;

    use super::*;
    use crate::telemetry::{Party, Refused, Reporter};

    fn lines(told: &EffectiveTelemetry, report: &Report) -> Vec<(String, serde_json::Value)> {
        let ending = Ending::Refused(Refused::PolicyDenied, "be\"cause".to_owned());
        let mut lines = Vec::new();
        let ended = Ended { report, bytes: Bytes { from_client: 7, to_client: 9 }, ending: &ending };
        let log = LogOutput::stdout().expect("a thread");
        ended.tell(Some(told), "c", &log, |provider, line| {
            lines.push((provider.to_string(), serde_json::from_str(line).expect("JSON")));
        });
        lines
    }

    #[test]
    fn a_line_has_the_fields_of_the_log_and_goes_to_whom_the_filter_lets_it() {
        let address = "10.0.0.1:40000".parse().expect("an address");
        let mut report = Report::begin(Reporter::Source, Party { address: Some(address), ..Party::default() });
        report.original = Some("10.1.0.1:5432".parse().expect("an address"));
        let filter = |text: &str| Choice { filter: Some(parse(text).expect("a filter")), sampling: Percent::new(0.0) };
        let told = EffectiveTelemetry {
            log_to: vec![
                ("all".into(), Choice::default()),
                ("database".into(), filter("destination.port == 5432 && !connection.mtls")),
                ("encrypted".into(), filter("connection.mtls")),
                ("requests".into(), filter("response.code >= 400")),
            ],
            ..EffectiveTelemetry::default()
        };
        let lines = lines(&told, &report);
        assert_eq!(lines.iter().map(|(provider, _)| &**provider).collect::<Vec<_>>(), ["all", "database"]);
        let line = &lines[0].1;
        let seen = ["target", "reporter", "source", "original_destination", "security", "end", "error"];
        let seen = seen.map(|field| line[field].as_str().unwrap_or_default());
        let known = CONNECTION_LABELS.into_iter().filter(|label| line[label].is_string()).count();
        assert_eq!((known, &line["source_cluster"], &line["response_flags"]), (23, &"unknown".into(), &"DENY".into()));
        let expected = ["access", "source", "10.0.0.1:40000", "10.1.0.1:5432", "none", "policy_denied", "be\"cause"];
        assert_eq!((seen, &line["bytes_to_client"], &line["policy"]), (expected, &9.into(), &serde_json::Value::Null));
    }
}
