//! How lines at standard output are written: `accessLogFormat` and `accessLogEncoding` for the provider `envoy`, and `envoyFileAccessLog` for
//! others by name.

use std::sync::Arc;

use mesh_core::l7::field_value::FieldValueError;
use mesh_core::telemetry::line_format::{ISTIOS_TEXT, LineField, Unknown};
use mesh_core::telemetry::{LineFormat, STANDARD_OUTPUT};
use serde_json::{Map, Value};

use super::super::{Flaw, Remark};
use super::defaults::STDOUT;
use super::{FIELD, MeshConfig, text};
use crate::code::Code;

/// Objects and lists within each other in a format, beyond which it is none.
const MAX_DEPTH: usize = 8;

impl MeshConfig {
    /// Takes the two fields out of all.
    pub(super) fn lines(&mut self, fields: &mut Map<String, Value>) -> Result<(), Flaw> {
        let mut take = |name: &str| {
            let value = fields.remove(name).filter(|value| !value.is_null());
            value.map(|value| text(value, &format!("{FIELD}.{name}"))).transpose()
        };
        let (encoding, format) = (take("accessLogEncoding")?, take("accessLogFormat")?.unwrap_or_default());
        let (field, mut unknown) = (format!("{FIELD}.accessLogFormat"), Unknown::new());
        let read = match (encoding.as_deref(), &*format) {
            (None | Some("JSON"), "") => None,
            (Some("TEXT"), "") => Some(LineFormat::text(ISTIOS_TEXT, &mut unknown).map_err(flaw(&field))?),
            (None | Some("TEXT"), format) => Some(LineFormat::text(format, &mut unknown).map_err(flaw(&field))?),
            (Some("JSON"), format) => Some(json(format, &field, &mut unknown)?),
            (Some(_), _) => {
                return Err(Flaw::value(format!("{FIELD}.accessLogEncoding"), "it is neither JSON nor TEXT"));
            }
        };
        tell(unknown, &field, &mut self.remarks);
        if let Some(format) = read {
            self.outputs.insert(STANDARD_OUTPUT.into(), Some(Arc::new(format)));
        }
        Ok(())
    }
}

/// How lines are written for a provider `envoyFileAccessLog`, of which none says how; none where it is another file than standard output.
pub(super) fn output(
    value: Value,
    field: &str,
    remarks: &mut Vec<Remark>,
) -> Result<Option<Option<Arc<LineFormat>>>, Flaw> {
    let Value::Object(mut fields) = value else { return Err(Flaw::value(field, "it is no mapping")) };
    let path = fields.remove("path").map(|path| text(path, &format!("{field}.path"))).transpose()?;
    let format = fields.remove("logFormat").filter(|format| !format.is_null());
    for name in fields.keys() {
        remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.{name}"), "it has no effect"));
    }
    if path.is_some_and(|path| path != STDOUT) {
        let message = "lines go to standard output, and to no other file";
        remarks.push(Remark::new(Code::FieldNotHonoured, format!("{field}.path"), message));
        return Ok(None);
    }
    let Some(format) = format else { return Ok(Some(None)) };
    let (field, mut unknown) = (format!("{field}.logFormat"), Unknown::new());
    let Value::Object(mut kinds) = format else { return Err(Flaw::value(field, "it is no mapping")) };
    let read = match (kinds.remove("text"), kinds.remove("labels"), kinds.is_empty()) {
        (Some(Value::String(text)), None, true) => {
            LineFormat::text(&text, &mut unknown).map_err(flaw(&format!("{field}.text")))?
        }
        (None, Some(Value::Object(fields)), true) => {
            LineFormat::Json(object(fields, &format!("{field}.labels"), &mut unknown, MAX_DEPTH)?)
        }
        _ => return Err(Flaw::value(field, "it has either `text`, which is a text, or `labels`, which is a mapping")),
    };
    tell(unknown, &field, remarks);
    Ok(Some(Some(Arc::new(read))))
}

fn tell(unknown: Unknown, field: &str, remarks: &mut Vec<Remark>) {
    remarks.extend(unknown.into_iter().map(|operator| {
        let message = format!("%{operator}% is not known here: there is - in its place, or null in JSON");
        Remark::new(Code::FieldNotHonoured, field, message)
    }));
}

fn flaw(field: &str) -> impl Fn(FieldValueError) -> Flaw {
    move |error| Flaw::value(field, error.to_string())
}

fn json(format: &str, field: &str, unknown: &mut Unknown) -> Result<LineFormat, Flaw> {
    match serde_json::from_str(format) {
        Ok(Value::Object(fields)) => Ok(LineFormat::Json(object(fields, field, unknown, MAX_DEPTH)?)),
        Ok(_) => Err(Flaw::value(field, "with the encoding JSON it has to be a JSON object")),
        Err(error) => Err(Flaw::value(field, format!("with the encoding JSON it has to be a JSON object: {error}"))),
    }
}

fn object(
    fields: Map<String, Value>,
    at: &str,
    unknown: &mut Unknown,
    depth: usize,
) -> Result<Vec<(Box<str>, LineField)>, Flaw> {
    let read = |(name, value): (String, Value)| {
        let read = field(value, &format!("{at}.{name}"), unknown, depth)?;
        Ok((name.into(), read))
    };
    fields.into_iter().map(read).collect()
}

fn field(value: Value, at: &str, unknown: &mut Unknown, depth: usize) -> Result<LineField, Flaw> {
    let deeper = || depth.checked_sub(1).ok_or_else(|| Flaw::value(at, "it is nested too deep"));
    Ok(match value {
        Value::String(text) => LineField::parts(&text, unknown).map_err(flaw(at))?,
        Value::Object(fields) => LineField::Object(object(fields, at, unknown, deeper()?)?),
        Value::Array(list) => {
            let depth = deeper()?;
            LineField::List(list.into_iter().map(|value| field(value, at, unknown, depth)).collect::<Result<_, _>>()?)
        }
        other => LineField::Literal(other.to_string().into()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(mesh: &str) -> Result<MeshConfig, Flaw> {
        MeshConfig::read(&json!({"data": {"mesh": mesh}}))
    }

    #[test]
    fn lines_are_as_usual_where_no_format_is_asked_for() {
        for mesh in
            ["accessLogFile: /dev/stdout", "accessLogEncoding: JSON", "accessLogFormat: ''\naccessLogEncoding: JSON"]
        {
            assert!(read(mesh).unwrap().outputs.is_empty(), "{mesh}");
        }
    }

    #[test]
    fn the_encoding_says_what_a_format_is() {
        let format = |mesh: &str| read(mesh).unwrap().outputs[STANDARD_OUTPUT].as_deref().cloned();
        let text = |text: &str| LineFormat::text(text, &mut Unknown::new()).unwrap();
        assert_eq!(format("accessLogEncoding: TEXT"), Some(text(ISTIOS_TEXT)));
        assert_eq!(format("accessLogFormat: '%DURATION%'"), Some(text("%DURATION%")));
        let fields =
            "accessLogEncoding: JSON\naccessLogFormat: '{\"a\": \"%DURATION%\", \"o\": {\"one\": 1}, \"p\": [\"%%\"]}'";
        let Some(LineFormat::Json(fields)) = format(fields) else { panic!("it is JSON") };
        let LineField::Object(inner) = &fields[1].1 else { panic!("{fields:?}") };
        assert_eq!(fields[2].1, LineField::List(vec![LineField::parts("%%", &mut Unknown::new()).unwrap()]));
        assert_eq!((&*fields[0].0, &inner[0]), ("a", &("one".into(), LineField::Literal("1".into()))));
    }

    fn file(fields: &str) -> Result<MeshConfig, Flaw> {
        read(&format!("extensionProviders: [{{name: mine, envoyFileAccessLog: {{{fields}}}}}]"))
    }

    #[test]
    fn a_provider_of_its_own_may_be_standard_output_in_a_format_of_its_own() {
        for fields in ["path: /dev/stdout", ""] {
            assert_eq!(file(fields).unwrap().outputs["mine"], None, "{fields}");
        }
        let read = file("path: /dev/stdout, logFormat: {labels: {ms: '%DURATION%'}}, omitEmptyValues: true").unwrap();
        assert!(matches!(read.outputs["mine"].as_deref(), Some(LineFormat::Json(fields)) if &*fields[0].0 == "ms"));
        assert!(read.remarks[0].field.ends_with("envoyFileAccessLog.omitEmptyValues"), "{:?}", read.remarks);
        let read = file("logFormat: {text: '%DURATION%'}").unwrap();
        assert!(matches!(read.outputs["mine"].as_deref(), Some(LineFormat::Text(_))), "{read:?}");
        let read = file("path: /var/log/all").unwrap();
        assert!(read.outputs.is_empty() && read.remarks[0].field.ends_with(".path"), "{read:?}");
        for fields in ["logFormat: {}", "logFormat: {text: '50%'}", "logFormat: {text: a, labels: {}}", "path: 7"] {
            assert!(file(fields).is_err(), "{fields}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_told_by_its_field() {
        let deep = format!("accessLogEncoding: JSON\naccessLogFormat: '{}1{}'", "{\"a\":".repeat(10), "}".repeat(10));
        for (mesh, place) in [
            ("accessLogEncoding: XML", "data.mesh.accessLogEncoding"),
            ("accessLogFormat: '50%'", "data.mesh.accessLogFormat"),
            ("accessLogEncoding: JSON\naccessLogFormat: '%DURATION%'", "data.mesh.accessLogFormat"),
            ("accessLogEncoding: JSON\naccessLogFormat: '{\"a\": \"%REQ(%\"}'", "data.mesh.accessLogFormat.a"),
            (&deep, "data.mesh.accessLogFormat.a.a.a.a.a.a.a.a.a"),
        ] {
            assert_eq!(read(mesh).unwrap_err().field, place, "{mesh}");
        }
        let remarks = read("accessLogFormat: '%TRAILER(a)%'").unwrap().remarks;
        assert!(remarks[0].message.contains("%TRAILER(a)%"), "{remarks:?}");
    }
}
