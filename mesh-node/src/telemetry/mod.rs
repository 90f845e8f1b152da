//! What the daemon tells of itself and of the connections it carries.

mod access_log;
mod endpoints;
mod labels;
mod metrics;
mod report;

pub use endpoints::Endpoints;
pub use metrics::Metrics;
pub use report::{Ending, Party, Refused, Report, Reporter, Security};
