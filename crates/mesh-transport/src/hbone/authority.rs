//! The target of a CONNECT.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// The longest host name (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// What a tunnel leads to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Authority {
    /// An application's address; what nodes are asked for.
    Address(SocketAddr),
    /// A port of a Service by its host name, in lower case; what waypoints are asked for.
    Name(Arc<str>, u16),
}

/// The target of a CONNECT is neither an address nor a name with a port. The sender has to change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CONNECT target {0:?} is not of the form IP:PORT, [IPv6]:PORT or HOST:PORT with a port from 1 to 65535")]
pub struct AuthorityError(pub String);

impl Authority {
    /// Reads `:authority` (RFC 9113, section 8.5): `10.1.0.5:80`, `[fd00::1]:80` or `cart.shop.svc.cluster.local:80`.
    ///
    /// # Errors
    /// When the text is anything else, has a zone, or the port is 0.
    pub fn parse(text: &str) -> Result<Self, AuthorityError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            let zoned = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
            let usable = !zoned && address.port() != 0;
            return if usable { Ok(Self::Address(address)) } else { Err(refused(text)) };
        }
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            let port = port.parse().ok().filter(|port| digits && *port != 0)?;
            is_name(host).then(|| Self::Name(host.to_ascii_lowercase().into(), port))
        });
        parsed.ok_or_else(|| refused(text))
    }

    /// The address, where it is one.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Name(..) => None,
        }
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Name(_, port) => *port,
        }
    }
}

impl From<SocketAddr> for Authority {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

fn refused(text: &str) -> AuthorityError {
    AuthorityError(text.chars().take(64).collect())
}

/// Whether it is a DNS name that no address could be meant by: the last label of an IPv4 address is a number.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        let inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inside)
    };
    let last = host.rsplit('.').next().unwrap_or("");
    host.len() <= MAX_NAME
        && host.split('.').all(is_label)
        && last.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn targets_that_are_neither_address_nor_name_are_refused() {
        for bad in [
            "",
            "10.1.0.5",
            "10.1.0.5:",
            ":80",
            "10.1.0.5:0",
            "10.1.0.5:65536",
            "cart.shop",
            "cart.shop:0",
            "cart.shop:+80",
            "cart..shop:80",
            ".shop:80",
            "cart.shop.:80",
            "cart shop:80",
            "ca\u{df}.shop:80",
            "fd00::1:80",
            "[fd00::1]",
            "[fe80::1%2]:80",
            " 10.1.0.5:80",
            "10.1.0.5:80/",
            "http://10.1.0.5:80",
            "user@10.1.0.5:80",
            "010.1.0.5:80",
            "10.1.0.0x5:80",
        ] {
            assert!(Authority::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_service_is_named_whatever_the_case() {
        let name = Authority::Name("cart.shop.svc.cluster.local".into(), 80);
        assert_eq!(Authority::parse("Cart.shop.SVC.cluster.local:80"), Ok(name.clone()));
        assert_eq!((name.address(), name.port()), (None, 80));
    }

    proptest! {
        #[test]
        fn every_address_with_a_port_survives(ip: IpAddr, port in 1_u16..) {
            let address = SocketAddr::new(ip, port);
            prop_assert_eq!(Authority::parse(&address.to_string()), Ok(address.into()));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = Authority::parse(&text);
        }

        #[test]
        fn an_accepted_target_means_what_it_says(text in "[0-9a-f:.\\[\\]]{0,24}") {
            if let Ok(authority) = Authority::parse(&text) {
                prop_assert_eq!(authority.to_string(), text.clone());
                prop_assert_eq!(authority.address(), text.parse::<SocketAddr>().ok());
            }
        }
    }
}
