//! Lines as the mesh configuration's `accessLogFormat` has them.

use std::{
    fmt::Write as _,
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use mesh_core::{
    l7::field_value::{AddressPart, Operator, TimeForm},
    telemetry::line_format::{LineField, LineFormat, LinePart, LineValue, TimePart},
};

use super::json::{Moment, escape};
use crate::inbound::Arrival;

/// What is known of something that has ended.
pub(crate) trait Values {
    /// Writes what a part of a format stands for; nothing where nothing is known.
    fn put(&self, value: &LineValue, hostname: &str, into: &mut String);
}

/// Writes the line of `values`.
pub(super) fn write(format: &LineFormat, values: &impl Values, hostname: &str, into: &mut String) {
    let mut line = Line { values, hostname, value: String::new(), into };
    match format {
        LineFormat::Text(parts) => line.text(parts),
        LineFormat::Json(fields) => line.object(fields),
    }
    into.push('\n');
}

/// A line that is being written.
struct Line<'a, V> {
    values: &'a V,
    hostname: &'a str,
    /// One value, before it is escaped.
    value: String,
    into: &'a mut String,
}

impl<V: Values> Line<'_, V> {
    fn take(&mut self, value: &LineValue) {
        self.value.clear();
        self.values.put(value, self.hostname, &mut self.value);
    }

    fn text(&mut self, parts: &[LinePart]) {
        for part in parts {
            match part {
                LinePart::Text(text) => self.into.push_str(text),
                LinePart::Value(value) => {
                    self.take(value);
                    // What a client sends stays one line, and no terminal takes it for a command.
                    self.into.extend(known(&self.value).chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
                }
            }
        }
    }

    fn object(&mut self, fields: &[(Box<str>, LineField)]) {
        self.into.push('{');
        for (index, (name, field)) in fields.iter().enumerate() {
            if index > 0 {
                self.into.push(',');
            }
            self.into.push('"');
            escape(name, self.into);
            self.into.push_str("\":");
            self.field(field);
        }
        self.into.push('}');
    }

    fn field(&mut self, field: &LineField) {
        match field {
            LineField::Literal(json) => self.into.push_str(json),
            LineField::Object(fields) => self.object(fields),
            LineField::Parts(parts) => self.parts(parts),
            LineField::List(all) => {
                self.into.push('[');
                for (index, field) in all.iter().enumerate() {
                    if index > 0 {
                        self.into.push(',');
                    }
                    self.field(field);
                }
                self.into.push(']');
            }
        }
    }

    fn parts(&mut self, parts: &[LinePart]) {
        if let [LinePart::Value(value)] = parts {
            self.take(value);
            if self.value.is_empty() {
                return self.into.push_str("null");
            }
            if value.is_number() {
                return self.into.push_str(&self.value);
            }
        }
        self.into.push('"');
        for part in parts {
            match part {
                LinePart::Text(text) => escape(text, self.into),
                LinePart::Value(value) => {
                    self.take(value);
                    escape(known(&self.value), self.into);
                }
            }
        }
        self.into.push('"');
    }
}

/// A value, or what stands for none.
fn known(value: &str) -> &str {
    if value.is_empty() { "-" } else { value }
}

/// Writes what an operator stands for that is about what came in, and says whether it is one.
pub(crate) fn put_of_arrival(operator: &Operator, arrival: &Arrival, hostname: &str, into: &mut String) -> bool {
    match operator {
        Operator::ClientAddress(part) => put_address(Some(arrival.client.address), *part, into),
        Operator::PeerAddress(part) => put_address(Some(arrival.client.peer), *part, into),
        Operator::LocalAddress(part) => put_address(arrival.local(), *part, into),
        Operator::ClientUris => into.push_str(arrival.client.uris().unwrap_or_default()),
        Operator::ServerName => into.push_str(arrival.target.server_name().unwrap_or_default()),
        Operator::Hostname => into.push_str(hostname),
        Operator::Protocol
        | Operator::Start(_)
        | Operator::RequestField(_)
        | Operator::ResponseField(_)
        | Operator::Status
        | Operator::Endpoint => return false,
    }
    true
}

/// Writes an address, or its part.
pub(crate) fn put_address(address: Option<SocketAddr>, part: AddressPart, into: &mut String) {
    let Some(address) = address else { return };
    match part {
        AddressPart::Whole => put(address, into),
        AddressPart::Address => put(address.ip(), into),
        AddressPart::Port => put(address.port(), into),
    }
}

/// Writes a moment as an operator without a form of its own has it, or one that headers know.
pub(crate) fn put_start(at: SystemTime, form: TimeForm, into: &mut String) {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    match form {
        TimeForm::Rfc3339 => put(Moment(at), into),
        TimeForm::Seconds => put(since.as_secs(), into),
        TimeForm::Milliseconds => put(format_args!("{}.{:03}", since.as_secs(), since.subsec_millis()), into),
    }
}

/// Writes a moment in UTC by the parts of a form.
pub(super) fn moment(at: SystemTime, parts: &[TimePart], into: &mut String) {
    let time = time::OffsetDateTime::from(at);
    for part in parts {
        match part {
            TimePart::Text(text) => into.push_str(text),
            TimePart::Year => put(format_args!("{:04}", time.year()), into),
            TimePart::Month => put(format_args!("{:02}", u8::from(time.month())), into),
            TimePart::Day => put(format_args!("{:02}", time.day()), into),
            TimePart::Hour => put(format_args!("{:02}", time.hour()), into),
            TimePart::Minute => put(format_args!("{:02}", time.minute()), into),
            TimePart::Second => put(format_args!("{:02}", time.second()), into),
            TimePart::Fraction(digits) => {
                let all = format!("{:09}", time.nanosecond());
                into.push_str(all.get(..usize::from(*digits)).unwrap_or(&all));
            }
            TimePart::Epoch => put(time.unix_timestamp(), into),
            TimePart::MonthName => into.extend(time.month().to_string().chars().take(3)),
            TimePart::Offset => into.push_str("+0000"),
            TimePart::Zone => into.push_str("UTC"),
        }
    }
}

/// Writes what can be shown.
pub(super) fn put(value: impl std::fmt::Display, into: &mut String) {
    let written = write!(into, "{value}");
    // A String takes everything.
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_core::telemetry::line_format::Unknown;

    use super::*;

    /// Knows of everything the same, but of what is not known anywhere.
    struct All(&'static str);

    impl Values for All {
        fn put(&self, value: &LineValue, hostname: &str, into: &mut String) {
            match value {
                LineValue::Nothing => {}
                LineValue::Duration => into.push('7'),
                LineValue::Operator(Operator::Hostname) => into.push_str(hostname),
                LineValue::Start(parts) => {
                    moment(SystemTime::UNIX_EPOCH + Duration::from_millis(1_582_934_400_007), parts, into);
                }
                _ => into.push_str(self.0),
            }
        }
    }

    fn written(format: &LineFormat, value: &'static str) -> String {
        let mut line = String::new();
        write(format, &All(value), "host", &mut line);
        line
    }

    fn text(format: &str) -> LineFormat {
        LineFormat::text(format, &mut Unknown::new()).expect("a format")
    }

    #[test]
    fn text_has_a_dash_for_what_is_not_known_and_stays_one_line() {
        let line = written(&text("%HOSTNAME% %DURATION%ms \"%REQ(A)%\" %UPSTREAM_LOCAL_ADDRESS%"), "a\n\u{9b}b");
        assert_eq!(line, "host 7ms \"a\u{fffd}\u{fffd}b\" -\n");
    }

    #[test]
    fn moments_are_written_by_their_form() {
        let line = written(&text("%START_TIME(%Y-%m-%dT%H:%M:%S.%3f%z %b %Z %s %f %1f %%)%"), "");
        assert_eq!(line, "2020-02-29T00:00:00.007+0000 Feb UTC 1582934400 007000000 0 %\n");
    }

    #[test]
    fn json_keeps_types_and_has_null_for_what_is_not_known() {
        let parts = |text| LineField::parts(text, &mut Unknown::new()).expect("a value");
        let fields = vec![
            ("a\"b".into(), parts("%REQ(A)%")),
            ("ms".into(), parts("%DURATION%")),
            ("took".into(), parts("%DURATION%ms, %UPSTREAM_LOCAL_ADDRESS%")),
            ("none".into(), parts("%UPSTREAM_LOCAL_ADDRESS%")),
            ("empty".into(), parts("")),
            ("all".into(), LineField::List(vec![parts("%DURATION%"), parts("%HOSTNAME%!")])),
            ("in".into(), LineField::Object(vec![("one".into(), LineField::Literal("1".into()))])),
        ];
        let line = written(&LineFormat::Json(fields), "x\"\n");
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        let expected = serde_json::json!({
            "a\"b": "x\"\n", "ms": 7, "took": "7ms, -", "none": null, "empty": "", "all": [7, "host!"], "in": {"one": 1},
        });
        assert_eq!(read, expected);
    }
}
