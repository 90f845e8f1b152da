//! Cross-origin requests of a rule.

use mesh_core::l7::TextMatch;
use mesh_core::l7::rule::Cors;
use serde::Deserialize;

use super::super::Flaw;
use super::super::duration::duration;
use super::matching::RawText;

#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawCors {
    /// Origins that may ask; allowOrigins is its newer form.
    #[serde(default)]
    allow_origin: Vec<String>,
    /// Origins that may ask.
    #[serde(default)]
    allow_origins: Vec<RawText>,
    /// Methods that they may use.
    #[serde(default)]
    allow_methods: Vec<String>,
    /// Header fields that they may send.
    #[serde(default)]
    allow_headers: Vec<String>,
    /// Header fields of responses that they may read.
    #[serde(default)]
    expose_headers: Vec<String>,
    /// How long a browser may remember this, such as 24h.
    max_age: Option<String>,
    /// Whether they may send credentials.
    #[serde(default)]
    allow_credentials: bool,
    /// What becomes of preflights of other origins.
    unmatched_preflights: Option<RawUnmatched>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum RawUnmatched {
    #[serde(rename = "UNSPECIFIED")]
    Unspecified,
    #[serde(rename = "FORWARD")]
    Forward,
    #[serde(rename = "IGNORE")]
    Ignore,
}

impl RawCors {
    pub(super) fn read(self, field: &str) -> Result<Cors, Flaw> {
        let mut allow_origins = Vec::new();
        for origin in self.allow_origin {
            let any = origin == "*";
            allow_origins.push(if any { TextMatch::Present } else { TextMatch::Exact(origin.into()) });
        }
        for (index, origin) in self.allow_origins.into_iter().enumerate() {
            let origin = origin.read(&format!("{field}.allowOrigins[{index}]"))?;
            allow_origins.push(match origin {
                Some(TextMatch::Exact(text)) if *text == *"*" => TextMatch::Present,
                other => other.unwrap_or(TextMatch::Present),
            });
        }
        let max_age = self.max_age.map(|age| duration(&age, format!("{field}.maxAge"))).transpose()?;
        let texts = |texts: Vec<String>| texts.into_iter().map(Into::into).collect();
        Ok(Cors {
            allow_origins,
            allow_methods: texts(self.allow_methods),
            allow_headers: texts(self.allow_headers),
            expose_headers: texts(self.expose_headers),
            max_age,
            allow_credentials: self.allow_credentials,
            forward_unmatched_preflights: self.unmatched_preflights != Some(RawUnmatched::Ignore),
        })
    }
}
