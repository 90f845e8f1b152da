//! What one subscriber is told of one type. Pure: requests go in, responses come out.
//!
//! Of what a subscriber has there is a [`Table`], which shares all with the tables that are served; so a subscriber costs the
//! same however large the state is. One response at a time is on its way. While it is not answered the state moves on, and what
//! is told next is the difference to the newest: a slow subscriber is told less often, and nothing waits for it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::proto::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::table::{Table, Version};

/// After what a response ends, and another goes on.
#[derive(Debug, Clone, Copy)]
pub struct ResponseSize {
    /// Octets of resources; the last one may be larger than what is left.
    pub octets: usize,
    /// Resources and removals.
    pub resources: usize,
}

impl Default for ResponseSize {
    fn default() -> Self {
        Self { octets: 512 << 10, resources: 4096 }
    }
}

/// Names that may be subscribed to one by one.
const MAX_NAMES: usize = 100_000;
/// Names that are remembered because a response was not taken.
const MAX_WITHHELD: usize = 50_000;

/// Why a subscriber's stream cannot go on. It may begin anew.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Too many names.
    #[error("more than {MAX_NAMES} names are subscribed to; subscribe to all (\"*\")")]
    TooManyNames,
    /// Too much was not taken.
    #[error("more than {MAX_WITHHELD} resources were rejected")]
    TooMuchRejected,
    /// Too many types.
    #[error("more than {0} types are subscribed to")]
    TooManyTypes(usize),
    /// No type is named.
    #[error("the request has no type_url")]
    NoType,
}

/// A subscriber's view of a type.
#[derive(Debug)]
pub struct Subscription {
    type_url: Arc<str>,
    /// Whether all are subscribed to.
    all: bool,
    /// Names that are subscribed to one by one.
    names: BTreeSet<Box<str>>,
    /// What the subscriber has, once what is on its way has arrived; none before its first request.
    known: Option<Arc<Table>>,
    /// The state that it is being told.
    sending: Option<Sending>,
    on_its_way: Option<OnItsWay>,
    /// Names that are to be told whatever the subscriber has.
    owed: BTreeSet<Box<str>>,
    /// Names of responses that were not taken: told again with the next state.
    withheld: BTreeSet<Box<str>>,
    /// Whether a response is due although nothing differs.
    due: bool,
    nonce: u64,
    size: ResponseSize,
    told: Delivery,
    /// The state that has been taken as a whole last.
    in_force: Option<Arc<Table>>,
}

#[derive(Debug)]
struct Sending {
    state: Arc<Table>,
    /// The name up to which it has been told.
    after: Option<Box<str>>,
    /// What it has been told of it because it was owed.
    paid: BTreeSet<Box<str>>,
}

#[derive(Debug)]
struct OnItsWay {
    nonce: u64,
    /// What the response is the difference of, and from which name on and up to which.
    before: Arc<Table>,
    state: Arc<Table>,
    from: Option<Box<str>>,
    until: Option<Box<str>>,
    owed: Vec<Box<str>>,
    /// Whether the subscriber has all of the state with it.
    completes: bool,
}

/// How far a subscriber is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// The newest state that it was sent as a whole.
    pub sent: Option<Version>,
    /// The newest state that it has said to have taken as a whole.
    pub acknowledged: Option<Version>,
    /// Why it has not taken something that was sent since.
    pub rejected: Option<String>,
}

impl Subscription {
    /// Of nothing yet.
    #[must_use]
    pub fn new(type_url: &str, size: ResponseSize) -> Self {
        Self {
            size,
            type_url: type_url.into(),
            all: false,
            names: BTreeSet::new(),
            known: None,
            sending: None,
            on_its_way: None,
            owed: BTreeSet::new(),
            withheld: BTreeSet::new(),
            due: false,
            nonce: 0,
            told: Delivery::default(),
            in_force: None,
        }
    }

    /// The type.
    #[must_use]
    pub fn type_url(&self) -> &str {
        &self.type_url
    }

    /// How far the subscriber is.
    #[must_use]
    pub const fn told(&self) -> &Delivery {
        &self.told
    }

    /// The newest state that the subscriber has said to have taken as a whole.
    #[must_use]
    pub const fn in_force(&self) -> Option<&Arc<Table>> {
        self.in_force.as_ref()
    }

    /// Takes a request. `state` is what is served now.
    ///
    /// # Errors
    /// The stream has to end.
    pub fn take(&mut self, request: &DeltaDiscoveryRequest, state: &Arc<Table>) -> Result<(), ProtocolError> {
        let is_first = self.known.is_none();
        if is_first {
            let held = request.initial_resource_versions.iter();
            // A version that nobody serves is as good as any that is not served now.
            let held =
                held.map(|(name, version)| (name.as_str(), u64::from_str_radix(version, 16).unwrap_or_default()));
            self.known = Some(Arc::new(state.as_held(held)));
            self.due = true;
            self.all = request.resource_names_subscribe.is_empty();
        } else {
            self.take_answer(request)?;
        }
        self.take_names(request)
    }

    fn take_names(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), ProtocolError> {
        for name in &request.resource_names_subscribe {
            if name == "*" {
                if !std::mem::replace(&mut self.all, true) && self.due && self.told.sent.is_none() {
                    continue;
                }
                // What it has of all is not known: all is told.
                (self.known, self.sending, self.due) = (Some(Arc::default()), None, true);
                continue;
            }
            self.names.insert(name.as_str().into());
            self.owed.insert(name.as_str().into());
            self.due = true;
        }
        for name in &request.resource_names_unsubscribe {
            if name == "*" {
                self.all = false;
            }
            self.names.remove(name.as_str());
            self.owed.remove(name.as_str());
        }
        if self.names.len() > MAX_NAMES { Err(ProtocolError::TooManyNames) } else { Ok(()) }
    }

    /// Takes the answer to what is on its way; an answer to anything else is an old one.
    fn take_answer(&mut self, request: &DeltaDiscoveryRequest) -> Result<(), ProtocolError> {
        let is_answered = |sent: &mut OnItsWay| request.response_nonce == sent.nonce.to_string();
        let Some(answered) = self.on_its_way.take_if(is_answered) else { return Ok(()) };
        if let Some(error) = &request.error_detail {
            self.told.rejected = Some(error.message.chars().take(1000).collect());
            self.withhold(answered);
            return if self.withheld.len() > MAX_WITHHELD { Err(ProtocolError::TooMuchRejected) } else { Ok(()) };
        }
        if answered.completes && self.withheld.is_empty() {
            self.told.acknowledged = Some(answered.state.version());
            self.told.rejected = None;
            self.in_force = Some(answered.state);
        }
        Ok(())
    }

    /// The subscriber may have taken some of it: all is told again when there is something else to tell.
    fn withhold(&mut self, rejected: OnItsWay) {
        self.withheld.extend(rejected.owed);
        let (resources, from) = (rejected.state.resources(), rejected.from.as_deref());
        for (before, now) in resources.differences(rejected.before.resources(), from.map(|from| ("", from))) {
            let Some(either) = now.or(before) else { continue };
            if rejected.until.as_deref().is_some_and(|until| either.name() > until) {
                break;
            }
            if self.is_subscribed(either.name()) {
                self.withheld.insert(either.name().into());
            }
        }
    }

    fn is_subscribed(&self, name: &str) -> bool {
        self.all || self.names.contains(name)
    }

    /// What is to be sent now, if anything is. `state` is what is served now.
    pub fn next(&mut self, state: &Arc<Table>) -> Option<DeltaDiscoveryResponse> {
        if self.on_its_way.is_some() {
            return None;
        }
        let known = self.known.clone()?;
        let mut sending = match self.sending.take() {
            Some(sending) => sending,
            None if Arc::ptr_eq(&known, state) && !self.due => return None,
            None => {
                if !Arc::ptr_eq(&known, state) {
                    self.owed.append(&mut self.withheld);
                }
                Sending { state: state.clone(), after: None, paid: BTreeSet::new() }
            }
        };
        let mut response = Response::new(&self.type_url, self.size);
        self.add_owed(&mut response, &mut sending);
        let until = self.add_differences(&mut response, &known, &sending);
        let is_newer = self.all && self.told.sent != Some(sending.state.version());
        if response.is_empty() && sending.after.is_none() && until.is_none() && !self.due && !is_newer {
            // What differs is nothing that is subscribed to. Whoever wants all is told of the state nonetheless.
            self.known = Some(sending.state);
            return None;
        }
        Some(self.send(response, known, sending, until))
    }

    fn add_owed(&mut self, response: &mut Response, sending: &mut Sending) {
        while let Some(name) = self.owed.first().filter(|_| !response.is_full()).cloned() {
            self.owed.remove(&name);
            match sending.state.get(&name) {
                Some(resource) => response.add(resource),
                None => response.remove(&name),
            }
            sending.paid.insert(name.clone());
            response.owed.push(name);
        }
    }

    /// Adds what differs; gives the name up to which, where that is not all.
    fn add_differences(&self, response: &mut Response, known: &Table, sending: &Sending) -> Option<Box<str>> {
        let after = sending.after.as_deref();
        let mut last = after;
        for (before, now) in sending.state.resources().differences(known.resources(), after.map(|after| ("", after))) {
            if response.is_full() {
                // Where only what is owed has had a place, this begins with the first name.
                return Some(last.unwrap_or_default().into());
            }
            let Some(either) = now.or(before) else { continue };
            last = Some(either.name());
            match now {
                _ if !self.is_subscribed(either.name()) || sending.paid.contains(either.name()) => {}
                Some(resource) => response.add(resource),
                None => response.remove(either.name()),
            }
        }
        None
    }

    fn send(
        &mut self,
        response: Response,
        known: Arc<Table>,
        sending: Sending,
        until: Option<Box<str>>,
    ) -> DeltaDiscoveryResponse {
        let completes = until.is_none() && self.owed.is_empty();
        let Response { mut message, owed, .. } = response;
        self.nonce += 1;
        message.nonce = self.nonce.to_string();
        self.due = false;
        let Sending { state, after: from, paid } = sending;
        if completes {
            message.system_version_info = state.version().to_string();
            self.told.sent = Some(state.version());
            self.known = Some(state.clone());
        } else {
            let after = until.clone().or_else(|| Some(LAST.into()));
            self.sending = Some(Sending { state: state.clone(), after, paid });
        }
        let nonce = self.nonce;
        self.on_its_way = Some(OnItsWay { nonce, before: known, state, from, until, owed, completes });
        message
    }
}

/// Behind every name: nothing but what is owed is left to tell.
const LAST: &str = "\u{10ffff}";

/// A response that is being put together.
struct Response {
    message: DeltaDiscoveryResponse,
    octets: usize,
    owed: Vec<Box<str>>,
    size: ResponseSize,
}

impl Response {
    fn new(type_url: &str, size: ResponseSize) -> Self {
        let message = DeltaDiscoveryResponse { type_url: type_url.to_owned(), ..DeltaDiscoveryResponse::default() };
        Self { message, octets: 0, owed: Vec::new(), size }
    }

    fn is_full(&self) -> bool {
        let count = self.message.resources.len() + self.message.removed_resources.len();
        self.octets >= self.size.octets || count >= self.size.resources
    }

    const fn is_empty(&self) -> bool {
        self.message.resources.is_empty() && self.message.removed_resources.is_empty()
    }

    fn add(&mut self, resource: &crate::table::Resource) {
        self.octets += resource.weight();
        self.message.resources.push(resource.message(&self.message.type_url));
    }

    fn remove(&mut self, name: &str) {
        self.octets += name.len();
        self.message.removed_resources.push(name.to_owned());
    }
}
