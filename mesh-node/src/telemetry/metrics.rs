//! Prometheus metrics: Istio's standard TCP ones, and ours under `mesh_`.

use std::sync::Arc;

use mesh_abi::Counter;
use mesh_admin_server::LogOutput;
use mesh_config::Config;
use mesh_core::policy::Authorization;
use mesh_metrics::{ControlMetrics, ControlStanding, Registry, RequestMetrics, RequestSeries, TcpMetrics, TcpSeries};
use mesh_otlp::Fate;
use mesh_transport::{Identities, RejectReason};
use mesh_xds::{Progress, Standing};
use prometheus::{
    Encoder as _, IntCounter, IntCounterVec, IntGaugeVec, Opts, TextEncoder, core::Collector, proto::MetricFamily,
};

use super::{
    certificates::CertificateMetrics,
    configuration::ConfigMetrics,
    decisions::Decisions,
    existing::ExistingMetrics,
    labels,
    report::{Bytes, CutReason, Ending, NO_FLAGS, Refused, Report},
    requests::Outcome,
    starts::StartMetrics,
    succession::SuccessionMetrics,
};
use crate::{bpf::CounterReader, repairs::Part};

/// Every metric of the daemon.
pub struct Metrics {
    registry: Registry,
    cluster: String,
    tcp: TcpMetrics,
    requests: RequestMetrics,
    crowded_out: IntCounter,
    refused: IntCounterVec,
    cut: IntCounterVec,
    rejected: IntCounterVec,
    decisions: Decisions,
    ended: IntCounterVec,
    spans: IntCounterVec,
    log_lines: IntCounterVec,
    events: IntCounterVec,
    admin: IntCounterVec,
    pods: IntGaugeVec,
    /// Connections from before their pods joined.
    pub existing: ExistingMetrics,
    /// Pods that start.
    pub starts: StartMetrics,
    repairs: IntCounterVec,
    /// How daemons followed each other.
    pub succession: SuccessionMetrics,
    config: ConfigMetrics,
    /// The eBPF programs' counters, once they are read.
    kernel: Option<CounterReader>,
}

impl Metrics {
    /// Registers everything. `cluster` is the value of Istio's cluster labels.
    ///
    /// # Errors
    /// Two metrics of one name, which is a mistake in this file.
    pub fn new(cluster: String) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let ours = |name: &str, help: &str, labels: &[&str]| {
            register(&registry, IntCounterVec::new(Opts::new(name, help), labels)?)
        };
        Ok(Self {
            tcp: TcpMetrics::register(&registry)?,
            requests: RequestMetrics::register(&registry)?,
            crowded_out: register(&registry, IntCounter::new(
                "mesh_metrics_crowded_out_total",
                "Updates of istio_tcp_* and istio_request* that were counted with unknown parties, as there are too many sets of labels",
            )?)?,
            refused: ours(
                "mesh_connections_refused_total",
                "Connections that were accepted and then reset, by why",
                &["reporter", "reason"],
            )?,
            cut: ours(
                "mesh_connections_cut_total",
                "Open connections that the daemon has ended, by why",
                &["reporter", "reason"],
            )?,
            rejected: ours(
                "mesh_tunnels_rejected_total",
                "Tunnels, tunnel requests and connections of Istio's sidecars that were turned away, by why",
                &["reason"],
            )?,
            decisions: Decisions::new(ours(
                "mesh_policy_decisions_total",
                "Connections into pods that a policy denied, that one of action AUDIT matched, and what dry run would do",
                &Decisions::LABELS,
            )?),
            ended: ours(
                "mesh_tunnels_ended_total",
                "Tunnels' connections that this daemon ended for their peer's sake, by why",
                &["reason"],
            )?,
            spans: ours("mesh_spans_total", "Spans of tunnels' set-up by what became of them", &["result"])?,
            log_lines: ours("mesh_log_lines_total", "Lines of connections for collectors by what became of them", &["result"])?,
            events: ours("mesh_ebpf_events_total", "What the eBPF programs did, by why", &["action", "reason"])?,
            admin: ours("mesh_admin_requests_total", "Requests to the admin API by HTTP status", &["code"])?,
            pods: register(&registry, IntGaugeVec::new(Opts::new("mesh_pods", "Pods of this node by state"), &["state"])?)?,
            existing: ExistingMetrics::register(&registry)?,
            starts: StartMetrics::register(&registry)?,
            repairs: ours(
                "mesh_enrolment_repairs_total",
                "Parts of what holds pods in the mesh that had vanished and were put back",
                &["what"],
            )?,
            succession: SuccessionMetrics::register(&registry)?,
            config: ConfigMetrics::register(&registry)?,
            registry,
            cluster,
            kernel: None,
        }
        .with_closed_sets())
    }

    /// Tells of what these count, too.
    #[must_use]
    pub fn with_kernel(mut self, kernel: CounterReader) -> Self {
        self.kernel = Some(kernel);
        self
    }

    /// Tells of lines of the log that were lost, too.
    ///
    /// # Errors
    /// Two metrics of one name, which is a mistake in this crate.
    pub fn with_log(self, log: &LogOutput) -> Result<Self, prometheus::Error> {
        self.registry.register(Box::new(log.lost()))?;
        Ok(self)
    }

    /// Tells of these certificates too, from now on.
    ///
    /// # Errors
    /// Two metrics of one name, which is a mistake in this crate.
    pub fn register_certificates(&self, identities: Identities) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(CertificateMetrics::new(identities)?))
    }

    /// Tells of what mesh-control serves, too.
    ///
    /// # Errors
    /// Two metrics of one name, which is a mistake in this crate.
    pub fn register_control(&self, progress: Progress) -> Result<(), prometheus::Error> {
        let read = move || {
            let Standing { connected, version, rejected, .. } = progress.standing();
            let generation = version.map_or(0, |version| version.generation);
            ControlStanding { connected: connected.is_some(), generation, rejected }
        };
        self.registry.register(Box::new(ControlMetrics::new(read)?))
    }

    /// Makes every value of the closed labels appear from the start, as zero.
    fn with_closed_sets(self) -> Self {
        for reporter in ["source", "destination"] {
            for reason in Refused::ALL {
                self.refused.with_label_values(&[reporter, reason.as_str()]);
            }
            for reason in CutReason::ALL {
                self.cut.with_label_values(&[reporter, reason.as_str()]);
            }
        }
        for fate in Fate::ALL {
            self.spans.with_label_values(&[fate.as_str()]);
            self.log_lines.with_label_values(&[fate.as_str()]);
        }
        for reason in [CutReason::CertificateUntrusted, CutReason::WorkloadGone] {
            self.ended.with_label_values(&[reason.as_str()]);
        }
        for part in Part::ALL {
            self.repairs.with_label_values(&[part.as_str()]);
        }
        for reason in RejectReason::ALL {
            self.rejected.with_label_values(&[reason.as_str()]);
        }
        self
    }

    /// The name of the cluster.
    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    /// A connection was opened.
    pub fn connection_opened(&self, report: &Report) {
        self.series(report, NO_FLAGS).opened.inc();
    }

    /// More bytes of a connection.
    pub fn bytes_carried(&self, report: &Report, bytes: Bytes) {
        carried(&self.series(report, NO_FLAGS), bytes);
    }

    /// A connection has ended. `untold` is what [`Self::bytes_carried`] was not told of: nothing, where it was never open.
    pub fn connection_ended(&self, report: &Report, untold: Bytes, ending: &Ending) {
        let reporter = report.reporter.as_str();
        let series = self.series(report, ending.response_flags());
        if let Ending::Refused(reason, _) = ending {
            self.refused.with_label_values(&[reporter, reason.as_str()]).inc();
            series.opened.inc();
            series.closed.inc();
            return;
        }
        if let Ending::Cut(cut) = ending {
            self.cut.with_label_values(&[reporter, cut.reason.as_str()]).inc();
        }
        carried(&series, untold);
        series.closed.inc();
    }

    /// The series of requests in a connection that ended so.
    pub(super) fn requests(&self, report: &Report, outcome: Outcome) -> Arc<RequestSeries> {
        self.requests.of(labels::of_request(report, &self.cluster, outcome), || {
            self.crowded_out.inc();
            labels::of_request(&Report::of_unknown_parties(report), &self.cluster, outcome)
        })
    }

    /// Policies have decided on a connection into a pod.
    pub fn judged(&self, report: &Report, authorization: &Authorization) {
        self.decisions.judged(report, authorization);
    }

    /// An accepted connection for tunnels was ended.
    pub fn tunnel_ended(&self, reason: CutReason) {
        self.ended.with_label_values(&[reason.as_str()]).inc();
    }

    /// A tunnel, or a request in one, was turned away.
    pub fn tunnel_rejected(&self, reason: RejectReason) {
        self.rejected.with_label_values(&[reason.as_str()]).inc();
    }

    /// The admin API answered a request with this HTTP status.
    pub fn admin_request(&self, code: u16) {
        self.admin.with_label_values(&[code.to_string().as_str()]).inc();
    }

    /// Spans were sent, or lost.
    pub fn spans(&self, fate: Fate, count: u64) {
        self.spans.with_label_values(&[fate.as_str()]).inc_by(count);
    }

    /// So many lines of the access log, for collectors, have met that fate.
    pub fn log_lines(&self, fate: Fate, count: u64) {
        self.log_lines.with_label_values(&[fate.as_str()]).inc_by(count);
    }

    /// Something that holds a pod in the mesh was put back.
    pub fn enrolment_repaired(&self, part: Part) {
        self.repairs.with_label_values(&[part.as_str()]).inc();
    }

    /// The enrolment loop's last comparison.
    pub fn set_enrolment(&self, desired: usize, enrolled: usize, failed: usize) {
        let states = [
            ("desired", desired),
            ("enrolled", enrolled),
            ("pending", desired.saturating_sub(enrolled)),
            ("failed", failed),
        ];
        for (state, count) in states {
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.pods.with_label_values(&[state]).set(count);
        }
    }

    /// The configuration that is in force now.
    pub fn set_config(&self, config: &Config) {
        self.config.set(config);
    }

    /// Everything in Prometheus' text format (version 0.0.4).
    ///
    /// # Errors
    /// The encoder's, which it has for families without metrics or names.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        self.read_kernel();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Every metric that has a series, with its series; the kernel's as they were last read.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.registry.gather()
    }

    fn read_kernel(&self) {
        let Some(kernel) = &self.kernel else { return };
        for counter in Counter::ALL {
            match kernel.read(counter) {
                Ok(total) => {
                    let metric = self.events.with_label_values(&[counter.action(), counter.reason()]);
                    metric.inc_by(total.saturating_sub(metric.get()));
                }
                Err(error) => tracing::warn!(%error, "kernel counter not read"),
            }
        }
    }

    fn series(&self, report: &Report, flags: &str) -> Arc<TcpSeries> {
        self.tcp.of(&labels::values(report, &self.cluster, flags), || {
            self.crowded_out.inc();
            // The labels that are left are closed sets: as many more as these have members.
            labels::of_unknown_parties(report, flags)
        })
    }
}

fn carried(series: &TcpSeries, bytes: Bytes) {
    series.from_client(bytes.from_client);
    series.to_client(bytes.to_client);
}

pub(super) fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: C) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use mesh_core::TrustDomain;
    use mesh_transport::{CertificateAuthority, IdentitySettings, LocalAuthority};

    use super::*;

    #[test]
    fn reference_has_every_metric() {
        let metrics = Metrics::new("c".to_owned()).unwrap().with_log(&LogOutput::stdout().unwrap()).unwrap();
        let domain = TrustDomain::default();
        let authority = CertificateAuthority::generate(&domain, SystemTime::now()).unwrap();
        let source = Arc::new(LocalAuthority::fixed(authority).unwrap());
        metrics.register_certificates(Identities::new(source, IdentitySettings::new(domain))).unwrap();
        metrics.register_control(Progress::default()).unwrap();
        mesh_docs::hold_metrics("mesh-node", metrics.registry.listed());
    }
}
