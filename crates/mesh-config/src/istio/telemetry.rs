//! Telemetry of telemetry.istio.io: logs and traces of requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::l7::Percent;
use mesh_core::telemetry::{Choice, Logging, Scope, Side, Tag, TelemetryPolicy, Tracing, parse};
use serde::Deserialize;
use serde_json::Value;

use super::policy_target::{TargetRef, targets};
use super::telemetry_metrics::RawMetrics;
use super::{Age, Flaw, Remark, WorkloadSelector, decode, policy_name, selector};
use crate::code::Code;
use crate::finding::ObjectName;

/// The annotation that says how many percent of those that did not fail have a line, of its entries about logs.
pub(crate) const SAMPLING: &str = "mesh.dev/access-log-sampling";

/// A Telemetry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// What is in force.
    pub policy: Arc<TelemetryPolicy>,
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
    /// The Gateway or Service whose requests it is about.
    target_ref: Option<TargetRef>,
    /// The same, several.
    target_refs: Option<Vec<TargetRef>>,
    /// Which requests are traced, and how.
    tracing: Option<Vec<RawTracing>>,
    /// Which metrics are told, and with which labels.
    metrics: Option<Vec<RawMetrics>>,
    /// Which requests are logged.
    access_logging: Option<Vec<RawLogging>>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ProviderRef {
    /// A name of the mesh configuration's `extensionProviders`, or one of Istio's own.
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Match {
    /// As which side: CLIENT for gateways, SERVER for waypoints.
    mode: Option<Mode>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) enum Mode {
    #[serde(rename = "CLIENT_AND_SERVER")]
    Both,
    #[serde(rename = "CLIENT")]
    Client,
    #[serde(rename = "SERVER")]
    Server,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawLogging {
    /// As which side.
    #[serde(rename = "match")]
    only: Option<Match>,
    /// Where lines go: `envoy` is standard output, others are collectors of the mesh configuration.
    providers: Option<Vec<ProviderRef>>,
    /// No lines.
    disabled: Option<bool>,
    /// Which requests lines are about.
    filter: Option<RawFilter>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct RawFilter {
    /// A condition in CEL, such as `response.code >= 500`.
    expression: String,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawTracing {
    /// As which side.
    #[serde(rename = "match")]
    only: Option<Match>,
    /// The collector of the mesh configuration that spans go to; without it, the one of the programs' flag.
    providers: Option<Vec<ProviderRef>>,
    /// Of traces that begin here, how many percent are recorded.
    random_sampling_percentage: Option<f64>,
    /// No spans.
    disable_span_reporting: Option<bool>,
    /// What spans are told besides, by the attribute's name.
    custom_tags: Option<BTreeMap<String, RawTag>>,
    /// Not honoured.
    enable_istio_tags: Option<bool>,
    /// Not honoured: a request's id decides nothing.
    use_request_id_for_trace_sampling: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct RawTag {
    /// A text.
    literal: Option<Literal>,
    /// A variable of the proxy's environment.
    environment: Option<Named>,
    /// A header of the request.
    header: Option<Named>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Literal {
    /// The text.
    value: String,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Named {
    /// Its name.
    name: String,
    /// The text where it is not there.
    default_value: Option<String>,
}

impl Telemetry {
    /// Whether it names what it is for, by `targetRefs`.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        matches!(self.policy.scope, Scope::Targets(_))
    }

    pub(crate) fn read(value: &Value, name: &ObjectName) -> Result<Self, Flaw> {
        let resource = decode::<Spec>(value)?;
        let age = Age::of(&resource.metadata);
        let mut spec = resource.spec.unwrap_or_default();
        let name = policy_name(name);
        let mut remarks = Vec::new();
        let scope = scope(&mut spec, &name.namespace)?;
        let sampling = sampling(resource.metadata.annotations.as_ref().and_then(|all| all.get(SAMPLING)))?;
        let mut logging = Vec::new();
        for (index, raw) in spec.access_logging.unwrap_or_default().into_iter().enumerate() {
            logging.push(raw.read(&format!("spec.accessLogging[{index}]"), sampling, &mut remarks));
        }
        if sampling.is_some() && logging.is_empty() {
            let message = "it is about the entries of spec.accessLogging, of which there is none";
            remarks.push(Remark::new(Code::FieldNotHonoured, format!("metadata.annotations[{SAMPLING:?}]"), message));
        }
        let mut tracing = Vec::new();
        for (index, raw) in spec.tracing.unwrap_or_default().into_iter().enumerate() {
            tracing.push(raw.read(&format!("spec.tracing[{index}]"), &mut remarks)?);
        }
        let mut metrics = Vec::new();
        for (index, raw) in spec.metrics.unwrap_or_default().into_iter().enumerate() {
            metrics.extend(raw.read(&format!("spec.metrics[{index}]"), &mut remarks));
        }
        Ok(Self { policy: Arc::new(TelemetryPolicy { name, scope, logging, tracing, metrics }), age, remarks })
    }
}

fn sampling(annotation: Option<&String>) -> Result<Option<Percent>, Flaw> {
    let read = |text: &String| {
        let wrong = || Flaw::value(format!("metadata.annotations[{SAMPLING:?}]"), "it is no number from 0 to 100");
        text.parse().ok().and_then(Percent::new).ok_or_else(wrong)
    };
    annotation.map(read).transpose()
}

fn scope(spec: &mut Spec, namespace: &Arc<str>) -> Result<Scope, Flaw> {
    let listed = spec.target_refs.take().unwrap_or_default();
    let given: Vec<_> = spec.target_ref.take().into_iter().chain(listed).collect();
    let selector = selector(spec.selector.take(), "spec.selector")?;
    match (given.is_empty(), selector) {
        (false, Some(_)) => Err(Flaw::value("spec.targetRefs", "it has a selector or targetRefs, not both")),
        (false, None) => Ok(Scope::Targets(targets(given, namespace)?)),
        (true, Some(selector)) => Ok(Scope::Workloads(selector)),
        (true, None) => Ok(Scope::Namespace),
    }
}

fn side(only: Option<Match>) -> Option<Side> {
    side_of(only?.mode?)
}

/// None for both.
pub(super) fn side_of(mode: Mode) -> Option<Side> {
    match mode {
        Mode::Both => None,
        Mode::Client => Some(Side::Client),
        Mode::Server => Some(Side::Server),
    }
}

impl RawLogging {
    fn read(self, field: &str, sampling: Option<Percent>, remarks: &mut Vec<Remark>) -> Logging {
        let mut filter = None;
        if let Some(RawFilter { expression }) = self.filter {
            match parse(&expression) {
                Ok(parsed) => filter = Some(parsed),
                Err(error) => {
                    let message = format!("all requests are logged: {error}");
                    remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.filter.expression"), message));
                }
            }
        }
        let providers = self.providers.unwrap_or_default().into_iter().map(|provider| provider.name.into()).collect();
        Logging {
            side: side(self.only),
            providers,
            disabled: self.disabled.unwrap_or(false),
            choice: Choice { filter, sampling },
        }
    }
}

impl RawTracing {
    fn read(self, field: &str, remarks: &mut Vec<Remark>) -> Result<Tracing, Flaw> {
        let mut ignored = |name: &str, given: bool, message: &str| {
            if given {
                remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{name}"), message));
            }
        };
        ignored("enableIstioTags", self.enable_istio_tags == Some(false), "spans tell who it was between in any case");
        let by_id = self.use_request_id_for_trace_sampling == Some(true);
        ignored("useRequestIdForTraceSampling", by_id, "the trace's own context says whether it is recorded");
        let mut providers = self.providers.unwrap_or_default().into_iter();
        let provider = providers.next().map(|provider| provider.name.into());
        ignored("providers", providers.next().is_some(), "spans go to the first of several");
        let sampling = self.random_sampling_percentage.map(|percent| {
            let wrong = || Flaw::value(format!("{field}.randomSamplingPercentage"), "it is not from 0 to 100");
            Percent::new(percent).ok_or_else(wrong)
        });
        let tags = self.custom_tags.map(|tags| {
            let read = |(name, tag): (String, RawTag)| {
                let tag = tag.read(&format!("{field}.customTags.{name}"))?;
                Ok::<_, Flaw>((name.into(), tag))
            };
            tags.into_iter().map(read).collect::<Result<_, _>>()
        });
        Ok(Tracing {
            side: side(self.only),
            provider,
            disabled: self.disable_span_reporting,
            sampling: sampling.transpose()?,
            tags: tags.transpose()?,
        })
    }
}

impl RawTag {
    pub(super) fn read(self, field: &str) -> Result<Tag, Flaw> {
        let default = |named: Option<String>| named.map(Into::into);
        match (self.literal, self.environment, self.header) {
            (Some(literal), None, None) => Ok(Tag::Literal(literal.value.into())),
            (None, Some(variable), None) => Ok(Tag::Environment(variable.name.into(), default(variable.default_value))),
            (None, None, Some(header)) => {
                Ok(Tag::Header(header.name.to_ascii_lowercase().into(), default(header.default_value)))
            }
            _ => Err(Flaw::value(field, "a tag is one of literal, environment and header")),
        }
    }
}
