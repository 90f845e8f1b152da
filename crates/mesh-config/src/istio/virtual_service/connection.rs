//! Where a VirtualService sends connections: its `tls` and `tcp`.

use mesh_core::l7::{Action, Backend, RuleRef};
use serde::Deserialize;
use serde_json::Value;

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
    /// The gateways that it is for.
    pub gateways: Vec<String>,
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
    /// Read, and not honoured: a finding says so.
    destination_subnets: Option<Value>,
    /// Read, and not honoured: a finding says so.
    source_labels: Option<Value>,
    /// Read, and not honoured: a finding says so.
    source_namespace: Option<Value>,
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
            let narrows = [
                ("destinationSubnets", raw.destination_subnets.is_some()),
                ("sourceLabels", raw.source_labels.is_some()),
                ("sourceNamespace", raw.source_namespace.is_some()),
                ("sourceSubnet", raw.source_subnet.is_some()),
            ];
            if let Some((name, _)) = narrows.iter().find(|(_, given)| *given) {
                // In force without it, the match would take what it was not meant to.
                let message = "it is not honoured: the match is for no connection";
                remarks.push(Remark::new(Code::FieldNotHonoured, format!("{place}.{name}"), message));
                continue;
            }
            let servers = raw.sni_hosts.unwrap_or_default();
            let servers = servers.into_iter().map(|server| server.to_ascii_lowercase()).collect();
            let own = raw.gateways.filter(|own| !own.is_empty()).unwrap_or_else(|| gateways.to_vec());
            matches.push(ConnectionMatch { port: raw.port, servers, gateways: own });
        }
        if matches.is_empty() {
            let narrowed = format!("{field}.match");
            let for_none = remarks.last().is_some_and(|remark| remark.field.starts_with(&narrowed));
            let gateways = if for_none { Vec::new() } else { gateways.to_vec() };
            matches.push(ConnectionMatch { port: None, servers: Vec::new(), gateways });
        }
        Ok(ConnectionRule { at, matches, backends })
    }
}
