//! The stream of flows, a line of JSON each.

use std::sync::Arc;

use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Bytes, Frame};
use mesh_admin::{Flow, FlowLine, FlowSelection};
use tokio::sync::{
    broadcast::{self, error::RecvError},
    mpsc,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use crate::Answer;

/// Lines that wait for a reader; behind them events wait in their own buffer, until it loses the oldest.
const LINES: usize = 64;

/// The selected ones of a program's events, as `told` makes flows of them, for as long as the client reads.
pub fn flows<E: Send + Sync + 'static>(
    events: broadcast::Receiver<Arc<E>>,
    selection: FlowSelection,
    told: fn(&E) -> Flow,
) -> Answer {
    let (sender, body) = mpsc::channel(LINES);
    tokio::spawn(forward(events, selection, told, sender));
    let lines = ReceiverStream::new(body).map(|line| Ok(Frame::data(line)));
    let mut answer = Response::new(StreamBody::new(lines).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    answer
}

/// Passes events on until the client leaves or the daemon ends.
async fn forward<E>(
    mut events: broadcast::Receiver<Arc<E>>,
    selection: FlowSelection,
    told: fn(&E) -> Flow,
    lines: mpsc::Sender<Bytes>,
) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = lines.closed() => return,
        };
        let line = match event {
            Ok(event) => FlowLine::Event(Box::new(told(&event))),
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

#[cfg(test)]
mod tests {
    use mesh_admin::{Party, Talk};

    use super::*;

    fn event(kind: &&'static str) -> Flow {
        Flow {
            at_milliseconds: 0,
            event: (*kind).to_owned(),
            id: 1,
            talk: Talk {
                reporter: "source".to_owned(),
                source: Party::default(),
                destination: Party::default(),
                service: None,
                original_destination: None,
                security: "none".to_owned(),
                policy: None,
                bytes_from_client: 0,
                bytes_to_client: 0,
            },
            end: None,
            detail: None,
            request: None,
        }
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
        let forwarding = tokio::spawn(forward(events.subscribe(), selection, event, lines));
        for _ in 0..10 {
            let _ = events.send(Arc::new("opened"));
        }
        // It has not run yet, and finds the last four.
        assert_eq!(line(&mut read).await, FlowLine::Lost { lost: 6 });
        for _ in 0..4 {
            assert!(matches!(line(&mut read).await, FlowLine::Event(_)));
        }
        let _ = events.send(Arc::new("closed"));
        let _ = events.send(Arc::new("opened"));
        let FlowLine::Event(flow) = line(&mut read).await else { panic!("nothing was lost") };
        assert_eq!(flow.event, "opened");
        // A client that leaves is noticed while nothing happens.
        drop(read);
        forwarding.await.expect("ended by itself");
        assert_eq!(events.receiver_count(), 0);
    }
}
