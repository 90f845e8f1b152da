//! Counting tests from what the test programs print.

use std::fmt;
use std::ops::AddAssign;

use anyhow::{Result, ensure};

/// Tests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) ignored: u32,
}

impl Tally {
    /// Adds up the `test result:` lines.
    pub(crate) fn of(output: &str) -> Self {
        let mut sum = Self::default();
        for line in output.lines().filter_map(|line| line.split_once("test result: ")).map(|(_, rest)| rest) {
            sum += Self {
                passed: number_before(line, " passed"),
                failed: number_before(line, " failed"),
                ignored: number_before(line, " ignored"),
            };
        }
        sum
    }

    /// Refuses a run of no test: it proves nothing.
    pub(crate) fn not_nothing(self) -> Result<Self> {
        ensure!(self.passed + self.failed > 0, "0 tests ran");
        Ok(self)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.passed + self.failed, self.ignored) {
            (0, 0) => Ok(()),
            (_, 0) => write!(f, "({} passed, {} failed)", self.passed, self.failed),
            (_, ignored) => write!(f, "({} passed, {} failed, {ignored} ignored)", self.passed, self.failed),
        }
    }
}

fn number_before(line: &str, word: &str) -> u32 {
    let digits = line.split_once(word).map(|(before, _)| before.rsplit([' ', ';']).next().unwrap_or_default());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// The output without what went well.
pub(crate) fn without_passed(output: &str) -> String {
    let dull = |line: &&str| {
        let line = line.trim_start();
        (line.starts_with("test ") && line.ends_with("... ok"))
            || ["Compiling ", "Downloaded ", "Downloading ", "Fresh ", "test result: ok."]
                .iter()
                .any(|word| line.starts_with(word))
    };
    output.lines().filter(|line| !dull(line)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_add_up() {
        let output = "test a ... ok\ntest result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.1s\n\
                      test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out\n";
        assert_eq!(Tally::of(output), Tally { passed: 15, failed: 2, ignored: 1 });
        assert_eq!(Tally::of("error: could not compile\n"), Tally::default());
    }

    #[test]
    fn a_run_of_no_test_is_refused() {
        assert!(Tally::of("test result: ok. 0 passed; 0 failed; 4 ignored; 0 measured\n").not_nothing().is_err());
        assert!(Tally { passed: 1, ..Tally::default() }.not_nothing().is_ok());
    }

    #[test]
    fn failures_stay_in_the_output() {
        let output = "test a ... ok\ntest b ... FAILED\nfailures:\n  b\n   Compiling x\n";
        assert_eq!(without_passed(output), "test b ... FAILED\nfailures:\n  b");
    }
}
