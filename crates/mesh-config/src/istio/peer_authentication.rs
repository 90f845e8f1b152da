//! PeerAuthentication of security.istio.io.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::policy::{self, Mode};
use serde::Deserialize;
use serde_json::Value;

use super::{Age, Flaw, Remark, WorkloadSelector, decode, policy_name, selector};
use crate::code::Code;
use crate::finding::ObjectName;

/// A PeerAuthentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerAuthentication {
    /// What is enforced.
    pub policy: Arc<policy::PeerAuthentication>,
    /// When it was made.
    pub age: Age,
    /// What is worth a finding.
    pub remarks: Vec<Remark>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    /// The workloads that it is for; without it, all of the namespace.
    selector: Option<WorkloadSelector>,
    /// Whether connections have to come over mutual TLS.
    mtls: Option<MutualTls>,
    /// The same for single ports, by number.
    port_level_mtls: Option<BTreeMap<String, MutualTls>>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct MutualTls {
    /// STRICT refuses what comes without mutual TLS, PERMISSIVE takes both; UNSET asks the level above.
    mode: Option<RawMode>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum RawMode {
    #[serde(rename = "UNSET")]
    Unset,
    #[serde(rename = "DISABLE")]
    Disable,
    #[serde(rename = "PERMISSIVE")]
    Permissive,
    #[serde(rename = "STRICT")]
    Strict,
}

impl MutualTls {
    fn mode(&self, field: &str, remarks: &mut Vec<Remark>) -> Option<Mode> {
        match self.mode? {
            RawMode::Unset => None,
            RawMode::Permissive => Some(Mode::Permissive),
            RawMode::Strict => Some(Mode::Strict),
            RawMode::Disable => {
                let message = "tunnels are taken all the same, as with PERMISSIVE";
                remarks.push(Remark::new(Code::ModeNotHonoured, field, message));
                Some(Mode::Disable)
            }
        }
    }
}

impl PeerAuthentication {
    pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let spec = resource.spec.unwrap_or_default();
        let mut remarks = Vec::new();
        let mode = spec.mtls.as_ref().and_then(|mtls| mtls.mode("spec.mtls.mode", &mut remarks));
        let selector = selector(spec.selector, "spec.selector")?;
        let mut ports = BTreeMap::new();
        for (port, mtls) in spec.port_level_mtls.unwrap_or_default() {
            let field = format!("spec.portLevelMtls[{port}]");
            let number = port.parse::<u16>().ok().filter(|number| *number > 0);
            let number = number.ok_or_else(|| Flaw::value(&field, "it is no port from 1 to 65535"))?;
            ports.insert(number, mtls.mode(&format!("{field}.mode"), &mut remarks));
        }
        if selector.is_none() && !ports.is_empty() {
            let message = "ports are a workload's: name it by a selector";
            return Err(Flaw::value("spec.portLevelMtls", message));
        }
        let policy = policy::PeerAuthentication { name: policy_name(name), selector, mode, ports };
        Ok(Self { policy: Arc::new(policy), age: Age::of(&resource.metadata), remarks })
    }
}
