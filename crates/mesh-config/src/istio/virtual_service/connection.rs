//! Where a VirtualService sends connections: its `tls` and `tcp`.

use std::collections::BTreeMap;

use mesh_core::l7::{Action, Backend, ClientMatch, RuleRef};
use mesh_core::policy::{IpBlock, IpBlocks, Selector};
use serde::Deserialize;
use serde_json::Value;

use super::MESH;
use super::action::{self, RawRoute};
use crate::code::Code;
use crate::istio::{Flaw, Remark};

/// A rule of connections, with hosts as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRule {
    /// Its place.
    pub at: RuleRef,
    /// Which connections it is for; all where it names none.
    pub matches: Vec<ConnectionMatch>,
    /// Where they go.
    pub backends: Vec<Backend>,
}

/// What a connection has to be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionMatch {
    /// The port that it comes in at.
    pub port: Option<u16>,
    /// The servers that its client names; any where it names none.
    pub servers: Vec<String>,
    /// Who connects; in the mesh.
    pub client: ClientMatch,
    /// The addresses of which it is for one; in the mesh.
    pub addresses: Option<IpBlocks>,
    /// The gateways that it is for.
    pub gateways: Vec<String>,
}

impl ConnectionMatch {
    /// Whether it asks for what is known in the mesh alone.
    #[must_use]
    pub fn is_of_mesh_alone(&self) -> bool {
        self.client != ClientMatch::default() || self.addresses.is_some()
    }
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawConnection {
    /// Which connections it is for; any of them.
    #[serde(default, rename = "match")]
    matches: Vec<RawConnectionMatch>,
    /// Where they go, by weight.
    #[serde(default)]
    route: Vec<RawRoute>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawConnectionMatch {
    /// The port that the connection comes in at.
    port: Option<u16>,
    /// The servers that the client names.
    sni_hosts: Option<Vec<String>>,
    /// The gateways that the match is for.
    gateways: Option<Vec<String>>,
    /// Addresses, or blocks of them, of which the client has connected to one; in the mesh.
    #[serde(default)]
    destination_subnets: Vec<String>,
    /// Labels of the client's pod; in the mesh.
    #[serde(default)]
    source_labels: BTreeMap<String, String>,
    /// The client's namespace; in the mesh.
    source_namespace: Option<String>,
    /// Read, and not honoured: a finding says so.
    source_subnet: Option<Value>,
}

impl RawConnection {
    pub(super) fn read(
        self,
        at: RuleRef,
        list: &str,
        gateways: &[String],
        remarks: &mut Vec<Remark>,
    ) -> Result<ConnectionRule, Flaw> {
        let field = format!("spec.{list}[{}]", at.index);
        let mut ignored = Vec::new();
        let Action::Forward(backends) = action::forward(self.route, &format!("{field}.route"), &mut ignored)? else {
            return Err(Flaw::value(format!("{field}.route"), "it says nothing of where connections go"));
        };
        for (index, backend) in backends.iter().enumerate() {
            if !backend.request_headers.is_empty() || !backend.response_headers.is_empty() {
                let message = "connections have no header fields";
                remarks.push(Remark::new(Code::WithoutEffect, format!("{field}.route[{index}].headers"), message));
            }
        }
        let mut matches = Vec::with_capacity(self.matches.len());
        for (index, raw) in self.matches.into_iter().enumerate() {
            let place = format!("{field}.match[{index}]");
            if raw.source_subnet.is_some() {
                // In force without it, the match would take what it was not meant to.
                let message = "it is not honoured: the match is for no connection";
                remarks.push(Remark::new(Code::FieldNotHonoured, format!("{place}.sourceSubnet"), message));
                continue;
            }
            let matched = raw.read(gateways, &place)?;
            if matched.is_of_mesh_alone() && matched.gateways.iter().any(|gateway| gateway != MESH) {
                let message = "sourceLabels, sourceNamespace and destinationSubnets are for clients in the mesh: the match is \
                               for no connection at a gateway";
                remarks.push(Remark::new(Code::FieldNotHonoured, place, message));
            }
            matches.push(matched);
        }
        if matches.is_empty() {
            let narrowed = format!("{field}.match");
            let for_none = remarks.last().is_some_and(|remark| remark.field.starts_with(&narrowed));
            let gateways = if for_none { Vec::new() } else { gateways.to_vec() };
            let (client, addresses) = Default::default();
            matches.push(ConnectionMatch { port: None, servers: Vec::new(), client, addresses, gateways });
        }
        Ok(ConnectionRule { at, matches, backends })
    }
}

impl RawConnectionMatch {
    fn read(self, gateways: &[String], place: &str) -> Result<ConnectionMatch, Flaw> {
        let servers = self.sni_hosts.unwrap_or_default();
        let block = |(index, text): (usize, &String)| {
            let field = format!("{place}.destinationSubnets[{index}]");
            text.parse::<IpBlock>().map_err(|error| Flaw::value(field, error.to_string()))
        };
        let blocks = self.destination_subnets.iter().enumerate().map(block).collect::<Result<IpBlocks, _>>()?;
        Ok(ConnectionMatch {
            port: self.port,
            servers: servers.into_iter().map(|server| server.to_ascii_lowercase()).collect(),
            client: ClientMatch {
                namespace: self.source_namespace.filter(|name| !name.is_empty()).map(Into::into),
                labels: Selector::new(self.source_labels),
            },
            addresses: (!self.destination_subnets.is_empty()).then_some(blocks),
            gateways: self.gateways.filter(|own| !own.is_empty()).unwrap_or_else(|| gateways.to_vec()),
        })
    }
}
