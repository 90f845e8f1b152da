//! Where a redirected client is sent.

use super::RequestView;
use super::matching::PathMatch;
use super::rule::{Redirect, RedirectPort};

impl Redirect {
    /// The absolute reference for the field `Location` (RFC 9110, section 10.2.2), of a request whose path `matched` found.
    /// Its query is kept.
    #[must_use]
    pub fn location(&self, request: &dyn RequestView, matched: &PathMatch) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(request.scheme());
        let host = self.host.as_deref().unwrap_or(request.host());
        let port = match self.port {
            RedirectPort::Number(port) => Some(port),
            RedirectPort::Requested => Some(request.port()),
            RedirectPort::OfScheme => None,
            // HTTPRequestRedirectFilter, port: that of the scheme where a scheme is given, else the listener's.
            RedirectPort::Derived if self.scheme.is_some() => None,
            RedirectPort::Derived => Some(request.port()),
        };
        let well_known = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        let port = port.filter(|port| Some(*port) != well_known).map_or_else(String::new, |port| format!(":{port}"));
        let path =
            self.path.as_ref().map_or_else(|| request.path().to_owned(), |path| path.apply(request.path(), matched));
        let query = match request.query() {
            // A path that is written with a query brings its own.
            Some(query) if !path.contains('?') => format!("?{query}"),
            _ => String::new(),
        };
        format!("{scheme}://{host}{port}{path}{query}")
    }
}
