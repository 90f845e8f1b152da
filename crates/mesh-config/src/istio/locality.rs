//! `localityLbSetting`, of a DestinationRule and of the mesh configuration.

use std::collections::BTreeMap;

use mesh_core::locality::{Distribute, Failover, LocalityPattern, LocalitySetting, Priority};
use serde::Deserialize;

use super::Flaw;

/// Which localities are preferred.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawLocality {
    /// How traffic from somewhere is divided, in percent.
    #[serde(default)]
    distribute: Vec<RawDistribute>,
    /// Which region stands in for which, where outlier detection is asked for.
    #[serde(default)]
    failover: Vec<RawFailover>,
    /// Labels that endpoints should have in common with the client, the most important first; label=value for a value that is
    /// not the client's. It takes outlier detection.
    #[serde(default)]
    failover_priority: Vec<String>,
    /// Whether localities count at all. The default is true.
    enabled: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawDistribute {
    /// The client's locality: region/zone/subzone, * for all below.
    from: String,
    /// Shares in percent by locality; together 100.
    to: BTreeMap<String, u32>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawFailover {
    /// The client's region.
    from: String,
    /// The region that stands in for it.
    to: String,
}

impl RawLocality {
    pub(super) fn read(self, field: &str) -> Result<LocalitySetting, Flaw> {
        let fails_over = !self.failover.is_empty() || !self.failover_priority.is_empty();
        if fails_over && !self.distribute.is_empty() {
            return Err(Flaw::value(field, "distribute and failover exclude each other"));
        }
        let numbered = self.distribute.into_iter().enumerate();
        let distribute = numbered.map(|(index, raw)| raw.read(&format!("{field}.distribute[{index}]")));
        let distribute = distribute.collect::<Result<_, _>>()?;
        let numbered = self.failover.into_iter().enumerate();
        let failover = numbered.map(|(index, raw)| raw.read(&format!("{field}.failover[{index}]")));
        let failover = failover.collect::<Result<_, _>>()?;
        let numbered = self.failover_priority.iter().enumerate();
        let failover_priority = numbered.map(|(index, text)| match text.split_once('=') {
            _ if text.is_empty() || text.starts_with('=') => {
                Err(Flaw::value(format!("{field}.failoverPriority[{index}]"), "it names no label"))
            }
            Some((label, value)) => Ok(Priority { label: label.into(), value: Some(value.into()) }),
            None => Ok(Priority { label: text.as_str().into(), value: None }),
        });
        let failover_priority = failover_priority.collect::<Result<_, _>>()?;
        Ok(LocalitySetting { enabled: self.enabled.unwrap_or(true), distribute, failover, failover_priority })
    }
}

impl RawDistribute {
    fn read(self, field: &str) -> Result<Distribute, Flaw> {
        let pattern = |text: &str, place: String| LocalityPattern::parse(text).map_err(|why| Flaw::value(place, why));
        let from = pattern(&self.from, format!("{field}.from"))?;
        let sum: u64 = self.to.values().copied().map(u64::from).sum();
        if sum != 100 {
            return Err(Flaw::value(format!("{field}.to"), format!("the shares are {sum} together, not 100")));
        }
        let to = self.to.iter().map(|(text, share)| Ok((pattern(text, format!("{field}.to[{text:?}]"))?, *share)));
        Ok(Distribute { from, to: to.collect::<Result<_, _>>()? })
    }
}

impl RawFailover {
    fn read(self, field: &str) -> Result<Failover, Flaw> {
        let region = |text: &str| !text.is_empty() && !text.contains(['/', '*']);
        if let Some((name, text)) = [("from", &self.from), ("to", &self.to)].into_iter().find(|(_, text)| !region(text))
        {
            return Err(Flaw::value(format!("{field}.{name}"), format!("{text:?} is no region")));
        }
        if self.from == self.to {
            return Err(Flaw::value(field, format!("{:?} cannot stand in for itself", self.from)));
        }
        Ok(Failover { from: self.from.into(), to: self.to.into() })
    }
}
