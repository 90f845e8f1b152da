//! Istio's `localityLbSetting`.

use std::fmt;
use std::sync::Arc;

use super::Locality;

/// Which localities are preferred, by a DestinationRule or by the mesh configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalitySetting {
    /// Whether anything of it counts.
    pub enabled: bool,
    /// How traffic from somewhere is divided. The first that is about the client counts.
    pub distribute: Vec<Distribute>,
    /// Which region stands in for which.
    pub failover: Vec<Failover>,
    /// Labels that endpoints have in common with the client, the most important first; none for regions, zones and sub-zones.
    pub failover_priority: Vec<Priority>,
}

/// Istio's default: near endpoints come first where outlier detection is asked for.
impl Default for LocalitySetting {
    fn default() -> Self {
        Self { enabled: true, distribute: Vec::new(), failover: Vec::new(), failover_priority: Vec::new() }
    }
}

/// How traffic from somewhere is divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribute {
    /// Where it comes from.
    pub from: LocalityPattern,
    /// Where it goes, with each one's share in percent.
    pub to: Vec<(LocalityPattern, u32)>,
}

/// A region that stands in for another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failover {
    /// The client's region.
    pub from: Arc<str>,
    /// The region that comes before all others but its own.
    pub to: Arc<str>,
}

/// A label whose value endpoints should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Priority {
    /// The label.
    pub label: Arc<str>,
    /// The value; the client's own where none is given.
    pub value: Option<Arc<str>>,
}

/// Localities: one, or all below one, as in `region/zone/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalityPattern {
    text: Arc<str>,
    parts: Locality,
}

impl LocalityPattern {
    /// Reads one: up to three parts, `*` for any.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let all: Vec<&str> = text.split('/').collect();
        if all.len() > 3 || all.iter().any(|part| part.is_empty()) {
            return Err(format!("{text:?} is no locality: it is region, region/zone or region/zone/subzone"));
        }
        if let Some(star) = all.iter().position(|part| part.contains('*'))
            && (star + 1 < all.len() || all[star] != "*")
        {
            return Err(format!("{text:?} is no locality: * stands for all of its last part"));
        }
        Ok(Self { text: text.into(), parts: Locality::parse(text) })
    }

    /// Whether that locality is one of them.
    #[must_use]
    pub fn matches(&self, locality: &Locality) -> bool {
        let pairs = [
            (&self.parts.region, &locality.region),
            (&self.parts.zone, &locality.zone),
            (&self.parts.subzone, &locality.subzone),
        ];
        // After `*` there is nothing, and nothing stands for all.
        pairs.into_iter().all(|(asked, own)| matches!(&**asked, "" | "*") || asked == own)
    }
}

impl fmt::Display for LocalityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
