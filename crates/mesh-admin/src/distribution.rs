//! Whom a replica of mesh-control tells of the configuration, and how far each is.

use serde::{Deserialize, Serialize};

/// Where mesh-control answers with a [`Distribution`], on the port of its metrics.
pub const DISTRIBUTION: &str = "/distribution";

/// What a replica serves, and to whom.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Distribution {
    /// Counts the changes of what this replica serves, from 1.
    pub generation: u64,
    /// The generation with a digest, which is the same at all replicas that serve the same.
    pub version: String,
    /// Those who are told.
    pub subscribers: Vec<Subscriber>,
}

/// One who is told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subscriber {
    /// Whose token it has shown, such as `node node-a`.
    pub caller: String,
    /// What it calls itself.
    pub name: String,
    /// Its program and the version of that.
    pub program: String,
    /// Seconds since it is told.
    pub for_seconds: u64,
    /// The newest version that it was sent as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<String>,
    /// The newest version that it has put in force as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged: Option<String>,
    /// Why it has not taken something that was sent since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<String>,
    /// Whether what is served now is in force there.
    pub current: bool,
}
