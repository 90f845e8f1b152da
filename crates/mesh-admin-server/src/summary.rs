//! What every program of the mesh says of itself in the same words: its configuration and its certificates.

use std::time::{SystemTime, UNIX_EPOCH};

use mesh_admin::{Certificate, CertificateError, Certificates, Config, Expiry, MAX_FINDINGS};
use mesh_config::Severity;
use mesh_transport::CertificateStatus;

/// The configuration in force, in short.
#[must_use]
pub fn config(config: &mesh_config::Config) -> Config {
    let of = |severity| config.findings.iter().filter(move |finding| finding.severity == severity);
    let worst = of(Severity::Error).chain(of(Severity::Warning));
    Config {
        generation: config.generation,
        workloads: config.snapshot.workloads().len(),
        services: config.snapshot.services().len(),
        errors: of(Severity::Error).count(),
        warnings: of(Severity::Warning).count(),
        infos: of(Severity::Info).count(),
        findings: worst.take(MAX_FINDINGS).map(ToString::to_string).collect(),
        control: None,
    }
}

/// The certificates that are held or wanted, in short.
#[must_use]
pub fn certificates(wanted: &[CertificateStatus]) -> Certificates {
    let ends = wanted.iter().filter_map(|held| Some((held.not_after?, &held.identity)));
    let soonest = ends.clone().min().map(|(end, identity)| Expiry {
        identity: identity.to_string(),
        expires_in_seconds: seconds_until(end, SystemTime::now()),
    });
    let failed = wanted.iter().filter_map(|held| {
        let error = held.last_error.clone()?;
        Some(CertificateError { identity: held.identity.to_string(), error })
    });
    Certificates { held: ends.count(), soonest, errors: failed.collect() }
}

/// One certificate, as it is at a time.
#[must_use]
pub fn certificate(held: &CertificateStatus, now: SystemTime) -> Certificate {
    Certificate {
        identity: held.identity.to_string(),
        namespace: held.identity.namespace().to_owned(),
        service_account: held.identity.service_account().to_owned(),
        serial: held.serial.clone(),
        not_before: held.not_before.map(unix),
        not_after: held.not_after.map(unix),
        expires_in_seconds: held.not_after.map(|end| seconds_until(end, now)),
        next_renewal: held.next_renewal.map(unix),
        roots: held.root_fingerprints.iter().map(ToString::to_string).collect(),
        error: held.last_error.clone(),
    }
}

/// Seconds since 1970.
fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Seconds from `now` to `time`, none when it is over.
#[must_use]
pub fn seconds_until(time: SystemTime, now: SystemTime) -> u64 {
    time.duration_since(now).map_or(0, |left| left.as_secs())
}
