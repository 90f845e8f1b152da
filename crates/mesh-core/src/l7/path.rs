//! Paths of requests, written in one way, so that no spelling slips past a rule.
//!
//! Istio's `NORMALIZE` (RFC 3986, section 6.2.2): unreserved characters are not escaped, escapes are in upper case, a
//! backslash is a slash, and dot segments are gone. What has no meaning, or means different things to different servers, is
//! refused. Escaped and doubled slashes stay, as in Istio; since some servers take them for single ones, policies look at
//! that reading too ([`Readings`]).

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

/// What a path may mean to servers: as it is written, and where an escaped slash is a slash and several are one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readings<'a> {
    written: &'a str,
    lenient: Option<String>,
}

impl<'a> Readings<'a> {
    /// The readings of a path in normal form.
    #[must_use]
    pub fn of(written: &'a str) -> Self {
        let is_plain = !written.contains("//") && !written.contains("%2F") && !written.contains("%5C");
        let lenient = (!is_plain).then(|| {
            let mut merged = written.replace("%2F", "/").replace("%5C", "/");
            while merged.contains("//") {
                merged = merged.replace("//", "/");
            }
            without_dots(Cow::Owned(merged)).into_owned()
        });
        Self { written, lenient: lenient.filter(|lenient| lenient != written) }
    }

    /// Each of them.
    pub fn each(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.written).chain(self.lenient.as_deref())
    }
}
