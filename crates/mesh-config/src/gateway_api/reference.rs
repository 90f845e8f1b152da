//! References to other objects.

use mesh_core::l7::{Backend, BackendTarget};
use serde::Deserialize;

use super::filters::{Edits, RawFilter};
use crate::istio::{Flaw, Remark};

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawParentRef {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    section_name: Option<String>,
    port: Option<u16>,
}

/// What a route attaches itself to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// A Service: the route is for what clients in the mesh send to it.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The port by number.
        port: Option<u16>,
        /// The port by name (`sectionName`).
        port_name: Option<String>,
    },
    /// A ServiceEntry: the route is for what clients in the mesh send to its hosts.
    ServiceEntry {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The port by number.
        port: Option<u16>,
        /// The port by name (`sectionName`).
        port_name: Option<String>,
    },
    /// Listeners of a Gateway.
    Listeners(ListenersRef),
    /// Something else, which is not read.
    Other(String),
}

/// What has listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenersOf {
    /// A Gateway. Those of its sets are not meant with it.
    Gateway,
    /// A ListenerSet.
    ListenerSet,
}

impl ListenersOf {
    /// The kind's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
        }
    }
}

/// All listeners of an object, or some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenersRef {
    /// What the object is.
    pub of: ListenersOf,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The listener's name; none for all.
    pub listener: Option<String>,
    /// The listener's port; none for all.
    pub port: Option<u16>,
}

impl RawParentRef {
    pub(super) fn read(self, namespace: &str) -> Parent {
        let group = self.group.unwrap_or_else(|| "gateway.networking.k8s.io".to_owned());
        let kind = self.kind.unwrap_or_else(|| "Gateway".to_owned());
        let namespace = self.namespace.unwrap_or_else(|| namespace.to_owned());
        let name = self.name;
        match (group.as_str(), kind.as_str()) {
            ("" | "core", "Service") => {
                Parent::Service { namespace, name, port: self.port, port_name: self.section_name }
            }
            ("networking.istio.io", "ServiceEntry") => {
                Parent::ServiceEntry { namespace, name, port: self.port, port_name: self.section_name }
            }
            ("gateway.networking.k8s.io", "Gateway" | "ListenerSet") => {
                let of = if kind == "Gateway" { ListenersOf::Gateway } else { ListenersOf::ListenerSet };
                Parent::Listeners(ListenersRef { of, namespace, name, listener: self.section_name, port: self.port })
            }
            _ => Parent::Other(format!("{kind} of {group:?}")),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBackendRef {
    group: Option<String>,
    kind: Option<String>,
    namespace: Option<String>,
    name: String,
    port: Option<u16>,
    weight: Option<u32>,
    #[serde(default)]
    filters: Vec<RawFilter>,
}

/// Somewhere that requests go, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendRef {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// Whether the name is a host's instead (kind `Hostname`), of whatever namespace.
    pub is_host: bool,
    /// Its port.
    pub port: Option<u16>,
    /// Why it is nothing that requests can go to, whatever there is.
    pub impossible: Option<String>,
}

impl RawBackendRef {
    pub(super) fn has_filters(&self) -> bool {
        !self.filters.is_empty()
    }

    /// The reference, and a backend whose target is to be found by it.
    pub(super) fn read(
        self,
        namespace: &str,
        field: &str,
        remarks: &mut Vec<Remark>,
    ) -> Result<(BackendRef, Backend), Flaw> {
        let (group, kind) = (self.group.unwrap_or_default(), self.kind.unwrap_or_else(|| "Service".to_owned()));
        let is_host = group == "networking.istio.io" && kind == "Hostname";
        let impossible = (!is_host && (!group.is_empty() || kind != "Service"))
            .then(|| format!("{kind} of {group:?} is nothing to send requests to"));
        let mut edits = Edits::default();
        for (index, filter) in self.filters.into_iter().enumerate() {
            filter.read(&format!("{field}.filters[{index}]"), namespace, &mut edits, remarks)?;
        }
        if edits.redirect.is_some() || edits.unusable || !edits.mirrors.is_empty() || edits.cors.is_some() {
            return Err(Flaw::value(
                format!("{field}.filters"),
                "a backend's filters change headers and paths, nothing else",
            ));
        }
        let reference = BackendRef {
            namespace: self.namespace.unwrap_or_else(|| namespace.to_owned()),
            name: self.name,
            is_host,
            port: self.port,
            impossible,
        };
        let backend = Backend {
            target: BackendTarget::Unresolved { status: 500, reason: "".into() },
            weight: self.weight.unwrap_or(1),
            request_headers: edits.request,
            response_headers: edits.response,
            rewrite: edits.rewrite,
        };
        Ok((reference, backend))
    }
}
