//! The headers that travel with a CONNECT.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The client's address in a `Forwarded` header (RFC 7239): the first element's `for`, quoted or not.
///
/// A port that is not given is 0. `None` for `unknown`, an obfuscated name, or what cannot be understood: the header is
/// advice, and nothing is refused for it.
#[must_use]
pub fn parse_forwarded(text: &str) -> Option<SocketAddr> {
    let first = split_unquoted(text, ',').next()?;
    let node = split_unquoted(first, ';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim())
    })?;
    let node = match node.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => node,
    };
    if let Ok(address) = node.parse::<SocketAddr>() {
        return Some(address);
    }
    let ip = match node.strip_prefix('[') {
        Some(rest) => IpAddr::V6(rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => node.parse().ok()?,
    };
    Some(SocketAddr::new(ip, 0))
}

/// The `Forwarded` header for a client's address.
#[must_use]
pub fn forwarded_header(client: SocketAddr) -> String {
    format!("for=\"{client}\"")
}

/// Splits at `separator` outside of quotes.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
    .map(str::trim)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forwarded_is_read_in_the_forms_that_proxies_write() {
        let v4 = Some("10.1.0.5:4321".parse().expect("valid"));
        let v6 = Some("[fd00::5]:4321".parse().expect("valid"));
        for (text, expected) in [
            ("for=\"10.1.0.5:4321\"", v4),
            ("for=10.1.0.5:4321;proto=tcp", v4),
            ("proto=tcp; For=\"10.1.0.5:4321\"", v4),
            ("for=\"10.1.0.5:4321\", for=192.0.2.1", v4),
            ("for=\"[fd00::5]:4321\"", v6),
            ("for=10.1.0.5", Some("10.1.0.5:0".parse().expect("valid"))),
            ("for=\"[fd00::5]\"", Some("[fd00::5]:0".parse().expect("valid"))),
            ("for=unknown", None),
            ("for=\"10.1.0.5:4321", None),
            ("by=10.1.0.5", None),
            ("", None),
        ] {
            assert_eq!(parse_forwarded(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_address_survives_the_forwarded_header(ip: IpAddr, port: u16) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(parse_forwarded(&forwarded_header(address)), Some(address));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC*") {
            let _ = parse_forwarded(&text);
        }
    }
}
