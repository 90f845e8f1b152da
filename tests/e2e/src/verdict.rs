//! How a test ends.

/// What a test returns: an error inside it becomes a panic where it happens, so that the lab, which is dropped by
/// unwinding, shows the ends of its daemons' logs.
pub type Verdict = Result<(), Failure>;

/// An error that ended a test. There is none: making one panics.
#[derive(Debug)]
pub enum Failure {}

impl From<anyhow::Error> for Failure {
    #[track_caller]
    fn from(error: anyhow::Error) -> Self {
        panic!("{error:#}")
    }
}
