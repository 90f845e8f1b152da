//! Schemas of the kinds' specs.

use schemars::{JsonSchema as _, Schema, SchemaGenerator};

use super::{
    authorization_policy, destination_rule, envoy_filter, gateway, peer_authentication, request_authentication,
    service_entry, telemetry, virtual_service,
};

pub(crate) fn authorization_policy(generator: &mut SchemaGenerator) -> Schema {
    authorization_policy::Spec::json_schema(generator)
}

pub(crate) fn destination_rule(generator: &mut SchemaGenerator) -> Schema {
    destination_rule::Spec::json_schema(generator)
}

pub(crate) fn envoy_filter(generator: &mut SchemaGenerator) -> Schema {
    envoy_filter::Spec::json_schema(generator)
}

pub(crate) fn gateway(generator: &mut SchemaGenerator) -> Schema {
    gateway::Spec::json_schema(generator)
}

pub(crate) fn peer_authentication(generator: &mut SchemaGenerator) -> Schema {
    peer_authentication::Spec::json_schema(generator)
}

pub(crate) fn request_authentication(generator: &mut SchemaGenerator) -> Schema {
    request_authentication::Spec::json_schema(generator)
}

pub(crate) fn telemetry(generator: &mut SchemaGenerator) -> Schema {
    telemetry::Spec::json_schema(generator)
}

pub(crate) fn virtual_service(generator: &mut SchemaGenerator) -> Schema {
    virtual_service::Spec::json_schema(generator)
}

pub(crate) fn service_entry(generator: &mut SchemaGenerator) -> Schema {
    service_entry::Spec::json_schema(generator)
}

pub(crate) fn workload_entry(generator: &mut SchemaGenerator) -> Schema {
    service_entry::RawEndpoint::json_schema(generator)
}
