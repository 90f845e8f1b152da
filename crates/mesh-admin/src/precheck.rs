//! What a machine has of what a node daemon needs.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Precheck {
    /// In the order in which it was looked at.
    pub requirements: Vec<Requirement>,
}

impl Precheck {
    /// Whether the daemon can run there.
    #[must_use]
    pub fn nothing_is_missing(&self) -> bool {
        self.requirements.iter().all(|requirement| requirement.state != Found::Missing)
    }
}

/// One thing that is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirement {
    /// What.
    pub name: String,
    /// Whether it is there.
    pub state: Found,
    /// What was found; where it is missing or doubtful, what to do.
    pub detail: String,
}

/// Whether something that is needed is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Found {
    /// It is.
    Ok,
    /// It is, and something about it wants attention.
    Warning,
    /// It is not: the daemon cannot run.
    Missing,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Missing => "missing",
        })
    }
}
