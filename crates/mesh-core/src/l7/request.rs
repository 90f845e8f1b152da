//! What routing and policy see of a request, whatever library read it from the wire.

use std::borrow::Cow;

use crate::model::Workload;

/// The head of a request.
pub trait RequestView {
    /// The method, such as `GET` (RFC 9110, section 9).
    fn method(&self) -> &str;
    /// `http` or `https`.
    fn scheme(&self) -> &str;
    /// The host that was asked for, in lower case and without its port (RFC 9110, section 7.2).
    fn host(&self) -> &str;
    /// The port that the client connected to.
    fn port(&self) -> u16;
    /// The path, normalised, without its query; it begins with a slash.
    fn path(&self) -> &str;
    /// The query, without its question mark.
    fn query(&self) -> Option<&str>;
    /// The value of a field by its name in lower case; several lines of it are joined by commas (RFC 9110, section 5.3).
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
    /// The workload that sent it, where known.
    fn client(&self) -> Option<&Workload>;
    /// The texts of a claim of the token that was verified, by the names that lead to it.
    fn claim(&self, _names: &[Box<str>]) -> &[String] {
        &[]
    }

    /// The first value of a parameter of the query, with its percent-encoding undone.
    fn query_parameter(&self, name: &str) -> Option<Cow<'_, str>> {
        let pairs = self.query()?.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.into_iter().find_map(|(key, value)| (percent_decoded(key) == name).then(|| percent_decoded(value)))
    }
}

/// Undoes percent-encoding; what is no valid escape, or no UTF-8, stands for itself.
fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'+', _) => decoded.push(b' '),
            (b'%', [high, low, after @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    decoded.push(high << 4 | low);
                    rest = after;
                }
                _ => decoded.push(byte),
            },
            _ => decoded.push(byte),
        }
    }
    String::from_utf8(decoded).map_or(Cow::Borrowed(text), Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
