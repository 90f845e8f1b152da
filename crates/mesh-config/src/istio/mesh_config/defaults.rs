//! What the mesh configuration says of everything about which nothing nearer says it: lines, traces, retries, connections.

use std::collections::BTreeMap;

use mesh_core::l7::Percent;
use mesh_core::telemetry::{Choice, Logging, STANDARD_OUTPUT, Tracing};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::destination_rule::RawKeepalive;
use super::super::telemetry::RawTag;
use super::super::virtual_service::RawRetries;
use super::super::{Flaw, duration};
use super::{MeshConfig, text};
use crate::code::Code;
use crate::istio::Remark;

/// The standard output, as a file.
pub(super) const STDOUT: &str = "/dev/stdout";
/// The provider of metrics that is there in any case.
const PROMETHEUS: &str = "prometheus";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawProviders {
    #[serde(default)]
    access_logging: Vec<String>,
    #[serde(default)]
    tracing: Vec<String>,
    #[serde(default)]
    metrics: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTracing {
    sampling: Option<f64>,
    custom_tags: Option<BTreeMap<String, RawTag>>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl MeshConfig {
    /// Reads a field, if it is one of these.
    pub(super) fn default_of(&mut self, name: &str, value: &Value, field: &str) -> Result<bool, Flaw> {
        match name {
            "accessLogFile" => self.file(&text(value.clone(), field)?, field),
            "enableTracing" => {
                let disabled = (value == &Value::Bool(false)).then_some(true);
                self.tracing.push(Tracing { disabled, ..Tracing::default() });
            }
            "defaultProviders" => self.providers_by_default(decode(value, field)?, field),
            "defaultHttpRetryPolicy" => {
                let raw: RawRetries = decode(value, field)?;
                self.defaults.retry = Some(raw.read(field, &mut self.remarks)?);
            }
            "tcpKeepalive" => {
                let raw: RawKeepalive = decode(value, field)?;
                self.defaults.keepalive = Some(raw.read(field, &mut self.remarks)?);
            }
            "connectTimeout" => self.defaults.connect_timeout = Some(duration(&text(value.clone(), field)?, field)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// What `defaultConfig.tracing` says.
    pub(super) fn tracing(&mut self, value: &Value, field: &str) -> Result<(), Flaw> {
        let raw: RawTracing = decode(value, field)?;
        for name in raw.others.keys() {
            self.remark(&format!("{field}.{name}"), "it has no effect");
        }
        let sampling = raw.sampling.map(|percent| {
            let wrong = || Flaw::value(format!("{field}.sampling"), "it is not from 0 to 100");
            Percent::new(percent).ok_or_else(wrong)
        });
        let tag = |(name, tag): (String, RawTag)| {
            let tag = tag.read(&format!("{field}.customTags.{name}"))?;
            Ok::<_, Flaw>((name.into(), tag))
        };
        let tags = raw.custom_tags.map(|tags| tags.into_iter().map(tag).collect::<Result<_, _>>());
        self.tracing.push(Tracing { sampling: sampling.transpose()?, tags: tags.transpose()?, ..Tracing::default() });
        Ok(())
    }

    /// Lines go to standard output, or to none.
    fn file(&mut self, path: &str, field: &str) {
        if !path.is_empty() && path != STDOUT {
            return self.remark(field, "lines go to standard output, and to no other file");
        }
        let providers = vec![STANDARD_OUTPUT.into()];
        let entry = Logging { side: None, providers, disabled: path.is_empty(), choice: Choice::default() };
        // Providers that are named besides have the last word.
        self.logging.insert(0, entry);
    }

    fn providers_by_default(&mut self, raw: RawProviders, field: &str) {
        if !raw.access_logging.is_empty() {
            let providers = raw.access_logging.into_iter().map(Into::into).collect();
            let choice = Choice::default();
            self.logging.push(Logging { side: None, providers, disabled: false, choice });
        }
        if raw.tracing.len() > 1 {
            self.remark(&format!("{field}.tracing"), "spans go to the first of several");
        }
        if let Some(provider) = raw.tracing.into_iter().next() {
            self.tracing.push(Tracing { provider: Some(provider.into()), ..Tracing::default() });
        }
        if raw.metrics.iter().any(|name| name != PROMETHEUS) {
            self.remark(&format!("{field}.metrics"), "metrics are Prometheus's to read, and nobody is sent any");
        }
    }

    pub(super) fn remark(&mut self, field: &str, message: &str) {
        self.remarks.push(Remark::new(Code::FieldNotHonoured, field, message));
    }
}

fn decode<T: DeserializeOwned>(value: &Value, field: &str) -> Result<T, Flaw> {
    serde_path_to_error::deserialize(value.clone()).map_err(|error| {
        let at = error.path().to_string();
        let field = if at == "." { field.to_owned() } else { format!("{field}.{at}") };
        Flaw { code: Code::WrongField, field, message: error.inner().to_string() }
    })
}
