//! What spans are made of.

use std::{net::SocketAddr, time::SystemTime};

use mesh_core::{SpiffeId, TraceContext, Workload};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};

use crate::Span;

/// An attribute that is a text.
#[must_use]
pub fn text(key: &str, value: &str) -> KeyValue {
    pair(key, Value::StringValue(value.to_owned()))
}

/// An attribute that is a whole number.
#[must_use]
pub fn integer(key: &str, value: i64) -> KeyValue {
    pair(key, Value::IntValue(value))
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Nanoseconds since 1970, as OTLP has moments.
pub(crate) fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A sampled span of that place in a trace, below that one, with nothing else said of it.
pub(crate) fn of_context(context: &TraceContext, parent: Option<[u8; 8]>) -> Span {
    Span {
        trace_id: context.trace_id.into(),
        span_id: context.span_id.into(),
        parent_span_id: parent.map(Vec::from).unwrap_or_default(),
        // W3C Trace Context, section 3.2.2.5: sampled.
        flags: 1,
        ..Span::default()
    }
}

/// What is known of one side of a connection or request, which is `client` or `server`.
#[must_use]
pub fn party_attributes(
    side: &str,
    address: Option<SocketAddr>,
    workload: Option<&Workload>,
    principal: Option<&SpiffeId>,
) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    if let Some(address) = address {
        attributes.push(text(&format!("{side}.address"), &address.ip().to_string()));
        attributes.push(integer(&format!("{side}.port"), address.port().into()));
    }
    attributes.extend(workload_attributes(side, workload, principal));
    attributes
}

/// The same without the address.
#[must_use]
pub fn workload_attributes(side: &str, workload: Option<&Workload>, principal: Option<&SpiffeId>) -> Vec<KeyValue> {
    let mut attributes = Vec::new();
    if let Some(workload) = workload {
        attributes.push(text(&format!("mesh.{side}.namespace"), &workload.namespace));
        attributes.push(text(&format!("mesh.{side}.workload"), &workload.workload_name));
        attributes.push(text(&format!("mesh.{side}.pod"), &workload.name));
    }
    attributes.extend(principal.map(|principal| text(&format!("mesh.{side}.principal"), principal.as_str())));
    attributes
}
