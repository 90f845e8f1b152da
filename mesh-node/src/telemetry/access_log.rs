//! The access log: one line at a connection's end, to standard output and to the collectors that Telemetries name.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::telemetry::filter::{Number, Text, Told as Request};
use mesh_core::telemetry::value::{Peer, PeerAttribute};
use mesh_core::telemetry::{Filter, Side, Teller, Told};
use mesh_core::{Snapshot, SpiffeId, Workload};
use serde::Serialize;

use super::report::{Bytes, Ending, Report, Reporter, Security};

/// The target of lines, by which the log's filter knows them.
const TARGET: &str = "access";

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
    reporter: &'static str,
    source: Option<String>,
    source_workload: Option<String>,
    source_principal: Option<&'a str>,
    destination: Option<String>,
    destination_workload: Option<String>,
    destination_principal: Option<&'a str>,
    destination_service: Option<&'a str>,
    original_destination: Option<String>,
    security: &'static str,
    policy: Option<String>,
    bytes_from_client: u64,
    bytes_to_client: u64,
    duration_us: u64,
    end: &'static str,
    error: Option<&'a str>,
}

/// What Telemetries say of a connection's lines: of the mesh, of the namespace of this end's pod, of that pod. None where there are
/// none, which is to say that all connections have a line at standard output.
pub(super) fn told(snapshot: &Snapshot, report: &Report) -> Option<Told> {
    if snapshot.telemetries().all().is_empty() {
        return None;
    }
    let (side, own) = match report.reporter {
        Reporter::Source => (Side::Client, &report.source),
        Reporter::Destination => (Side::Server, &report.destination),
    };
    let own = own.workload.as_deref();
    // No Gateway's: none has an empty name.
    let gateway = (own.map_or("", |workload| &*workload.namespace), "", "");
    let labels = own.map(|workload| &workload.labels);
    Some(snapshot.telemetries().told(&Teller { side, gateway, labels, service: None }))
}

impl Ended<'_> {
    /// Writes the line where it is wanted, and gives it to `export` for each provider that is to have it.
    pub(super) fn tell(&self, told: Option<&Told>, mut export: impl FnMut(&Arc<str>, &str)) {
        let admits = |filter: &Option<Filter>| filter.as_ref().is_none_or(|filter| filter.admits(self));
        let is_logged = tracing::enabled!(target: TARGET, tracing::Level::INFO)
            && told.is_none_or(|told| told.logs && admits(&told.filter));
        let providers: Vec<_> =
            told.iter().flat_map(|told| &told.log_to).filter(|(_, filter)| admits(filter)).collect();
        if !is_logged && providers.is_empty() {
            return;
        }
        let fields = self.fields();
        if is_logged {
            fields.write();
        }
        if !providers.is_empty() {
            // Texts and numbers alone: JSON has a form for all of them.
            let line = serde_json::to_string(&fields).unwrap_or_default();
            providers.iter().for_each(|(provider, _)| export(provider, &line));
        }
    }

    fn fields(&self) -> Fields<'_> {
        let Self { report, bytes, ending } = self;
        Fields {
            target: TARGET,
            reporter: report.reporter.as_str(),
            source: address(report.source.address),
            source_workload: workload(report.source.workload.as_deref()),
            source_principal: principal(report.source.principal.as_ref()),
            destination: address(report.destination.address),
            destination_workload: workload(report.destination.workload.as_deref()),
            destination_principal: principal(report.destination.principal.as_ref()),
            destination_service: report.service.as_ref().map(|service| service.hostname.as_ref()),
            original_destination: address(report.original),
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
    /// At standard output.
    fn write(&self) {
        tracing::info!(
            target: TARGET,
            reporter = self.reporter,
            source = self.source,
            source_workload = self.source_workload,
            source_principal = self.source_principal,
            destination = self.destination,
            destination_workload = self.destination_workload,
            destination_principal = self.destination_principal,
            destination_service = self.destination_service,
            original_destination = self.original_destination,
            security = self.security,
            policy = self.policy,
            bytes_from_client = self.bytes_from_client,
            bytes_to_client = self.bytes_to_client,
            duration_us = self.duration_us,
            end = self.end,
            error = self.error,
            "connection"
        );
    }
}

/// What a filter may ask of a connection; it knows nothing of requests.
impl Request for Ended<'_> {
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

fn workload(workload: Option<&Workload>) -> Option<String> {
    workload.map(|workload| format!("{}/{}", workload.namespace, workload.name))
}

fn principal(principal: Option<&SpiffeId>) -> Option<&str> {
    principal.map(SpiffeId::as_str)
}

#[cfg(test)]
mod tests {
    use mesh_core::telemetry::parse;

    use super::*;
    use crate::telemetry::{Party, Refused};

    fn lines(told: &Told, report: &Report) -> Vec<(String, serde_json::Value)> {
        let ending = Ending::Refused(Refused::PolicyDenied, "be\"cause".to_owned());
        let mut lines = Vec::new();
        let ended = Ended { report, bytes: Bytes { from_client: 7, to_client: 9 }, ending: &ending };
        ended.tell(Some(told), |provider, line| {
            lines.push((provider.to_string(), serde_json::from_str(line).expect("JSON")));
        });
        lines
    }

    #[test]
    fn a_line_has_the_fields_of_the_log_and_goes_to_whom_the_filter_lets_it() {
        let address = "10.0.0.1:40000".parse().expect("an address");
        let mut report = Report::begin(Reporter::Source, Party { address: Some(address), ..Party::default() });
        report.original = Some("10.1.0.1:5432".parse().expect("an address"));
        let filter = |text: &str| Some(parse(text).expect("a filter"));
        let told = Told {
            log_to: vec![
                ("all".into(), None),
                ("database".into(), filter("destination.port == 5432 && !connection.mtls")),
                ("encrypted".into(), filter("connection.mtls")),
                ("requests".into(), filter("response.code >= 400")),
            ],
            ..Told::default()
        };
        let lines = lines(&told, &report);
        assert_eq!(lines.iter().map(|(provider, _)| &**provider).collect::<Vec<_>>(), ["all", "database"]);
        let line = &lines[0].1;
        let seen = ["target", "reporter", "source", "original_destination", "security", "end", "error"];
        let seen = seen.map(|field| line[field].as_str().unwrap_or_default());
        let expected = ["access", "source", "10.0.0.1:40000", "10.1.0.1:5432", "none", "policy_denied", "be\"cause"];
        assert_eq!((seen, &line["bytes_to_client"], &line["policy"]), (expected, &9.into(), &serde_json::Value::Null));
    }
}
