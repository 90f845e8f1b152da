//! Flow events: connections as they open and end, for whoever listens now.
//!
//! Nobody waits for a listener: one that is slower than the events loses the oldest and learns how many.

use std::{sync::Arc, time::SystemTime};

use mesh_signals::Exchange;
use tokio::sync::broadcast;

use super::report::{Bytes, Ending, Report};
use crate::connections::ConnectionId;

/// Events that a listener may be behind.
const BUFFERED: usize = 4096;

/// What happened to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowKind {
    /// Both ends are connected.
    Opened,
    /// It has ended by itself.
    Closed,
    /// It was accepted and then refused.
    Refused,
    /// It was open and the daemon has ended it.
    Cut,
    /// The kernel dropped what would have begun it.
    Dropped,
    /// A request on it is over.
    Request,
}

impl FlowKind {
    /// As a filter and in output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Refused => "refused",
            Self::Cut => "cut",
            Self::Dropped => "dropped",
            Self::Request => "request",
        }
    }
}

/// One event.
#[derive(Clone, Debug)]
pub struct FlowEvent {
    /// When.
    pub at: SystemTime,
    /// What.
    pub kind: FlowKind,
    /// Which connection.
    pub connection: ConnectionId,
    /// Who talks to whom.
    pub report: Report,
    /// What was carried until then.
    pub bytes: Bytes,
    /// How it ended, or why it was dropped, of closed sets; none while it lives.
    pub end: Option<&'static str>,
    /// More on why it was refused or cut.
    pub detail: Option<String>,
    /// The request that is over.
    pub request: Option<Exchange>,
}

/// The stream of events. It costs next to nothing while nobody listens.
pub struct FlowEvents(broadcast::Sender<Arc<FlowEvent>>);

impl FlowEvents {
    pub(super) fn new() -> Self {
        Self(broadcast::Sender::new(BUFFERED))
    }

    /// Listens from now on. Lagging behind by more than a bounded number loses events and says how many.
    pub fn listen(&self) -> broadcast::Receiver<Arc<FlowEvent>> {
        self.0.subscribe()
    }

    pub(super) fn opened(&self, id: ConnectionId, report: &Report) {
        self.send(|| FlowEvent {
            at: SystemTime::now(),
            kind: FlowKind::Opened,
            connection: id,
            report: report.clone(),
            bytes: Bytes::default(),
            end: None,
            detail: None,
            request: None,
        });
    }

    /// A request on a connection is over; its bytes are those of its bodies.
    pub(super) fn request(&self, id: ConnectionId, report: &Report, exchange: &Exchange) {
        self.send(|| FlowEvent {
            at: SystemTime::now(),
            kind: FlowKind::Request,
            connection: id,
            report: report.clone(),
            bytes: Bytes { from_client: exchange.request_bytes, to_client: exchange.response_bytes },
            end: None,
            detail: None,
            request: Some(*exchange),
        });
    }

    pub(super) fn ended(&self, id: ConnectionId, report: &Report, bytes: Bytes, ending: &Ending) {
        self.send(|| FlowEvent {
            at: SystemTime::now(),
            kind: ending.kind(),
            connection: id,
            report: report.clone(),
            bytes,
            end: Some(ending.name()),
            detail: ending.detail().map(str::to_owned),
            request: None,
        });
    }

    /// Something was dropped at `at`, for a reason of a closed set, which `detail` explains. `report` is asked only where somebody
    /// listens.
    pub fn dropped(&self, at: SystemTime, reason: &'static str, detail: &str, report: impl FnOnce() -> Report) {
        self.send(|| FlowEvent {
            at,
            kind: FlowKind::Dropped,
            connection: ConnectionId::next(),
            report: report(),
            bytes: Bytes::default(),
            end: Some(reason),
            detail: Some(detail.to_owned()),
            request: None,
        });
    }

    fn send(&self, event: impl FnOnce() -> FlowEvent) {
        if self.0.receiver_count() > 0 {
            // The last listener may have left just now.
            let _ = self.0.send(Arc::new(event()));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;
    use crate::telemetry::{Party, Refused, Reporter};

    #[test]
    fn a_listener_that_is_too_slow_learns_how_much_it_lost() {
        let events = FlowEvents::new();
        let report = Report::begin(Reporter::Source, Party::default());
        events.opened(ConnectionId::next(), &report);
        let mut listener = events.listen();
        for _ in 0..BUFFERED + 3 {
            let ending = Ending::Refused(Refused::NoEndpoint, "nobody".to_owned());
            events.ended(ConnectionId::next(), &report, Bytes::default(), &ending);
        }
        assert_eq!(listener.try_recv().expect_err("behind"), TryRecvError::Lagged(3));
        let event = listener.try_recv().expect("the rest is there");
        assert_eq!((event.kind, event.end), (FlowKind::Refused, Some("no_endpoint")));
        assert_eq!(event.detail.as_deref(), Some("nobody"));
    }
}
