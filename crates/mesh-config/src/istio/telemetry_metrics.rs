//! `metrics` of a Telemetry: which of Istio's standard metrics are told, and with which labels.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::telemetry::{Metric, MetricOverride, TagChange, parse_value};
use serde::Deserialize;
use serde_json::Value;

use super::Remark;
use super::telemetry::{Mode, ProviderRef, side_of};
use crate::code::Code;

/// Istio's provider of metrics that Prometheus scrapes.
const PROMETHEUS: &str = "prometheus";
/// Labels that one entry may change.
const MAX_TAGS: usize = 32;

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawMetrics {
    /// Whom metrics are told: `prometheus` scrapes them.
    providers: Option<Vec<ProviderRef>>,
    /// What is not as by default.
    #[serde(default)]
    overrides: Vec<RawOverride>,
    /// Read, and not honoured: a finding says so.
    reporting_interval: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawOverride {
    /// The metrics that it is about; without it, all.
    #[serde(rename = "match")]
    only: Option<RawMatch>,
    /// They are not told.
    disabled: Option<bool>,
    /// What becomes of labels, by their names.
    #[serde(default)]
    tag_overrides: BTreeMap<String, RawTagOverride>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawMatch {
    /// One of Istio's standard metrics.
    metric: Option<RawMetric>,
    /// Read, and not honoured: a finding says so.
    custom_metric: Option<String>,
    /// As which side.
    mode: Option<Mode>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum RawMetric {
    AllMetrics,
    RequestCount,
    RequestDuration,
    RequestSize,
    ResponseSize,
    TcpOpenedConnections,
    TcpClosedConnections,
    TcpSentBytes,
    TcpReceivedBytes,
    GrpcRequestMessages,
    GrpcResponseMessages,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawTagOverride {
    /// UPSERT, the default, or REMOVE.
    operation: Option<RawOperation>,
    /// What the label says, in CEL, such as `request.host`.
    value: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum RawOperation {
    #[serde(rename = "UPSERT")]
    Upsert,
    #[serde(rename = "REMOVE")]
    Remove,
}

impl RawMetrics {
    pub(super) fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Vec<MetricOverride> {
        let mut ignore = |name: &str, message: String| {
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{name}"), message));
        };
        if self.reporting_interval.is_some_and(|interval| !interval.is_null()) {
            ignore("reportingInterval", "connections are told of every 5 s".to_owned());
        }
        let providers = self.providers.unwrap_or_default();
        let is_ours = providers.is_empty() || providers.iter().any(|provider| provider.name == PROMETHEUS);
        for other in providers.iter().filter(|provider| provider.name != PROMETHEUS) {
            ignore("providers", format!("{PROMETHEUS:?} scrapes metrics, and {:?} is told none", other.name));
        }
        if !is_ours {
            return Vec::new();
        }
        let numbered = self.overrides.into_iter().enumerate();
        numbered.filter_map(|(index, raw)| raw.read(&format!("{field}.overrides[{index}]"), remarks)).collect()
    }
}

impl RawOverride {
    /// None where it is about nothing that is told here.
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Option<MetricOverride> {
        let mut remark = |place: String, message: String| {
            remarks.push(Remark::new(Code::FieldNotHonoured, place, message));
        };
        let (metric, custom, mode) = self.only.map_or((None, None, None), |it| (it.metric, it.custom_metric, it.mode));
        if let Some(custom) = custom.filter(|name| !name.is_empty()) {
            remark(format!("{field}.match.customMetric"), format!("there is no metric {custom:?}"));
            return None;
        }
        let metrics = match metric {
            None | Some(RawMetric::AllMetrics) => Metric::ALL.to_vec(),
            Some(RawMetric::RequestCount) => vec![Metric::RequestCount],
            Some(RawMetric::RequestDuration) => vec![Metric::RequestDuration],
            Some(RawMetric::RequestSize) => vec![Metric::RequestSize],
            Some(RawMetric::ResponseSize) => vec![Metric::ResponseSize],
            Some(_) => {
                let message = "nodes tell of connections as they are, and nobody of gRPC's single messages";
                remark(format!("{field}.match.metric"), message.to_owned());
                return None;
            }
        };
        let mut tags = BTreeMap::new();
        for (name, raw) in self.tag_overrides {
            let place = format!("{field}.tagOverrides.{name}");
            let change = match raw.change(&name) {
                _ if tags.len() >= MAX_TAGS => Err(format!("more than {MAX_TAGS} labels are not changed")),
                change => change,
            };
            match change {
                Ok(change) => drop(tags.insert(Arc::from(name), change)),
                Err(message) => remark(place, message),
            }
        }
        Some(MetricOverride { side: mode.and_then(side_of), metrics, disabled: self.disabled, tags })
    }
}

impl RawTagOverride {
    fn change(self, name: &str) -> Result<TagChange, String> {
        let letter = |c: char| c.is_ascii_alphabetic() || c == '_';
        if !name.starts_with(letter) || !name.chars().all(|c| letter(c) || c.is_ascii_digit()) || name == "le" {
            return Err("it is no name of a label".to_owned());
        }
        match (self.operation.unwrap_or(RawOperation::Upsert), self.value.filter(|value| !value.is_empty())) {
            (RawOperation::Remove, _) => Ok(TagChange::Remove),
            (RawOperation::Upsert, Some(text)) => match parse_value(&text) {
                Ok(value) => Ok(TagChange::Set(value)),
                Err(error) => Err(format!("the label is as by default: {error}")),
            },
            (RawOperation::Upsert, None) => Err("it does not say what the label says".to_owned()),
        }
    }
}
