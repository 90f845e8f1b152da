//! Who may send which request: policies that read it, and paths whatever way they are written.
#![allow(clippy::unwrap_used)]

mod authorizers;
mod disguise;
mod path;
mod policies;

use std::borrow::Cow;

use mesh_core::l7::RequestView;
use mesh_core::l7::path::normalised;
use mesh_core::policy::{Facts, Peer};
use mesh_core::{SpiffeId, Workload};

/// A connection of a pod that has proven who it is.
fn connection_of(identity: &SpiffeId) -> Facts<'_> {
    Facts {
        peer: Peer::Certificate(identity),
        client: "10.0.0.1".parse().unwrap(),
        forwarded: None,
        server: None,
        destination: "10.96.0.1:80".parse().unwrap(),
    }
}

/// A request in memory.
#[derive(Debug, Clone)]
struct Request {
    method: &'static str,
    host: &'static str,
    path: String,
    headers: Vec<(&'static str, &'static str)>,
}

impl Request {
    /// A request for a path, which is put in normal form.
    fn get(path: &str) -> Self {
        Self { method: "GET", host: "cart.shop", path: normalised(path).unwrap().into_owned(), headers: Vec::new() }
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
        8080
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> Option<&str> {
        None
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| Cow::Borrowed(*value))
    }

    fn client(&self) -> Option<&Workload> {
        None
    }
}
