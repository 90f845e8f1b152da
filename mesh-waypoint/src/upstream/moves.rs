//! Requests and connections whose endpoint answers nothing at all go to another one.

use tokio::time::Instant;

use super::{Cluster, Endpoint, Wish, connect_timeout};

/// How often one has gone to another endpoint, and until when it may.
#[derive(Default)]
pub(crate) struct Moves {
    count: u32,
    until: Option<Instant>,
}

impl Moves {
    /// How often.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Whether it may go to another endpoint than this one, which then is not wished for any more: where there is one, and time for
    /// it: none begins later after the first than one connection may take.
    pub(crate) fn past(&mut self, cluster: &Cluster, this: &Endpoint, wish: &mut Wish) -> bool {
        if !cluster.has_another(this, &wish.avoid) {
            return false;
        }
        let now = Instant::now();
        let until = *self.until.get_or_insert_with(|| now + connect_timeout(&cluster.policy()));
        if now > until {
            return false;
        }
        self.count += 1;
        wish.avoid.push(this.address());
        true
    }
}
