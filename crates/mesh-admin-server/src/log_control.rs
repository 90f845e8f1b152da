//! A program's log: JSON lines, by a filter that can be changed while it runs.

use std::sync::Mutex;

use mesh_core::lock::UnpoisonedMutex as _;
use tracing_subscriber::{
    EnvFilter, Registry, filter::LevelFilter, layer::SubscriberExt as _, reload, util::SubscriberInitExt as _,
};

use crate::LogOutput;

/// A filter that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogFilterError {
    /// A word that is no level. (A bare target would be legal, and is nearly always a level misspelt.)
    #[error("{0} is no level: say error, warn, info, debug, trace or off, or TARGET=LEVEL for one part of the program")]
    Level(String),
    /// A directive that is not understood.
    #[error("{filter}: {reason}; say a level such as info, or directives such as info,access=off")]
    Directive {
        /// The whole filter.
        filter: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The log was shut down.
    #[error("the log is gone: {0}")]
    Gone(#[from] reload::Error),
}

/// The filter in force.
pub struct LogControl {
    handle: reload::Handle<EnvFilter, Registry>,
    filter: Mutex<String>,
    output: LogOutput,
}

impl LogControl {
    /// Starts to log. Once in a process.
    ///
    /// # Errors
    /// The filter cannot be used.
    pub fn start(filter: &str, output: LogOutput) -> Result<Self, LogFilterError> {
        let (layer, handle) = reload::Layer::new(parse(filter)?);
        let lines = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(output.clone());
        tracing_subscriber::registry().with(layer).with(lines).init();
        Ok(Self { handle, filter: Mutex::new(filter.to_owned()), output })
    }

    /// Where lines go.
    #[must_use]
    pub const fn output(&self) -> &LogOutput {
        &self.output
    }

    /// The filter, as it was given.
    #[must_use]
    pub fn filter(&self) -> String {
        self.filter.lock_unpoisoned().clone()
    }

    /// Puts another filter in force.
    ///
    /// # Errors
    /// It cannot be used; the one before stays.
    pub fn set(&self, filter: &str) -> Result<(), LogFilterError> {
        let parsed = parse(filter)?;
        let mut current = self.filter.lock_unpoisoned();
        self.handle.reload(parsed)?;
        filter.clone_into(&mut current);
        Ok(())
    }
}

fn parse(filter: &str) -> Result<EnvFilter, LogFilterError> {
    let word = |directive: &&str| directive.chars().all(|c| c.is_ascii_alphanumeric() || "_:-".contains(c));
    let mut words = filter.split(',').map(str::trim).filter(word);
    if let Some(wrong) = words.find(|directive| directive.is_empty() || directive.parse::<LevelFilter>().is_err()) {
        return Err(LogFilterError::Level(format!("{wrong:?}")));
    }
    EnvFilter::try_new(filter)
        .map_err(|error| LogFilterError::Directive { filter: filter.to_owned(), reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_understood() {
        for filter in ["info", "off", "DEBUG", "info,access=off", "warn,mesh_node::pods=trace", "[span{a=1}]=debug"] {
            parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        }
    }

    #[test]
    fn what_is_no_level_is_named() {
        for (filter, named) in [("inof", "inof"), ("", "\"\""), ("info,acess", "acess"), ("access=loud", "access=loud")]
        {
            let error = parse(filter).map(drop).expect_err(filter).to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
