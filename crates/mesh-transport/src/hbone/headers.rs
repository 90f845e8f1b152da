//! The text of a CONNECT: its target and the headers that travel with it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// The target of a CONNECT is not an address and a port. The sender has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CONNECT target {0:?} is not of the form IP:PORT or [IPv6]:PORT with a port from 1 to 65535")]
pub struct AuthorityError(pub String);

/// Reads `:authority` (RFC 9113, section 8.5): `10.1.0.5:80` or `[fd00::1]:80`, nothing else.
///
/// # Errors
/// When the text is anything else, has a zone, or the port is 0.
pub fn parse_authority(text: &str) -> Result<SocketAddr, AuthorityError> {
    let failed = || AuthorityError(text.chars().take(64).collect());
    let address: SocketAddr = text.parse().map_err(|_| failed())?;
    let zoned = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
    if zoned || address.port() == 0 { Err(failed()) } else { Ok(address) }
}

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
    fn targets_that_are_no_address_and_port_are_refused() {
        for bad in [
            "",
            "10.1.0.5",
            "10.1.0.5:",
            ":80",
            "10.1.0.5:0",
            "10.1.0.5:65536",
            "cart.shop:80",
            "fd00::1:80",
            "[fd00::1]",
            "[fe80::1%2]:80",
            " 10.1.0.5:80",
            "10.1.0.5:80/",
            "http://10.1.0.5:80",
            "user@10.1.0.5:80",
            "010.1.0.5:80",
        ] {
            assert!(parse_authority(bad).is_err(), "{bad:?} was accepted");
        }
    }

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
        fn every_address_with_a_port_survives_the_authority(ip: IpAddr, port in 1_u16..) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(parse_authority(&address.to_string()), Ok(address));
        }

        #[test]
        fn every_address_survives_the_forwarded_header(ip: IpAddr, port: u16) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(parse_forwarded(&forwarded_header(address)), Some(address));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text in "\\PC*") {
            let _ = (parse_authority(&text), parse_forwarded(&text));
        }

        #[test]
        fn an_accepted_target_means_what_it_says(text in "[0-9a-f:.\\[\\]]{0,24}") {
            if let Ok(address) = parse_authority(&text) {
                prop_assert_eq!(text.parse::<SocketAddr>(), Ok(address));
            }
        }
    }
}
