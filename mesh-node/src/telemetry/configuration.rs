//! Metrics of the configuration in force.

use std::time::SystemTime;

use mesh_config::{Config, Severity};
use mesh_metrics::Registry;
use prometheus::{Gauge, IntGauge, IntGaugeVec, Opts};

/// The metrics.
pub(super) struct ConfigMetrics {
    generation: IntGauge,
    changed: Gauge,
    policies: IntGaugeVec,
    findings: IntGaugeVec,
}

impl ConfigMetrics {
    pub(super) fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let generation = IntGauge::new("mesh_config_generation", "Generation of the configuration in force")?;
        let changed = Gauge::new(
            "mesh_config_changed_timestamp_seconds",
            "When the configuration last changed, in seconds since 1970; 0 while it is the first that was read",
        )?;
        let policies = IntGaugeVec::new(Opts::new("mesh_policies", "Policies in force by kind"), &["kind"])?;
        let about = "Findings in the configuration by severity";
        let findings = IntGaugeVec::new(Opts::new("mesh_config_findings", about), &["severity"])?;
        registry.register(Box::new(generation.clone()))?;
        registry.register(Box::new(changed.clone()))?;
        registry.register(Box::new(policies.clone()))?;
        registry.register(Box::new(findings.clone()))?;
        Ok(Self { generation, changed, policies, findings })
    }

    /// The configuration that is in force now.
    pub(super) fn set(&self, config: &Config) {
        // The first one is as old as the daemon, which says nothing of when it changed.
        if self.generation.get() != 0 {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            self.changed.set(since.as_secs_f64());
        }
        self.generation.set(i64::try_from(config.generation).unwrap_or(i64::MAX));
        let policies = config.snapshot.policies();
        for (kind, count) in [
            ("AuthorizationPolicy", policies.authorization().len()),
            ("PeerAuthentication", policies.peer_authentication().len()),
            ("DestinationRule", policies.client_tls().len()),
        ] {
            self.policies.with_label_values(&[kind]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        for severity in [Severity::Error, Severity::Warning, Severity::Info] {
            let count = config.findings.iter().filter(|finding| finding.severity == severity).count();
            let gauge = self.findings.with_label_values(&[severity.to_string().as_str()]);
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
