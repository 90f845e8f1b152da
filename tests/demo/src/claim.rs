//! Claims that the demonstration makes, and what it says when one does not hold.

use std::fmt::{self, Display};

use anyhow::Result;

/// A claim that does not hold on this run.
#[derive(Debug)]
pub struct Unmet {
    expected: String,
    seen: String,
}

impl Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected: {}\nseen:     {}", self.expected, self.seen)
    }
}

impl std::error::Error for Unmet {}

/// Fails with what was expected and what was seen instead, unless it `holds`.
pub fn claim(holds: bool, expected: impl Display, seen: impl Display) -> Result<()> {
    if holds { Ok(()) } else { Err(unmet(expected, seen)) }
}

/// The failure of a claim.
pub fn unmet(expected: impl Display, seen: impl Display) -> anyhow::Error {
    Unmet { expected: expected.to_string(), seen: seen.to_string() }.into()
}

/// A failure as it is shown: a claim says itself, everything else is an error and its causes.
pub fn reason(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Unmet>() {
        Some(unmet) => unmet.to_string(),
        None => format!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_hold_says_what_was_expected_and_seen() {
        assert!(claim(true, "a", "b").is_ok());
        let error = claim(false, "TLS 1.3", "TLS 1.2").unwrap_err();
        assert_eq!(reason(&error), "expected: TLS 1.3\nseen:     TLS 1.2");
        assert_eq!(reason(&anyhow::anyhow!("cause").context("effect")), "effect: cause");
    }
}
