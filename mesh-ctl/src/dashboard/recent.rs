//! The last requests of an edge, one by one. No clock, no I/O.

use std::collections::VecDeque;

use mesh_admin::{Flow, Party, RequestFlow};

use super::edge_report::WINDOW;
use super::view::RequestView;
use crate::flows::in_words;

/// Requests that an edge remembers.
const KEPT: usize = 10;
/// Characters of a text that is remembered: peers choose their paths.
const MAX_TEXT: usize = 512;

/// The last ones, each with the second in which it was told of; newest first.
#[derive(Debug, Default)]
pub(super) struct Recent(VecDeque<(u64, RequestView)>);

impl Recent {
    /// A request is over. `now` is in seconds.
    pub(super) fn add(&mut self, flow: &Flow, request: &RequestFlow, now: u64) {
        let by = match &*flow.talk.reporter {
            by @ ("waypoint" | "gateway") => by,
            _ => "node",
        };
        let view = RequestView {
            at: flow.at_milliseconds,
            by: by.to_owned(),
            from: end(&flow.talk.source),
            to: end(&flow.talk.destination),
            words: in_words(request).chars().take(MAX_TEXT).collect(),
        };
        self.0.push_front((now, view));
        self.0.truncate(KEPT);
    }

    /// Those of the last seconds.
    pub(super) fn view(&self, now: u64) -> Vec<RequestView> {
        self.0.iter().filter(|(at, _)| at + WINDOW > now).map(|(_, view)| view.clone()).collect()
    }
}

/// A pod, or an address; nothing where nobody was reached.
fn end(party: &Party) -> String {
    let address = || party.address.map(|address| address.to_string()).unwrap_or_default();
    party.pod.clone().unwrap_or_else(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_requests_of_the_last_seconds_are_told_newest_first() {
        let flow = serde_json::json!({
            "atMilliseconds": 7, "event": "request", "id": 1, "reporter": "waypoint", "security": "mutual_tls",
            "source": {"pod": "buyer"}, "destination": {}, "bytesFromClient": 0, "bytesToClient": 0,
        });
        let flow: Flow = serde_json::from_value(flow).expect("a flow");
        let mut recent = Recent::default();
        for second in 0..=KEPT as u64 {
            let request = RequestFlow { path: Some(format!("/{second}")), flags: "-".into(), ..RequestFlow::default() };
            recent.add(&flow, &request, second);
        }
        let told = recent.view(KEPT as u64);
        assert_eq!(told.len(), KEPT.min(WINDOW as usize));
        assert!(told[0].words.contains("/10") && told[1].words.contains("/9"), "{told:?}");
        assert_eq!((&*told[0].by, &*told[0].from, &*told[0].to), ("waypoint", "buyer", ""));
        assert!(recent.view(KEPT as u64 + WINDOW).is_empty());
    }
}
