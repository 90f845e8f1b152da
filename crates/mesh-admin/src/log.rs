//! What a daemon logs.

use serde::{Deserialize, Serialize};

/// The filter of a daemon's log, as `mesh-node --log` takes it: a level, or directives such as `info,access=off`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogFilter {
    /// The directives.
    pub filter: String,
}
