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

    /// What is shown as text; `null` where there is none.
    pub(super) fn shown(&mut self, key: &str, value: Option<impl fmt::Display>) {
        self.key(key);
        let Some(value) = value else { return self.0.push_str("null") };
        self.0.push('"');
        let written = write!(Escaped(self.0), "{value}");
        // A String takes everything.
        debug_assert!(written.is_ok());
        self.0.push('"');
    }

    /// A whole number.
    pub(super) fn number(&mut self, key: &str, value: impl Into<u64>) {
        self.key(key);
        self.0.push_str(itoa::Buffer::new().format(value.into()));
    }

    /// Fields that were written before, by [`fields`].
    pub(super) fn written(&mut self, fields: &str) {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        self.0.push_str(fields);
    }

    /// Ends it, and the line.
    pub(super) fn end(self) {
        self.0.push_str("}\n");
    }
}

/// Fields of text for an object that is yet to be written.
pub(super) fn fields<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut text = String::new();
    let mut object = Object::begin(&mut text);
    for (key, value) in all {
        object.text(key, Some(value));
    }
    text.split_off('{'.len_utf8())
}

/// Escapes what is written.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(text, self.0);
        Ok(())
    }
}

/// Most texts have nothing to escape: what lies between is taken as a whole. Beside what JSON wants escaped, that is what terminals
/// take for commands: DEL, and the controls of C1, which are an octet 0xc2 and one below 0xa0.
pub(super) fn escape(text: &str, into: &mut String) {
    let mut rest = text;
    while let Some((at, length, value)) = first_special(rest.as_bytes()) {
        // It begins and ends at a character's border.
        into.push_str(&rest[..at]);
        rest = &rest[at + length..];
        match value {
            b'"' => into.push_str("\\\""),
            b'\\' => into.push_str("\\\\"),
            b'\n' => into.push_str("\\n"),
            b'\r' => into.push_str("\\r"),
            b'\t' => into.push_str("\\t"),
            _ => {
                let written = write!(into, "\\u{value:04x}");
                debug_assert!(written.is_ok());
            }
        }
    }
    into.push_str(rest);
}

/// Where the first character is that is escaped, its octets, and its number.
fn first_special(octets: &[u8]) -> Option<(usize, usize, u8)> {
    octets.iter().enumerate().find_map(|(at, octet)| match (octet, octets.get(at + 1)) {
        (b'"' | b'\\' | ..b' ' | 0x7f, _) => Some((at, 1, *octet)),
        (0xc2, Some(next @ ..0xa0)) => Some((at, 2, *next)),
        _ => None,
    })
}

/// A moment as Envoy writes it: RFC 3339 with milliseconds, in UTC.
pub(super) struct Moment(pub(super) SystemTime);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = time::OffsetDateTime::from(self.0);
        let (hour, minute, second) = at.to_hms();
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let mut put = |place: std::ops::Range<usize>, mut value: u32| {
            for digit in text[place].iter_mut().rev() {
                *digit = b'0' + (value % 10) as u8;
                value /= 10;
            }
        };
        // Clocks that are wrong by millennia show four digits of it.
        put(0..4, at.year().unsigned_abs());
        put(5..7, u8::from(at.month()).into());
        put(8..10, at.day().into());
        put(11..13, hour.into());
        put(14..16, minute.into());
        put(17..19, second.into());
        put(20..23, at.millisecond().into());
        f.write_str(str::from_utf8(&text).map_err(|_| fmt::Error)?)
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
        object.text("path", Some("/a\"b\\c\nd\u{1}é\u{9b}\u{a0}\u{7f}\",\"x\":\"y"));
        object.text("none", None);
        object.number("code", 200_u16);
        object.end();
        assert_eq!(line.matches('\n').count(), 1);
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["path"], "/a\"b\\c\nd\u{1}é\u{9b}\u{a0}\u{7f}\",\"x\":\"y");
        assert!(!line.trim_end().chars().any(char::is_control), "{line:?}");
        assert_eq!((&read["none"], &read["code"]), (&serde_json::Value::Null, &200.into()));
    }

    #[test]
    fn moments_are_written_in_utc_with_milliseconds() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_582_934_400_007);
        assert_eq!(Moment(at).to_string(), "2020-02-29T00:00:00.007Z");
    }
}
