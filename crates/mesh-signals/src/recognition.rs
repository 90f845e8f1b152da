//! What a client speaks, by its first bytes.

/// What every client of HTTP/2 sends first (RFC 9113, section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest method that is taken for one; those of the IANA registry have up to 17 letters.
const MAX_METHOD: usize = 20;

/// What it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Http1,
    Http2,
    Other,
}

/// The first bytes, until they say enough.
#[derive(Debug, Default)]
pub(crate) struct Recognition {
    held: Vec<u8>,
}

impl Recognition {
    /// What it is, once that shows. Until then the bytes are held.
    pub(crate) fn show(&mut self, bytes: &[u8]) -> Option<Kind> {
        let room = PREFACE.len() - self.held.len();
        let seen = if self.held.is_empty() {
            kind(bytes)
        } else {
            let more = &bytes[..bytes.len().min(room)];
            kind(&[&self.held, more].concat())
        };
        if seen.is_none() {
            // Less than a preface or a method: more would have been decided on.
            self.held.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        seen
    }

    /// What was held.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

/// Whether bytes begin as a request of HTTP/1 does.
pub(crate) fn begins_http1(bytes: &[u8]) -> bool {
    kind(bytes) == Some(Kind::Http1)
}

/// Whether bytes begin as a server of HTTP/2 does: with the header of a SETTINGS frame (RFC 9113, sections 3.4 and 6.5).
pub(crate) fn begins_http2_of_server(bytes: &[u8]) -> bool {
    matches!(bytes, [0, _, _, 4, 0, 0, 0, 0, 0, ..])
}

fn kind(first: &[u8]) -> Option<Kind> {
    let compared = first.len().min(PREFACE.len());
    if first[..compared] == PREFACE[..compared] && compared > 0 {
        return (compared == PREFACE.len()).then_some(Kind::Http2);
    }
    let letters = first.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    match first.get(letters) {
        Some(b' ') if (1..=MAX_METHOD).contains(&letters) => Some(Kind::Http1),
        None if letters <= MAX_METHOD => None,
        _ => Some(Kind::Other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_say_what_is_spoken() {
        let cases: [(&[u8], Option<Kind>); 9] = [
            (b"", None),
            (b"G", None),
            (b"GET ", Some(Kind::Http1)),
            (b"PRI * HTTP/2.0\r\n", None),
            (PREFACE, Some(Kind::Http2)),
            (b"PRIVATE /", Some(Kind::Http1)),
            (b"\x16\x03\x01", Some(Kind::Other)),
            (b"get / HTTP/1.1", Some(Kind::Other)),
            (b"ABCDEFGHIJKLMNOPQRSTUVW", Some(Kind::Other)),
        ];
        for (first, expected) in cases {
            assert_eq!(Recognition::default().show(first), expected, "{first:?}");
        }
    }

    #[test]
    fn bytes_may_come_one_by_one() {
        let mut recognition = Recognition::default();
        let (last, first) = PREFACE.split_last().expect("a preface");
        for byte in first {
            assert_eq!(recognition.show(&[*byte]), None);
        }
        assert_eq!(recognition.show(&[*last]), Some(Kind::Http2));
        assert_eq!(recognition.take(), first);
    }
}
