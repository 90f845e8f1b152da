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
    /// Begin of validity, in seconds since 1970 (UTC).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<u64>,
    /// End of validity, in seconds since 1970 (UTC); none where there is no certificate yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
    /// Seconds until the end of validity; 0 when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in_seconds: Option<u64>,
    /// Why the last attempt to have or renew it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
