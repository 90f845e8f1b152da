//! The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): a header before a connection's own bytes, by which a
//! load balancer says whose connection it is. Whoever reads it has been told that it comes: nothing here guesses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Octets of it before the part whose length it says.
const FIXED: usize = 16;
/// Octets of a header of version 1 at most, with its end of line.
const MAX_V1: usize = 107;
/// Octets of addresses and further fields of version 2 that are taken; balancers send some tens, and a certificate a few thousand.
const MAX_V2: usize = 4 << 10;
/// The most that a header of either version has.
pub const MAX_HEADER: usize = FIXED + MAX_V2;

/// What was found at the beginning of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// So far it may become a header.
    Incomplete,
    /// A header of so many octets.
    Header {
        /// Where the connection comes from; none where the balancer speaks for itself (`LOCAL`, `UNKNOWN`), as it does to
        /// see whether somebody is there.
        source: Option<SocketAddr>,
        /// Its octets.
        length: usize,
    },
}

/// Why it is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyProtocolError {
    /// Neither version begins so.
    #[error("the connection does not begin with the PROXY protocol")]
    Absent,
    /// The line of version 1 is not as it has to be.
    #[error("the line of the PROXY protocol is malformed")]
    Line,
    /// A version, command, family or protocol that there is none of.
    #[error("the PROXY protocol's header is of no known kind")]
    Kind,
    /// The part of version 2 whose length it says is too short for its addresses, or its fields do not fill it.
    #[error("the PROXY protocol's header does not have the length that it says")]
    Length,
    /// It is longer than what is taken.
    #[error("the PROXY protocol's header is longer than {MAX_HEADER} octets")]
    TooLong,
    /// Its checksum is another one's.
    #[error("the PROXY protocol's header does not have the checksum that it says")]
    Checksum,
}

/// The two forms of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Version 1, a line of text.
    Text,
    /// Version 2, in octets.
    Binary,
}

/// The header of a connection from one address to another; without both, or where they are of different families, it says that
/// whoever sends it speaks for itself (`LOCAL`, `UNKNOWN`).
#[must_use]
pub fn header(form: Form, from: Option<SocketAddr>, to: Option<SocketAddr>) -> Vec<u8> {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let both = from.zip(to).map(|(from, to)| (canonical(from), canonical(to)));
    let both = both.filter(|(from, to)| from.is_ipv4() == to.is_ipv4());
    if form == Form::Text {
        return match both {
            None => b"PROXY UNKNOWN\r\n".to_vec(),
            Some((from, to)) => {
                let family = if from.is_ipv4() { 4 } else { 6 };
                format!("PROXY TCP{family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
            }
        };
    }
    let (kind, family, addresses) = match both {
        None => (0x20, 0x00, Vec::new()),
        Some((from, to)) => {
            let octets = |address: IpAddr| match address {
                IpAddr::V4(v4) => v4.octets().to_vec(),
                IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
            let family = if from.is_ipv4() { 0x11 } else { 0x21 };
            (0x21, family, [octets(from.ip()), octets(to.ip()), ports].concat())
        }
    };
    // 12 or 36 octets, or none.
    let length = u8::try_from(addresses.len()).unwrap_or_default();
    [&SIGNATURE[..], &[kind, family, 0, length], &addresses].concat()
}

/// Reads the header at the beginning of what has come so far.
///
/// # Errors
/// No further octets make a header of it.
pub fn parse(read: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    const LINE: &[u8] = b"PROXY ";
    let begins = |with: &[u8]| read.iter().zip(with).all(|(read, expected)| read == expected);
    match read.first() {
        None => Ok(Parsed::Incomplete),
        Some(b'P') if begins(LINE) => line(read),
        Some(b'\r') if begins(&SIGNATURE) => binary(read),
        Some(_) => Err(ProxyProtocolError::Absent),
    }
}

/// Whether what came begins as a header of either version does, so that it can be told where nobody asked for one.
#[must_use]
pub fn begins_like_one(read: &[u8]) -> bool {
    let families: [&[u8]; 3] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN"];
    read.starts_with(&SIGNATURE) || families.iter().any(|family| read.starts_with(family))
}

/// Version 1: `PROXY TCP4 SOURCE DESTINATION PORT PORT`, each part after one space.
fn line(read: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    let Some(end) = read.iter().take(MAX_V1).position(|octet| *octet == b'\n') else {
        return if read.len() >= MAX_V1 { Err(ProxyProtocolError::Line) } else { Ok(Parsed::Incomplete) };
    };
    let text = read[..end].strip_suffix(b"\r").and_then(|text| std::str::from_utf8(text).ok());
    let text = text.ok_or(ProxyProtocolError::Line)?;
    let mut parts = text.split(' ').skip(1);
    let source = match parts.next() {
        // Whatever follows is to be ignored.
        Some("UNKNOWN") => None,
        Some(family @ ("TCP4" | "TCP6")) => {
            let all: Vec<&str> = parts.collect();
            let [source, destination, source_port, destination_port] = all[..] else {
                return Err(ProxyProtocolError::Line);
            };
            address(family, destination)?;
            port(destination_port)?;
            Some(canonical(address(family, source)?, port(source_port)?))
        }
        _ => return Err(ProxyProtocolError::Line),
    };
    Ok(Parsed::Header { source, length: end + 1 })
}

fn address(family: &str, text: &str) -> Result<IpAddr, ProxyProtocolError> {
    let parsed = match family {
        "TCP4" => text.parse::<Ipv4Addr>().map(IpAddr::from),
        _ => text.parse::<Ipv6Addr>().map(IpAddr::from),
    };
    parsed.map_err(|_| ProxyProtocolError::Line)
}

/// Decimal, with neither a sign nor zeros in front.
fn port(text: &str) -> Result<u16, ProxyProtocolError> {
    let is_plain = text.bytes().all(|octet| octet.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain).ok_or(ProxyProtocolError::Line)
}

fn canonical(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

fn binary(read: &[u8]) -> Result<Parsed, ProxyProtocolError> {
    let Some([kind, family, high, low]) = read.get(SIGNATURE.len()..FIXED) else { return Ok(Parsed::Incomplete) };
    let (length, is_local) = (usize::from(u16::from_be_bytes([*high, *low])), kind & 0xf == 0);
    if !matches!(kind, 0x20 | 0x21) {
        return Err(ProxyProtocolError::Kind);
    }
    // Of a connection of its own the balancer may say anything.
    let addresses = match family {
        _ if is_local => 0,
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        0x31 => 216,
        _ => return Err(ProxyProtocolError::Kind),
    };
    if length < addresses {
        return Err(ProxyProtocolError::Length);
    }
    if length > MAX_V2 {
        return Err(ProxyProtocolError::TooLong);
    }
    let Some(header) = read.get(..FIXED + length) else { return Ok(Parsed::Incomplete) };
    let said = &header[FIXED..];
    let source = match (is_local, family, said) {
        (false, 0x11, [a, b, c, d, _, _, _, _, high, low, ..]) => {
            Some(canonical(Ipv4Addr::new(*a, *b, *c, *d).into(), u16::from_be_bytes([*high, *low])))
        }
        (false, 0x21, said) => {
            let octets = <[u8; 16]>::try_from(&said[..16]).map_err(|_| ProxyProtocolError::Length)?;
            Some(canonical(Ipv6Addr::from(octets).into(), u16::from_be_bytes([said[32], said[33]])))
        }
        _ => None,
    };
    if !is_local && *family != 0 {
        check_fields(header, FIXED + addresses)?;
    }
    Ok(Parsed::Header { source, length: header.len() })
}

/// Further fields of version 2 have to fill the rest; the one that is a checksum has to be right.
fn check_fields(header: &[u8], from: usize) -> Result<(), ProxyProtocolError> {
    const CRC32C: u8 = 3;
    let mut at = from;
    while at < header.len() {
        let Some([kind, high, low]) = header.get(at..at + 3) else { return Err(ProxyProtocolError::Length) };
        let value = at + 3..at + 3 + usize::from(u16::from_be_bytes([*high, *low]));
        let said = header.get(value.clone()).ok_or(ProxyProtocolError::Length)?;
        if *kind == CRC32C {
            let said = <[u8; 4]>::try_from(said).map_err(|_| ProxyProtocolError::Length)?;
            if u32::from_be_bytes(said) != checksum(header, &value) {
                return Err(ProxyProtocolError::Checksum);
            }
        }
        at = value.end;
    }
    Ok(())
}

/// CRC-32C (RFC 4960, appendix B) of the header, its own four octets taken for zeros.
fn checksum(header: &[u8], own: &std::ops::Range<usize>) -> u32 {
    const REVERSED: u32 = 0x82f6_3b78;
    let octets = header.iter().enumerate().map(|(at, octet)| if own.contains(&at) { 0 } else { *octet });
    !octets.fold(u32::MAX, |sum, octet| {
        (0..8).fold(sum ^ u32::from(octet), |sum, _| if sum & 1 == 1 { sum >> 1 ^ REVERSED } else { sum >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: Option<&str>, length: usize) -> Result<Parsed, ProxyProtocolError> {
        Ok(Parsed::Header { source: source.map(|source| source.parse().unwrap()), length })
    }

    /// A header of version 2 of that kind and family, with these octets after it.
    fn v2(kind: u8, family: u8, said: &[u8]) -> Vec<u8> {
        let length = u16::try_from(said.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[kind, family], &length, said].concat()
    }

    const V4: [u8; 12] = [203, 0, 113, 7, 10, 0, 0, 1, 0x30, 0x39, 0, 80];

    #[test]
    fn what_is_written_is_read_again() {
        let address = |text: &str| text.parse::<SocketAddr>().expect("an address");
        for (from, to, expected) in [
            (Some(address("203.0.113.7:40123")), Some(address("198.51.100.1:80")), Some(address("203.0.113.7:40123"))),
            (Some(address("[fd00::7]:1")), Some(address("[fd00::8]:65535")), Some(address("[fd00::7]:1"))),
            (Some(address("[::ffff:10.0.0.1]:5")), Some(address("10.0.0.2:6")), Some(address("10.0.0.1:5"))),
            (Some(address("[fd00::7]:1")), Some(address("10.0.0.2:6")), None),
            (None, Some(address("10.0.0.2:6")), None),
        ] {
            for form in [Form::Text, Form::Binary] {
                let written = super::header(form, from, to);
                let length = written.len();
                assert_eq!(parse(&written), Ok(Parsed::Header { source: expected, length }), "{form:?}: {written:?}");
            }
        }
    }

    #[test]
    fn lines_of_version_1_are_read_by_the_letter() {
        let good: [(&str, Option<&str>); 5] = [
            ("PROXY TCP4 203.0.113.7 10.0.0.1 12345 80\r\n", Some("203.0.113.7:12345")),
            ("PROXY TCP6 2001:db8::7 ::1 1 0\r\n", Some("[2001:db8::7]:1")),
            ("PROXY TCP6 ::ffff:203.0.113.7 ::1 12345 80\r\n", Some("203.0.113.7:12345")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN whatever 1 2 3\r\n", None),
        ];
        for (text, source) in good {
            let more = format!("{text}GET / HTTP/1.1\r\n");
            assert_eq!(parse(more.as_bytes()), header(source, text.len()), "{text:?}");
            for end in 0..text.len() {
                assert_eq!(parse(&text.as_bytes()[..end]), Ok(Parsed::Incomplete), "{:?}", &text[..end]);
            }
        }
        for bad in [
            "PROXY TCP4 203.0.113.7 10.0.0.1 12345 80\n",
            "PROXY TCP4  203.0.113.7 10.0.0.1 12345 80\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 12345\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 12345 80 \r\n",
            "PROXY TCP4 203.0.113.007 10.0.0.1 12345 80\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 012345 80\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 +1 80\r\n",
            "PROXY TCP4 203.0.113.7 10.0.0.1 65536 80\r\n",
            "PROXY TCP4 2001:db8::7 ::1 1 1\r\n",
            "PROXY TCP6 203.0.113.7 10.0.0.1 1 1\r\n",
            "PROXY tcp4 203.0.113.7 10.0.0.1 1 1\r\n",
            "PROXY UDP4 203.0.113.7 10.0.0.1 1 1\r\n",
            "PROXY \r\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(ProxyProtocolError::Line), "{bad:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MAX_V1));
        assert_eq!(parse(long.as_bytes()), Err(ProxyProtocolError::Line));
    }

    #[test]
    fn headers_of_version_2_are_read_by_their_lengths() {
        let tcp4 = v2(0x21, 0x11, &V4);
        for end in 0..tcp4.len() {
            assert_eq!(parse(&tcp4[..end]), Ok(Parsed::Incomplete), "{end}");
        }
        assert_eq!(parse(&[&tcp4[..], b"\x16\x03"].concat()), header(Some("203.0.113.7:12345"), 28));
        let mut v6 = [0; 36];
        v6[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        v6[32..34].copy_from_slice(&[1, 0xbb]);
        assert_eq!(parse(&v2(0x21, 0x21, &v6)), header(Some("[2001:db8::]:443"), 52));
        // The balancer's own connections, and those of which it knows nothing.
        assert_eq!(parse(&v2(0x20, 0x00, b"")), header(None, 16));
        assert_eq!(parse(&v2(0x20, 0x11, &V4)), header(None, 28));
        assert_eq!(parse(&v2(0x21, 0x00, b"abc")), header(None, 19));
        assert_eq!(parse(&v2(0x21, 0x31, &[0; 216])), header(None, 232));
        let further = [&V4[..], &[4, 0, 1, 9, 0xea, 0, 0]].concat();
        assert_eq!(parse(&v2(0x21, 0x11, &further)), header(Some("203.0.113.7:12345"), 35));
        for (bad, why) in [
            (v2(0x11, 0x11, &V4), ProxyProtocolError::Kind),
            (v2(0x22, 0x11, &V4), ProxyProtocolError::Kind),
            (v2(0x21, 0x12, &V4), ProxyProtocolError::Kind),
            (v2(0x21, 0x41, &V4), ProxyProtocolError::Kind),
            (v2(0x21, 0x11, &V4[..11]), ProxyProtocolError::Length),
            (v2(0x21, 0x21, &V4), ProxyProtocolError::Length),
            (v2(0x21, 0x11, &[&V4[..], &[4, 0]].concat()), ProxyProtocolError::Length),
            (v2(0x21, 0x11, &[&V4[..], &[4, 0, 9, 0]].concat()), ProxyProtocolError::Length),
            (v2(0x21, 0x11, &[0; MAX_V2 + 1]), ProxyProtocolError::TooLong),
        ] {
            assert_eq!(parse(&bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn a_checksum_that_is_there_has_to_be_right() {
        // The check value of CRC-32C.
        assert_eq!(checksum(b"123456789", &(9..9)), 0xe306_9283);
        let mut header = v2(0x21, 0x11, &[&V4[..], &[3, 0, 4, 0, 0, 0, 0]].concat());
        let at = header.len() - 4;
        let right = checksum(&header, &(at..at + 4)).to_be_bytes();
        header[at..].copy_from_slice(&right);
        assert!(matches!(parse(&header), Ok(Parsed::Header { source: Some(_), .. })));
        header[20] ^= 1;
        assert_eq!(parse(&header), Err(ProxyProtocolError::Checksum));
    }

    #[test]
    fn what_begins_otherwise_is_none() {
        for other in [&b"GET / HTTP/1.1\r\n"[..], b"POST", b"\x16\x03\x01", b"PRI * HTTP/2.0", b"\r\nGET", b"PROXYTCP4"]
        {
            assert_eq!(parse(other), Err(ProxyProtocolError::Absent), "{other:?}");
            assert!(!begins_like_one(other), "{other:?}");
        }
        assert!(begins_like_one(b"PROXY TCP4 203.0.113.7 ") && begins_like_one(&v2(0x21, 0x11, &V4)));
        assert!(!begins_like_one(b"PROXY /a HTTP/1.1\r\n"), "a method may be called so");
    }
}
