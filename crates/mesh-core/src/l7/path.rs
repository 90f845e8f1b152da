//! Paths of requests, written in one way, so that no spelling slips past a rule.
//!
//! Istio's `NORMALIZE` (RFC 3986, section 6.2.2): unreserved characters are not escaped, escapes are in upper case, a
//! backslash is a slash, and dot segments are gone. What has no meaning, or means different things to different servers, is
//! refused. Escaped and doubled slashes and parameters of segments stay, as in Istio; since some servers take the former for
//! single ones and pass over the latter, policies look at those readings too ([`Readings`]).

use std::borrow::Cow;

/// Why a path is refused. Nobody may retry: the client has to write another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It begins with no slash.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits.
    #[error("the path has a % that escapes nothing")]
    Escape,
    /// An octet that no path has: a control character or a blank, escaped or not, or what begins a query or a fragment.
    #[error("the path has an octet that may not stand there")]
    Octet,
}

/// A path in its normal form.
///
/// # Errors
/// See [`PathError`].
pub fn normalised(path: &str) -> Result<Cow<'_, str>, PathError> {
    if !path.starts_with(['/', '\\']) {
        return Err(PathError::NotAbsolute);
    }
    let unescaped = unescape(path)?;
    Ok(without_dots(unescaped))
}

/// The path with slashes for backslashes, and no escape that need not be.
fn unescape(path: &str) -> Result<Cow<'_, str>, PathError> {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'\\' | b'#' | b'?');
    if path.as_bytes().iter().all(plain) {
        return Ok(Cow::Borrowed(path));
    }
    let mut text = String::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => {
                let (&[high, low], after) = after.split_first_chunk::<2>().ok_or(PathError::Escape)?;
                rest = after;
                push(&mut text, hex(high)? << 4 | hex(low)?)?;
            }
            b'\\' => text.push('/'),
            // Octets beyond ASCII have to be escaped; some clients do not.
            0x80.. => escape(&mut text, byte),
            _ if plain(&byte) => text.push(char::from(byte)),
            _ => return Err(PathError::Octet),
        }
    }
    Ok(Cow::Owned(text))
}

/// An octet that was escaped: unreserved ones (RFC 3986, section 2.3) need not be.
fn push(text: &mut String, byte: u8) -> Result<(), PathError> {
    match byte {
        0x00..0x20 | 0x7f => return Err(PathError::Octet),
        _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => text.push(char::from(byte)),
        _ => escape(text, byte),
    }
    Ok(())
}

fn escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    for digit in [byte >> 4, byte & 15] {
        text.extend(DIGITS.get(usize::from(digit)).map(|digit| char::from(*digit)));
    }
}

fn hex(digit: u8) -> Result<u8, PathError> {
    let value = char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    value.ok_or(PathError::Escape)
}

/// RFC 3986, section 5.2.4, for a path that begins with a slash.
fn without_dots(path: Cow<'_, str>) -> Cow<'_, str> {
    let is_dots = |segment: &str| matches!(segment, "." | "..");
    if !path.split('/').any(is_dots) {
        return path;
    }
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment == ".." {
            kept.pop();
        }
        if !is_dots(segment) {
            kept.push(segment);
        } else if segments.peek().is_none() {
            kept.push("");
        }
    }
    Cow::Owned(format!("/{}", kept.join("/")))
}

/// What a path may mean to servers: as it is written, where an escaped slash is a slash and several are one, and where a segment ends
/// at its first semicolon, as for servers of Java, whose `/admin;x` and `/a/..;/admin` are `/admin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readings<'a> {
    written: &'a str,
    lenient: Vec<String>,
}

impl<'a> Readings<'a> {
    /// The readings of a path in normal form.
    #[must_use]
    pub fn of(written: &'a str) -> Self {
        let has_slashes = written.contains("//") || written.contains("%2F") || written.contains("%5C");
        let has_parameters = written.contains(';') || written.contains("%3B");
        let mut lenient = Vec::new();
        let mut add = |reading: String| {
            if reading != written && !lenient.contains(&reading) {
                lenient.push(reading);
            }
        };
        if has_slashes {
            add(with_plain_slashes(written));
        }
        if has_parameters {
            // Which comes first differs between servers, too.
            let without = without_parameters(written);
            add(with_plain_slashes(&without));
            add(with_plain_slashes(&without_parameters(&unescaped_slashes(written))));
            add(without_dots(Cow::Owned(without)).into_owned());
        }
        Self { written, lenient }
    }

    /// Each of them.
    pub fn each(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.written).chain(self.lenient.iter().map(String::as_str))
    }
}

fn unescaped_slashes(path: &str) -> String {
    path.replace("%2F", "/").replace("%5C", "/")
}

/// Escaped slashes as slashes, and several as one.
fn with_plain_slashes(path: &str) -> String {
    let mut merged = unescaped_slashes(path);
    while merged.contains("//") {
        merged = merged.replace("//", "/");
    }
    without_dots(Cow::Owned(merged)).into_owned()
}

/// Each segment up to its first semicolon, escaped or not (RFC 3986, section 3.3).
fn without_parameters(path: &str) -> String {
    let name = |segment: &str| {
        let end = [segment.find(';'), segment.find("%3B")].into_iter().flatten().min().unwrap_or(segment.len());
        segment[..end].to_owned()
    };
    path.split('/').map(name).collect::<Vec<_>>().join("/")
}
