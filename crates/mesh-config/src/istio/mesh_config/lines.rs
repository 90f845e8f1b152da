//! How lines at standard output are written: `accessLogFormat` and `accessLogEncoding`.

use std::sync::Arc;

use mesh_core::l7::field_value::FieldValueError;
use mesh_core::telemetry::LineFormat;
use mesh_core::telemetry::line_format::{ISTIOS_TEXT, LineField, Unknown};
use serde_json::{Map, Value};

use super::super::Flaw;
use super::{FIELD, MeshConfig, text};

/// Objects in objects, beyond which a format is none.
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
        for operator in unknown {
            self.remark(&field, &format!("%{operator}% is not known here: there is - in its place, or null in JSON"));
        }
        self.line_format = read.map(Arc::new);
        Ok(())
    }
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
    let Some(depth) = depth.checked_sub(1) else { return Err(Flaw::value(at, "it is nested too deep")) };
    let read = |(name, value): (String, Value)| {
        let at = format!("{at}.{name}");
        let read = match value {
            Value::String(text) => LineField::parts(&text, unknown).map_err(flaw(&at))?,
            Value::Object(fields) => LineField::Object(object(fields, &at, unknown, depth)?),
            other => LineField::Literal(other.to_string().into()),
        };
        Ok((name.into(), read))
    };
    fields.into_iter().map(read).collect()
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
            assert_eq!(read(mesh).unwrap().line_format, None, "{mesh}");
        }
    }

    #[test]
    fn the_encoding_says_what_a_format_is() {
        let format = |mesh: &str| read(mesh).unwrap().line_format.map(|format| (*format).clone());
        let text = |text: &str| LineFormat::text(text, &mut Unknown::new()).unwrap();
        assert_eq!(format("accessLogEncoding: TEXT"), Some(text(ISTIOS_TEXT)));
        assert_eq!(format("accessLogFormat: '%DURATION%'"), Some(text("%DURATION%")));
        let fields = "accessLogEncoding: JSON\naccessLogFormat: '{\"a\": \"%DURATION%\", \"o\": {\"one\": 1}}'";
        let Some(LineFormat::Json(fields)) = format(fields) else { panic!("it is JSON") };
        let LineField::Object(inner) = &fields[1].1 else { panic!("{fields:?}") };
        assert_eq!((&*fields[0].0, &inner[0]), ("a", &("one".into(), LineField::Literal("1".into()))));
    }

    #[test]
    fn what_cannot_be_meant_is_told_by_its_field() {
        let deep = format!("accessLogEncoding: JSON\naccessLogFormat: '{}1{}'", "{\"a\":".repeat(9), "}".repeat(9));
        for (mesh, place) in [
            ("accessLogEncoding: XML", "data.mesh.accessLogEncoding"),
            ("accessLogFormat: '50%'", "data.mesh.accessLogFormat"),
            ("accessLogEncoding: JSON\naccessLogFormat: '%DURATION%'", "data.mesh.accessLogFormat"),
            ("accessLogEncoding: JSON\naccessLogFormat: '{\"a\": \"%REQ(%\"}'", "data.mesh.accessLogFormat.a"),
            (&deep, "data.mesh.accessLogFormat.a.a.a.a.a.a.a.a"),
        ] {
            assert_eq!(read(mesh).unwrap_err().field, place, "{mesh}");
        }
        let remarks = read("accessLogFormat: '%TRAILER(a)%'").unwrap().remarks;
        assert!(remarks[0].message.contains("%TRAILER(a)%"), "{remarks:?}");
    }
}
