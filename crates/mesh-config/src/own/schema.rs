//! Schemas of the kinds' specs.

use schemars::{JsonSchema as _, Schema, SchemaGenerator};

use super::rate_limit_policy;

pub(crate) fn rate_limit_policy(generator: &mut SchemaGenerator) -> Schema {
    rate_limit_policy::Spec::json_schema(generator)
}
