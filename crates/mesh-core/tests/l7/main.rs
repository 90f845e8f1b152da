//! Routes: which rule a request belongs to, and what its parts do.

mod answers;
mod precedence;
mod rewrite;
mod split;

use std::borrow::Cow;

use mesh_core::Workload;
use mesh_core::l7::RequestView;

/// A request in memory.
#[derive(Debug, Clone)]
struct Request {
    method: &'static str,
    host: &'static str,
    port: u16,
    path: String,
    query: Option<&'static str>,
    headers: Vec<(&'static str, &'static str)>,
}

impl Request {
    fn get(path: impl Into<String>) -> Self {
        Self { method: "GET", host: "cart", port: 80, path: path.into(), query: None, headers: Vec::new() }
    }
}

impl RequestView for Request {
    fn method(&self) -> &str {
        self.method
    }

    fn scheme(&self) -> &str {
        "http"
    }

    fn host(&self) -> &str {
        self.host
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> Option<&str> {
        self.query
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let values: Vec<_> = self.headers.iter().filter(|(known, _)| *known == name).map(|(_, value)| *value).collect();
        (!values.is_empty()).then(|| Cow::Owned(values.join(",")))
    }

    fn client(&self) -> Option<&Workload> {
        None
    }
}
