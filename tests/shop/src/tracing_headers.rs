//! The headers that an ordinary instrumented program copies from a request to the requests it makes.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header that carries the marker of a checkout; a capture can be searched for its value.
pub(crate) const MARKER: &str = "x-checkout-marker";

/// W3C trace context, B3 (single and multiple headers), Envoy's request id, and the shop's marker.
const COPIED: [&str; 11] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-parentspanid",
    "x-b3-sampled",
    "x-b3-flags",
    "x-request-id",
    MARKER,
];

/// The copied headers of one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct TracingHeaders(Vec<(&'static str, HeaderValue)>);

impl TracingHeaders {
    /// Takes the headers to copy from a request; of a repeated header, the first.
    pub(crate) fn from_request(headers: &HeaderMap) -> Self {
        let copied = COPIED.iter().filter_map(|name| Some((*name, headers.get(*name)?.clone())));
        Self(copied.collect())
    }

    /// The same headers with another marker.
    pub(crate) fn with_marker(mut self, marker: &str) -> Self {
        self.0.retain(|(name, _)| *name != MARKER);
        if let Ok(value) = HeaderValue::from_str(marker) {
            self.0.push((MARKER, value));
        }
        self
    }

    /// A header's value, where it is there and printable.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(known, _)| *known == name)?;
        value.to_str().ok()
    }

    /// The marker, empty without one.
    pub(crate) fn marker(&self) -> &str {
        self.get(MARKER).unwrap_or_default()
    }

    /// Writes the headers into a request to be sent.
    pub(crate) fn copy_to(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.insert(HeaderName::from_static(name), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_context_is_copied_and_nothing_else() {
        let mut incoming = HeaderMap::new();
        for name in ["traceparent", "b3", "cookie", "host", MARKER] {
            incoming.insert(name, HeaderValue::from_static("a"));
        }
        let mut outgoing = HeaderMap::new();
        TracingHeaders::from_request(&incoming).with_marker("m1").copy_to(&mut outgoing);
        let mut names: Vec<_> = outgoing.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["b3", "traceparent", MARKER]);
        assert_eq!(outgoing[MARKER], "m1");
    }
}
