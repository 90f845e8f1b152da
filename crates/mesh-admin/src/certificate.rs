//! Certificates that a daemon holds.

use serde::{Deserialize, Serialize};

/// A certificate of one workload identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// The SPIFFE ID.
    pub identity: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its Kubernetes service account.
    pub service_account: String,
    /// The serial number, as hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Begin of validity, in seconds since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// End of validity, in seconds since 1970 (UTC); none where there is no certificate yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
    /// Seconds until the end of validity; 0 when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    /// When the next attempt at a new one is due, in seconds since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_renewal: Option<u64>,
    /// SHA-256 of the roots that its peers are judged by, as hexadecimal digits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<String>,
    /// Why the last attempt to have or renew it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
