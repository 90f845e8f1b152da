//! Collectors that are spoken to by OTLP: `envoyOtelAls` and `opentelemetry`.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::provider::OtlpCollector;
use serde_json::{Map, Value};

use super::super::{Flaw, Remark};
use super::provider::address;
use crate::code::Code;

/// Reads one of either kind.
pub(super) fn collector(value: Value, field: &str, remarks: &mut Vec<Remark>) -> Result<OtlpCollector, Flaw> {
    let Value::Object(mut fields) = value else { return Err(Flaw::value(field, "it is no mapping")) };
    let service = text(&mut fields, "service", field)?;
    let service = service.ok_or_else(|| Flaw::value(format!("{field}.service"), "it names no Service"))?;
    let address = address(&service, &fields.remove("port").unwrap_or_default(), field)?;
    let log_name = text(&mut fields, "logName", field)?.filter(|name| !name.is_empty()).map(Into::into);
    let http_path = match fields.remove("http") {
        None | Some(Value::Null) => None,
        Some(Value::Object(mut http)) => {
            let place = format!("{field}.http");
            let path = text(&mut http, "path", &place)?.unwrap_or_default();
            if !path.is_empty() && !path.starts_with('/') {
                return Err(Flaw::value(format!("{place}.path"), format!("{path:?} does not begin with a slash")));
            }
            ignore(http, &place, remarks);
            Some(Arc::from(path))
        }
        Some(_) => return Err(Flaw::value(format!("{field}.http"), "it is no mapping")),
    };
    ignore(fields, field, remarks);
    Ok(OtlpCollector { address, http_path, log_name })
}

fn text(fields: &mut Map<String, Value>, name: &str, field: &str) -> Result<Option<String>, Flaw> {
    match fields.remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Flaw::value(format!("{field}.{name}"), "it is no text")),
    }
}

fn ignore(fields: Map<String, Value>, field: &str, remarks: &mut Vec<Remark>) {
    let fields: BTreeMap<String, Value> = fields.into_iter().collect();
    for name in fields.into_keys() {
        remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{name}"), "it has no effect"));
    }
}
