//! One JSON object on one line (RFC 8259), written without anything between.

use std::{
    fmt::{self, Write as _},
    time::SystemTime,
};

/// An object that is being written.
pub(super) struct Object<'a>(&'a mut String);

impl<'a> Object<'a> {
    /// Begins one.
    pub(super) fn begin(into: &'a mut String) -> Self {
        into.push('{');
        Self(into)
    }

    fn key(&mut self, key: &str) {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(key);
        self.0.push_str("\":");
    }

    /// A text; `null` where there is none.
    pub(super) fn text(&mut self, key: &str, value: Option<&str>) {
        self.key(key);
        match value {
            None => self.0.push_str("null"),
            Some(value) => {
                self.0.push('"');
                escape(value, self.0);
                self.0.push('"');
            }
        }
    }

    /// What is shown as text without anything to escape: addresses, names of routes.
    pub(super) fn shown(&mut self, key: &str, value: Option<impl fmt::Display>) {
        self.key(key);
        let written = match value {
            None => self.0.write_str("null"),
            Some(value) => write!(self.0, "\"{value}\""),
        };
        // A String takes everything.
        debug_assert!(written.is_ok());
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &str, value: impl Into<u64>) {
        self.key(key);
        let written = write!(self.0, "{}", value.into());
        debug_assert!(written.is_ok());
    }

    /// Ends it, and the line.
    pub(super) fn end(self) {
        self.0.push_str("}\n");
    }
}

fn escape(text: &str, into: &mut String) {
    for c in text.chars() {
        match c {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            '\t' => into.push_str("\\t"),
            c if c < ' ' || c == '\u{7f}' => {
                let written = write!(into, "\\u{:04x}", u32::from(c));
                debug_assert!(written.is_ok());
            }
            c => into.push(c),
        }
    }
}

/// A moment as Envoy writes it: RFC 3339 with milliseconds, in UTC.
pub(super) struct Moment(pub(super) SystemTime);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = time::OffsetDateTime::from(self.0);
        let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
        let (hour, minute, second) = at.to_hms();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", at.millisecond())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whatever_a_client_sends_stays_one_line_and_one_text() {
        let mut line = String::new();
        let mut object = Object::begin(&mut line);
        object.text("path", Some("/a\"b\\c\nd\u{1}é\",\"x\":\"y"));
        object.text("none", None);
        object.number("code", 200_u16);
        object.end();
        assert_eq!(line.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["path"], "/a\"b\\c\nd\u{1}é\",\"x\":\"y");
        assert_eq!((&read["none"], &read["code"]), (&serde_json::Value::Null, &200.into()));
    }

    #[test]
    fn moments_are_written_in_utc_with_milliseconds() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_582_934_400_007);
        assert_eq!(Moment(at).to_string(), "2020-02-29T00:00:00.007Z");
    }
}
