//! A line of a log, as a collector gets it.

use std::time::SystemTime;

use mesh_core::TraceContext;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, SeverityNumber},
};
use serde_json::Value as Json;

use crate::{attributes::nanoseconds, export::Record};

/// A line: one JSON object, whose fields become attributes.
#[derive(Debug)]
pub struct Line {
    /// When what it is about was over.
    pub at: SystemTime,
    /// The object.
    pub text: String,
    /// The span that it belongs to.
    pub trace: Option<TraceContext>,
}

impl Record for Line {
    type Item = LogRecord;

    fn into_item(self) -> LogRecord {
        let text = self.text.trim_end();
        let fields = match serde_json::from_str(text) {
            Ok(Json::Object(fields)) => fields,
            // What is no object is told as it is.
            _ => serde_json::Map::new(),
        };
        let attributes = fields.into_iter().filter_map(|(key, value)| {
            let value = Some(AnyValue { value: Some(attribute(value)?) });
            Some(KeyValue { key, value, ..KeyValue::default() })
        });
        let at = nanoseconds(self.at);
        LogRecord {
            time_unix_nano: at,
            observed_time_unix_nano: at,
            severity_number: SeverityNumber::Info.into(),
            severity_text: "INFO".to_owned(),
            body: Some(AnyValue { value: Some(Value::StringValue(text.to_owned())) }),
            attributes: attributes.collect(),
            trace_id: self.trace.map(|trace| trace.trace_id.into()).unwrap_or_default(),
            span_id: self.trace.map(|trace| trace.span_id.into()).unwrap_or_default(),
            flags: self.trace.map_or(0, |trace| trace.sampled.into()),
            ..LogRecord::default()
        }
    }
}

/// None of what is not there.
fn attribute(value: Json) -> Option<Value> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(value) => Value::BoolValue(value),
        Json::String(text) => Value::StringValue(text),
        Json::Number(number) => match number.as_i64() {
            Some(whole) => Value::IntValue(whole),
            None => Value::DoubleValue(number.as_f64()?),
        },
        other => Value::StringValue(other.to_string()),
    })
}
