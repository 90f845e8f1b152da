//! Connections that are carried now, and the stream of what happens to them.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::UNIX_EPOCH,
};

use http::{HeaderValue, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Bytes, Frame};
use mesh_admin::{Connection, Flow, FlowLine, FlowSelection, List, Party, Selection, Talk};
use mesh_admin_server::Answer;
use mesh_core::SpiffeId;
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc,
};

use super::Admin;
use crate::{
    connections::ConnectionView,
    telemetry::{self, FlowEvent, Report},
};

/// Lines that wait for a reader; behind them events wait in their own buffer, until it loses the oldest.
const LINES: usize = 64;

impl Admin {
    /// The connections of this daemon that have an end in the selected namespace.
    pub(super) async fn connections(&self, selection: &Selection) -> List<Connection> {
        let mut views = match self.workers.upgrade() {
            Some(workers) => workers.connections().await,
            // The daemon is ending.
            None => Vec::new(),
        };
        views.extend(self.shared.direct.views());
        views.sort_unstable_by_key(|view| view.id);
        let wanted = |view: &ConnectionView| {
            let touches = |party: &telemetry::Party, wanted: &str| {
                party.workload.as_ref().is_some_and(|workload| &*workload.namespace == wanted)
            };
            let report = &view.report;
            selection
                .namespace
                .as_deref()
                .is_none_or(|it| touches(&report.source, it) || touches(&report.destination, it))
        };
        let part = Selection { namespace: None, ..selection.clone() };
        let generation = self.shared.config().generation;
        part.take(views.iter().filter(|view| wanted(view)), |_| "", generation, connection)
    }

    /// The stream of flows, a line of JSON each, for as long as the client reads.
    pub(super) fn flows(&self, selection: FlowSelection) -> Answer {
        let (lines, body) = mpsc::channel(LINES);
        tokio::spawn(forward(self.shared.telemetry.flows.listen(), selection, lines));
        let mut answer = Response::new(Lines(body).boxed_unsync());
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        answer
    }
}

/// Passes events on until the client leaves or the daemon ends.
async fn forward(
    mut events: broadcast::Receiver<Arc<FlowEvent>>,
    selection: FlowSelection,
    lines: mpsc::Sender<Bytes>,
) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = lines.closed() => return,
        };
        let line = match event {
            Ok(event) => FlowLine::Event(Box::new(flow(&event))),
            Err(RecvError::Lagged(lost)) => FlowLine::Lost { lost },
            Err(RecvError::Closed) => return,
        };
        if matches!(&line, FlowLine::Event(flow) if !selection.selects(flow)) {
            continue;
        }
        let mut text = match serde_json::to_vec(&line) {
            Ok(text) => text,
            Err(error) => return tracing::error!(%error, "flow event not written"),
        };
        text.push(b'\n');
        if lines.send(Bytes::from(text)).await.is_err() {
            return;
        }
    }
}

/// A body of lines as they come.
struct Lines(mpsc::Receiver<Bytes>);

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

fn connection(view: &ConnectionView) -> Connection {
    Connection {
        id: view.id.number(),
        open: view.is_open,
        age_seconds: view.report.age().as_secs(),
        talk: talk(&view.report, view.bytes),
    }
}

fn flow(event: &FlowEvent) -> Flow {
    let since = event.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Flow {
        at_milliseconds: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        event: event.kind.as_str().to_owned(),
        id: event.connection.number(),
        talk: talk(&event.report, event.bytes),
        end: event.end.map(str::to_owned),
        detail: event.detail.clone(),
    }
}

fn talk(report: &Report, bytes: telemetry::Bytes) -> Talk {
    Talk {
        reporter: report.reporter.as_str().to_owned(),
        source: party(&report.source),
        destination: party(&report.destination),
        service: report.service.as_ref().map(|service| service.hostname.to_string()),
        original_destination: report.original,
        security: report.security.as_str().to_owned(),
        policy: report.decider.as_ref().map(ToString::to_string),
        bytes_from_client: bytes.from_client,
        bytes_to_client: bytes.to_client,
    }
}

fn party(party: &telemetry::Party) -> Party {
    let workload = party.workload.as_deref();
    Party {
        address: party.address,
        namespace: workload.map(|workload| workload.namespace.to_string()),
        pod: workload.map(|workload| workload.name.to_string()),
        workload: workload.map(|workload| workload.workload_name.to_string()),
        principal: party.principal.as_ref().map(SpiffeId::to_string),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        connections::ConnectionId,
        telemetry::{FlowKind, Reporter},
    };

    fn event(kind: FlowKind) -> Arc<FlowEvent> {
        Arc::new(FlowEvent {
            at: SystemTime::now(),
            kind,
            connection: ConnectionId::next(),
            report: Report::begin(Reporter::Source, telemetry::Party::default()),
            bytes: telemetry::Bytes::default(),
            end: None,
            detail: None,
        })
    }

    /// The next line of a stream, as a client reads it.
    async fn line(lines: &mut mpsc::Receiver<Bytes>) -> FlowLine {
        serde_json::from_slice(&lines.recv().await.expect("a line")).expect("JSON")
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_is_told_how_much_it_lost_and_goes_on() {
        let events = broadcast::Sender::new(4);
        let (lines, mut read) = mpsc::channel(1);
        let selection = FlowSelection { events: vec!["opened".into()], ..FlowSelection::default() };
        let forwarding = tokio::spawn(forward(events.subscribe(), selection, lines));
        for _ in 0..10 {
            let _ = events.send(event(FlowKind::Opened));
        }
        // It has not run yet, and finds the last four.
        assert_eq!(line(&mut read).await, FlowLine::Lost { lost: 6 });
        for _ in 0..4 {
            assert!(matches!(line(&mut read).await, FlowLine::Event(_)));
        }
        let _ = events.send(event(FlowKind::Closed));
        let _ = events.send(event(FlowKind::Opened));
        let FlowLine::Event(flow) = line(&mut read).await else { panic!("nothing was lost") };
        assert_eq!(flow.event, "opened");
        // A client that leaves is noticed while nothing happens.
        drop(read);
        forwarding.await.expect("ended by itself");
        assert_eq!(events.receiver_count(), 0);
    }
}
