//! Which flows are wanted.

use crate::{Flow, Party, Verdict};

/// Which flows are wanted: the query of a request. What is left out, or empty, is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowSelection {
    /// Only flows with an end in this namespace.
    pub namespace: Option<String>,
    /// Only flows with this pod, or a pod of this workload, at an end: `NAME`, or `NAMESPACE/NAME`.
    pub pod: Option<String>,
    /// Only these events.
    pub events: Vec<String>,
    /// Only what was judged so.
    pub verdicts: Vec<String>,
    /// Only requests with one of these statuses: `503`, `5xx`, or gRPC's as `grpc:14`.
    pub codes: Vec<String>,
    /// Only requests that took at least so many milliseconds.
    pub slow_milliseconds: Option<u64>,
    /// Only requests of this trace.
    pub trace: Option<String>,
}

/// The names that a query may have.
const NAMES: &str = "namespace, pod, event, verdict, code, slow and trace are";

impl FlowSelection {
    /// The events that there are.
    pub const EVENTS: [&str; 6] = ["opened", "closed", "refused", "cut", "dropped", "request"];
    /// The verdicts that there are.
    pub const VERDICTS: [&str; 3] = [Verdict::Allowed.as_str(), Verdict::Denied.as_str(), Verdict::Failed.as_str()];

    /// The selection as names and values of a query.
    #[must_use]
    pub fn to_query(&self) -> Vec<(&'static str, String)> {
        let one = |name, value: &Option<String>| value.clone().map(|value| (name, value));
        let mut query: Vec<_> = [one("namespace", &self.namespace), one("pod", &self.pod), one("trace", &self.trace)]
            .into_iter()
            .flatten()
            .collect();
        for (name, values) in [("event", &self.events), ("verdict", &self.verdicts), ("code", &self.codes)] {
            query.extend(values.iter().map(|value| (name, value.clone())));
        }
        query.extend(self.slow_milliseconds.map(|slow| ("slow", slow.to_string())));
        query
    }

    /// Reads a query.
    ///
    /// # Errors
    /// A sentence about the first name or value that is not understood.
    pub fn from_query<'a>(query: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut selection = Self::default();
        for (name, value) in query {
            match name {
                "namespace" => selection.namespace = Some(value.to_owned()),
                "pod" => selection.pod = Some(value.to_owned()),
                "trace" => selection.trace = Some(value.to_owned()),
                "event" => selection.events.push(one_of(name, value, &Self::EVENTS)?),
                "verdict" => selection.verdicts.push(one_of(name, value, &Self::VERDICTS)?),
                "code" => selection.codes.push(Self::code(value)?),
                "slow" => {
                    let slow = value.parse().map_err(|_| format!("slow={value} is no number of milliseconds"))?;
                    selection.slow_milliseconds = Some(slow);
                }
                _ => return Err(format!("{name} is not known here: {NAMES}")),
            }
        }
        Ok(selection)
    }

    /// Reads one status, or a class of them.
    ///
    /// # Errors
    /// A sentence about what is wrong with it.
    pub fn code(text: &str) -> Result<String, String> {
        let is_number = |text: &str| text.parse::<u16>().is_ok_and(|number| number < 1000);
        let class = text.strip_suffix("xx").is_some_and(|class| matches!(class, "1" | "2" | "3" | "4" | "5"));
        if class || is_number(text.strip_prefix("grpc:").unwrap_or(text)) {
            return Ok(text.to_owned());
        }
        Err(format!("{text} is no status: write 503, 5xx, or grpc:14"))
    }

    /// Whether a flow is wanted.
    #[must_use]
    pub fn selects(&self, flow: &Flow) -> bool {
        let ends = [&flow.talk.source, &flow.talk.destination];
        let of_requests = self.slow_milliseconds.is_some() || self.trace.is_some() || !self.codes.is_empty();
        self.namespace.as_deref().is_none_or(|namespace| flow.talk.touches(namespace))
            && self.pod.as_deref().is_none_or(|pod| ends.iter().any(|party| is(party, pod)))
            && (self.events.is_empty() || self.events.contains(&flow.event))
            && (self.verdicts.is_empty() || self.verdicts.iter().any(|verdict| verdict == flow.verdict().as_str()))
            && (!of_requests || self.selects_request(flow))
    }

    fn selects_request(&self, flow: &Flow) -> bool {
        let Some(request) = &flow.request else { return false };
        let has = |code: &String| match (code.strip_prefix("grpc:"), code.strip_suffix("xx")) {
            (Some(grpc), _) => request.grpc_status.is_some_and(|status| status.to_string() == grpc),
            (None, Some(class)) => (request.status / 100).to_string() == class,
            (None, None) => request.status.to_string() == *code,
        };
        (self.codes.is_empty() || self.codes.iter().any(has))
            && self.slow_milliseconds.is_none_or(|slow| request.duration_microseconds >= slow.saturating_mul(1_000))
            && (self.trace.is_none() || self.trace == request.trace_id)
    }
}

/// Whether a party is the pod, or of the workload, that is named.
fn is(party: &Party, wanted: &str) -> bool {
    let (namespace, name) = match wanted.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, wanted),
    };
    namespace.is_none_or(|namespace| party.namespace.as_deref() == Some(namespace))
        && [&party.pod, &party.workload].into_iter().any(|known| known.as_deref() == Some(name))
}

fn one_of(name: &str, value: &str, known: &[&str]) -> Result<String, String> {
    if known.contains(&value) {
        return Ok(value.to_owned());
    }
    Err(format!("{name}={value} is not one of {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FlowLine, RequestFlow, Talk};

    fn flow() -> Flow {
        let party = |namespace: &str| Party {
            namespace: Some(namespace.to_owned()),
            pod: Some("teller-1".to_owned()),
            workload: Some("teller".to_owned()),
            ..Party::default()
        };
        Flow {
            at_milliseconds: 1,
            event: "refused".into(),
            id: 7,
            talk: Talk {
                reporter: "source".into(),
                source: party("shop"),
                destination: party("bank"),
                service: None,
                original_destination: None,
                security: "none".into(),
                policy: None,
                bytes_from_client: 0,
                bytes_to_client: 0,
            },
            end: Some("no_endpoint".into()),
            detail: None,
            request: None,
        }
    }

    #[test]
    fn flows_are_selected_by_either_end_and_by_event() {
        let cases = [("", true), ("shop", true), ("bank", true), ("other", false)];
        for (namespace, selected) in cases {
            let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
            let events = vec!["cut".into(), "refused".into()];
            let selection = FlowSelection { namespace, events, ..FlowSelection::default() };
            assert_eq!(selection.selects(&flow()), selected, "{selection:?}");
            let query = selection.to_query();
            let read = FlowSelection::from_query(query.iter().map(|(name, value)| (*name, value.as_str())));
            assert_eq!(read, Ok(selection));
        }
        let opened = FlowSelection { events: vec!["opened".into()], ..FlowSelection::default() };
        assert!(!opened.selects(&flow()));
        assert!(FlowSelection::from_query([("event", "exploded")]).is_err());
    }

    /// Whether a flow is selected by a query, which is read as it is written.
    fn is_selected(flow: &Flow, query: &[(&str, &str)]) -> bool {
        let selection = FlowSelection::from_query(query.iter().copied()).expect("understood");
        let written = selection.to_query();
        let read = FlowSelection::from_query(written.iter().map(|(name, value)| (*name, value.as_str())));
        assert_eq!(read.as_ref(), Ok(&selection));
        selection.selects(flow)
    }

    #[test]
    fn flows_are_selected_by_pod_verdict_status_and_duration() {
        let request = RequestFlow {
            protocol: "grpc".into(),
            status: 200,
            grpc_status: Some(14),
            flags: "-".into(),
            duration_microseconds: 250_000,
            trace_id: Some("ab".into()),
            ..RequestFlow::default()
        };
        let mut asked = Flow { event: "request".into(), end: None, request: Some(Box::new(request)), ..flow() };
        for (query, selected) in [
            (("pod", "teller-1"), true),
            (("pod", "shop/teller"), true),
            (("pod", "other/teller"), false),
            (("pod", "teller-2"), false),
            (("verdict", "failed"), true),
            (("verdict", "allowed"), false),
            (("code", "2xx"), true),
            (("code", "200"), true),
            (("code", "grpc:14"), true),
            (("code", "5xx"), false),
            (("slow", "250"), true),
            (("slow", "251"), false),
            (("trace", "ab"), true),
            (("trace", "cd"), false),
        ] {
            assert_eq!(is_selected(&asked, &[query]), selected, "{query:?}");
        }
        assert!(is_selected(&asked, &[("code", "5xx"), ("code", "200")]));
        assert!(is_selected(&flow(), &[("verdict", "failed")]) && !is_selected(&flow(), &[("code", "200")]));
        asked.request.as_mut().expect("there").flags = "RBAC".into();
        assert!(is_selected(&asked, &[("verdict", "denied")]));
        for wrong in
            [("code", "6xx"), ("code", "fast"), ("code", "1000"), ("slow", "-1"), ("verdict", "good"), ("who", "x")]
        {
            assert!(FlowSelection::from_query([wrong]).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_fault_of_the_servers_has_not_failed() {
        let with = |status, grpc_status, flags: &str| RequestFlow {
            status,
            grpc_status,
            flags: flags.into(),
            ..RequestFlow::default()
        };
        for request in [with(404, None, "-"), with(0, None, "DC"), with(200, Some(5), "-"), with(403, None, "RBAC")] {
            assert!(!request.has_failed(), "{request:?}");
        }
        for request in [with(503, None, "UH"), with(0, None, "UC"), with(200, Some(13), "-")] {
            assert!(request.has_failed(), "{request:?}");
        }
    }

    #[test]
    fn a_line_is_an_event_or_a_count_of_lost_ones() {
        for line in [FlowLine::Lost { lost: 3 }, FlowLine::Event(Box::new(flow()))] {
            let text = serde_json::to_string(&line).expect("JSON");
            assert_eq!(serde_json::from_str::<FlowLine>(&text).expect("a line"), line, "{text}");
        }
    }
}
