//! Names that mean something to whoever reads them later: Kubernetes refuses most of them, and what is read from files is as it is. They
//! stay values of labels, of lines and of records, and steer no terminal.

use std::sync::Arc;

use mesh_admin_server::LogOutput;
use mesh_core::telemetry::EffectiveTelemetry;
use mesh_core::{Enrolment, Few, LabelSet, SpiffeId, Template, TrustDomain, Unwatched, Workload};
use mesh_metrics::CONNECTION_LABELS;
use mesh_otlp::{Line, Record as _};

use super::access_log::Ended;
use super::{Bytes, Ending, Metrics, Party, Refused, Report, Reporter};

const NAME: &str = "a\"} 1\n# HELP x\\u{\t'<script>alert(1)</script>${jndi:x}\\\u{1b}[31m\u{9b}31m\u{7f}\r é";

fn workload() -> Arc<Workload> {
    let name: Arc<str> = NAME.into();
    let template = Template {
        namespace: name.clone(),
        identity: SpiffeId::new(&TrustDomain::default(), "app", "client").expect("an identity"),
        enrolment: Enrolment::Enrolled,
        probe_ports: Vec::new(),
        asks_itself: false,
        unwatched: Unwatched::default(),
        labels: LabelSet::default(),
        workload_name: name.clone(),
        canonical_service: name.clone(),
        canonical_revision: name.clone(),
        app: name.clone(),
        version: name.clone(),
    };
    Arc::new(Workload {
        uid: "1".to_owned().into(),
        name,
        node: "node-a".to_owned().into(),
        locality: Arc::default(),
        addresses: Few::default(),
        ready: true,
        template: Arc::new(template),
    })
}

fn report() -> Report {
    let party = Party { workload: Some(workload()), ..Party::default() };
    let mut report = Report::begin(Reporter::Source, party.clone());
    report.destination = party;
    report
}

/// A label's value in Prometheus' text format, read as its grammar has it.
fn unescaped(escaped: &str) -> String {
    let (mut text, mut characters) = (String::new(), escaped.chars());
    while let Some(next) = characters.next() {
        text.push(match next {
            '\\' => match characters.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => panic!("an escape of nothing: {escaped}"),
            },
            '"' => panic!("a label that ends early: {escaped}"),
            other => other,
        });
    }
    text
}

#[test]
fn a_label_is_one_value_of_one_series() {
    let metrics = Metrics::new("c".to_owned()).expect("metrics");
    metrics.connection_opened(&report());
    let text = metrics.encode().expect("text");
    let series: Vec<_> = text.lines().filter(|line| line.starts_with("istio_tcp_connections_opened_total{")).collect();
    let [series] = series[..] else { panic!("not one series: {series:?}") };
    let value = series.split("source_workload=\"").nth(1).and_then(|rest| rest.split("\",source_workload_n").next());
    assert_eq!(unescaped(value.expect("the label")), NAME);
}

#[test]
fn a_line_is_one_object_and_a_record_has_the_same_values() {
    let ending = Ending::Refused(Refused::PolicyDenied, NAME.to_owned());
    let report = report();
    let ended = Ended { report: &report, bytes: Bytes::default(), ending: &ending };
    let told =
        EffectiveTelemetry { log_to: vec![("otel".into(), Default::default())], ..EffectiveTelemetry::default() };
    let mut lines = Vec::new();
    let log = LogOutput::stdout().expect("a thread");
    ended.tell(Some(&told), NAME, &log, |_, line| lines.push(line.to_owned()));
    let [line] = &lines[..] else { panic!("not one line: {lines:?}") };
    assert!(!line.chars().any(char::is_control), "{line:?}");
    let read: serde_json::Value = serde_json::from_str(line).expect("an object");
    for field in ["source_workload", "destination_app", "source_version", "source_cluster", "error"] {
        assert_eq!(read[field], NAME, "{field}");
    }
    assert_eq!(read["source_pod"], format!("{NAME}/{NAME}"));
    let record = Line { at: std::time::SystemTime::now(), text: line.clone(), trace: None }.into_item();
    assert!(CONNECTION_LABELS.iter().all(|label| record.attributes.iter().any(|it| it.key == *label)), "{record:?}");
    let attribute = record.attributes.iter().find(|it| it.key == "source_workload").and_then(|it| it.value.clone());
    assert!(format!("{attribute:?}").contains(&format!("{NAME:?}")), "{attribute:?}");
}
