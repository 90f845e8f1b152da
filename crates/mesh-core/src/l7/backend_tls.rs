//! TLS that is begun to a Service's endpoints as a BackendTLSPolicy says.

use std::sync::Arc;

use super::traffic::Tls;
use crate::policy::PolicyName;

/// What a BackendTLSPolicy says of a Service (gateway.networking.k8s.io, GEP-1897).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTls {
    /// Its namespace and name.
    pub name: Arc<PolicyName>,
    /// The Service's port that it is about; none for all that no other policy names.
    pub port: Option<u16>,
    /// What is begun; [`Tls::Impossible`] where what it names is not there.
    pub tls: Tls,
}
