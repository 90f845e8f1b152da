//! What one subscriber is told on one stream: a subscription for each type. Pure.

use crate::proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::state::State;
use crate::subscription::{ProtocolError, ResponseSize, Subscription};

/// Types on one stream; there are not that many.
const MAX_TYPES: usize = 16;

/// The subscriptions of a stream.
#[derive(Debug, Default)]
pub struct Session {
    subscriptions: Vec<Subscription>,
    size: ResponseSize,
}

impl Session {
    /// Of nothing yet, with responses of that size.
    #[must_use]
    pub const fn new(size: ResponseSize) -> Self {
        Self { subscriptions: Vec::new(), size }
    }

    /// Takes a request. `state` is what is served now.
    ///
    /// # Errors
    /// The stream has to end.
    pub fn take(&mut self, request: &DeltaDiscoveryRequest, state: &State) -> Result<(), ProtocolError> {
        let type_url = &*request.type_url;
        if type_url.is_empty() {
            return Err(ProtocolError::NoType);
        }
        let index = match self.subscriptions.iter().position(|known| known.type_url() == type_url) {
            Some(index) => index,
            None if self.subscriptions.len() >= MAX_TYPES => return Err(ProtocolError::TooManyTypes(MAX_TYPES)),
            None => {
                self.subscriptions.push(Subscription::new(type_url, self.size));
                self.subscriptions.len() - 1
            }
        };
        match self.subscriptions.get_mut(index) {
            Some(subscription) => subscription.take(request, state.table(type_url)),
            None => Ok(()),
        }
    }

    /// What is to be sent now, if anything is. `state` is what is served now.
    pub fn next(&mut self, state: &State) -> Option<DeltaDiscoveryResponse> {
        self.subscriptions.iter_mut().find_map(|subscription| {
            let table = state.table(subscription.type_url()).clone();
            subscription.next(&table)
        })
    }

    /// The subscription to a type; none to one that the subscriber does not want.
    #[must_use]
    pub fn subscription(&self, type_url: &str) -> Option<&Subscription> {
        self.subscriptions.iter().find(|subscription| subscription.type_url() == type_url)
    }
}
