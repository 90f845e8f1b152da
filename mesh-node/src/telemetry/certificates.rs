//! Metrics of the certificates that the daemon holds, and of their authority; as many as accounts have pods on the node.

use std::time::{Duration, SystemTime};

use mesh_transport::Identities;
use prometheus::{
    IntCounterVec, IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Reads what it tells when it is asked.
pub(super) struct CertificateMetrics {
    identities: Identities,
    expiry: IntGaugeVec,
    lifetime: IntGaugeVec,
    renewals: IntCounterVec,
    reachable: IntGauge,
    clock: IntGauge,
}

impl CertificateMetrics {
    pub(super) fn new(identities: Identities) -> Result<Self, prometheus::Error> {
        let expiry =
            Opts::new("mesh_certificate_expiry_seconds", "Seconds until a certificate ends; negative after it");
        let lifetime =
            Opts::new("mesh_certificate_lifetime_seconds", "Seconds from a certificate's beginning to its end");
        let renewals =
            Opts::new("mesh_certificate_renewals_total", "Attempts to obtain or renew certificates, by result");
        Ok(Self {
            identities,
            expiry: IntGaugeVec::new(expiry, &["identity"])?,
            lifetime: IntGaugeVec::new(lifetime, &["identity"])?,
            renewals: IntCounterVec::new(renewals, &["result"])?,
            reachable: IntGauge::new(
                "mesh_ca_reachable",
                "Whether the CA answered the last attempt; 1 before the first",
            )?,
            clock: IntGauge::new("mesh_clock_behind_ca_seconds", "How far this machine's clock is behind the CA's")?,
        })
    }

    fn read(&self) {
        let now = SystemTime::now();
        self.expiry.reset();
        self.lifetime.reset();
        for certificate in self.identities.certificates() {
            if let Some(end) = certificate.not_after {
                let left = end.duration_since(now).map_or_else(|late| -seconds(late.duration()), seconds);
                self.expiry.with_label_values(&[certificate.identity.as_str()]).set(left);
                let whole = certificate.not_before.and_then(|begin| end.duration_since(begin).ok());
                self.lifetime.with_label_values(&[certificate.identity.as_str()]).set(whole.map_or(0, seconds));
            }
        }
        let authority = self.identities.authority();
        for (result, total) in [("success", authority.renewed), ("failure", authority.failed)] {
            let counter = self.renewals.with_label_values(&[result]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.reachable.set(i64::from(authority.is_reachable.unwrap_or(true)));
        self.clock.set(authority.clock_behind);
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

impl Collector for CertificateMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let all: [&dyn Collector; 5] = [&self.expiry, &self.lifetime, &self.renewals, &self.reachable, &self.clock];
        all.into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        let all: [&dyn Collector; 5] = [&self.expiry, &self.lifetime, &self.renewals, &self.reachable, &self.clock];
        all.into_iter().flat_map(Collector::collect).collect()
    }
}
