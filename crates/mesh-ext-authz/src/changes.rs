//! What an authorizer changes of a request that it allows, and of the response to it.

use ::http::HeaderMap;
use ::http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, Entry, HOST, HeaderName, HeaderValue, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use ::http::uri::PathAndQuery;

use crate::Malformed;

/// Changes of one answer at most.
const MAX_CHANGES: usize = 256;

/// How a field is written beside what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// As one more line.
    Append,
    /// In the place of what is there.
    Set,
    /// Only where nothing is there.
    AddIfAbsent,
    /// Only in the place of something.
    SetIfPresent,
}

/// A field to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    name: HeaderName,
    value: HeaderValue,
    how: How,
}

/// Changes, none of which touches how a message is framed or to which host it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub(crate) request: Vec<Field>,
    pub(crate) removed: Vec<HeaderName>,
    pub(crate) response: Vec<Field>,
    pub(crate) query_set: Vec<(String, String)>,
    pub(crate) query_removed: Vec<String>,
}

impl Field {
    /// A field that may be written; none where it is the connection's own, which is no authorizer's business.
    pub(crate) fn read(name: &str, value: &[u8], how: How) -> Result<Option<Self>, Malformed> {
        let unwritable = || Malformed::Header(name.chars().take(64).collect());
        if name.starts_with(':') {
            return Ok(None);
        }
        let value = HeaderValue::from_bytes(value).map_err(|_| unwritable())?;
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unwritable())?;
        Ok(is_writable(&name).then_some(Self { name, value, how }))
    }

    pub(crate) fn new(name: &HeaderName, value: &HeaderValue, how: How) -> Self {
        Self { name: name.clone(), value: value.clone(), how }
    }

    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        // More fields than a map holds are left out; the limits on messages are far below that.
        match self.how {
            How::Append => drop(headers.try_append(&self.name, self.value.clone())),
            How::Set => drop(headers.try_insert(&self.name, self.value.clone())),
            How::AddIfAbsent => {
                if let Ok(Entry::Vacant(vacant)) = headers.try_entry(&self.name) {
                    drop(vacant.try_insert(self.value.clone()));
                }
            }
            How::SetIfPresent => {
                if headers.contains_key(&self.name) {
                    drop(headers.try_insert(&self.name, self.value.clone()));
                }
            }
        }
    }
}

/// Whether a field is neither of one hop, nor about the body's length, nor the host.
pub(crate) fn is_writable(name: &HeaderName) -> bool {
    const FRAMING: [HeaderName; 8] =
        [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
    !FRAMING.contains(name) && !matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

impl Changes {
    pub(crate) fn check(self) -> Result<Self, Malformed> {
        let count = [self.request.len(), self.removed.len(), self.response.len()].into_iter().sum::<usize>()
            + self.query_set.len()
            + self.query_removed.len();
        if count > MAX_CHANGES { Err(Malformed::TooMany) } else { Ok(self) }
    }

    /// Changes the request's fields: what is removed is removed first.
    pub fn write_request(&self, headers: &mut HeaderMap) {
        for name in &self.removed {
            headers.remove(name);
        }
        self.request.iter().for_each(|field| field.write(headers));
    }

    /// Whether the response gets further fields.
    #[must_use]
    pub fn changes_response(&self) -> bool {
        !self.response.is_empty()
    }

    /// Adds the response's fields.
    pub fn write_response(&self, headers: &mut HeaderMap) {
        self.response.iter().for_each(|field| field.write(headers));
    }

    /// The request's target with its query changed; none where that stays as it is, or would be none.
    #[must_use]
    pub fn write_target(&self, target: &PathAndQuery) -> Option<PathAndQuery> {
        if self.query_set.is_empty() && self.query_removed.is_empty() {
            return None;
        }
        let named = |pair: &&str| {
            let name = decoded(pair.split_once('=').map_or(*pair, |(name, _)| name));
            self.query_removed.contains(&name) || self.query_set.iter().any(|(set, _)| *set == name)
        };
        let query = target.query().unwrap_or_default();
        let kept = query.split('&').filter(|pair| !pair.is_empty() && !named(pair)).map(str::to_owned);
        let set = self.query_set.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value)));
        let query = kept.chain(set).collect::<Vec<_>>().join("&");
        let separator = if query.is_empty() { "" } else { "?" };
        PathAndQuery::try_from(format!("{}{separator}{query}", target.path())).ok()
    }
}

/// Percent-encoded but for what is unreserved (RFC 3986, section 2.3).
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// A query's name as it is meant.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let hex = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, hex.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            (byte, _) => {
                bytes.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_changed_by_what_its_names_mean() {
        let changes = Changes {
            query_set: vec![("user".to_owned(), "a b&c".to_owned())],
            query_removed: vec!["to ken".to_owned()],
            ..Changes::default()
        };
        for (target, expected) in [
            ("/x", "/x?user=a%20b%26c"),
            ("/x?to%20ken=1&page=2&to+ken=3", "/x?page=2&user=a%20b%26c"),
            ("/x?user=evil&us%65r=evil", "/x?user=a%20b%26c"),
        ] {
            let changed = changes.write_target(&PathAndQuery::from_static(target)).unwrap();
            assert_eq!(changed.as_str(), expected, "{target}");
        }
        let removes = Changes { query_removed: vec!["a".to_owned()], ..Changes::default() };
        assert_eq!(removes.write_target(&PathAndQuery::from_static("/x?a=1")).unwrap(), "/x");
        assert_eq!(Changes::default().write_target(&PathAndQuery::from_static("/x?a=1")), None);
    }

    #[test]
    fn a_field_is_written_as_the_authorizer_says_and_never_one_of_framing() {
        let write = |how, before: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in before {
                headers.append("x-user", HeaderValue::from_static(value));
            }
            Field::read("X-User", b"new", how).unwrap().unwrap().write(&mut headers);
            headers.get_all("x-user").iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for (how, absent, present) in [
            (How::Append, vec!["new"], vec!["old", "new"]),
            (How::Set, vec!["new"], vec!["new"]),
            (How::AddIfAbsent, vec!["new"], vec!["old"]),
            (How::SetIfPresent, vec![], vec!["new"]),
        ] {
            assert_eq!(write(how, &[]), absent, "{how:?}");
            assert_eq!(write(how, &["old"]), present, "{how:?}");
        }
        for name in ["Content-Length", "transfer-encoding", "Host", ":path", "Connection", "Keep-Alive"] {
            assert_eq!(Field::read(name, b"1", How::Set), Ok(None), "{name}");
        }
        for (name, value) in [("a b", &b"1"[..]), ("", b"1"), ("x", b"a\r\nb: c")] {
            assert!(Field::read(name, value, How::Set).is_err(), "{name:?}");
        }
    }
}
