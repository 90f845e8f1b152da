//! An address as somebody has written it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

/// An IP address, or the text that is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// The address.
    Ip(IpAddr),
    /// Something else.
    Text(Box<str>),
}

impl Address {
    pub(crate) fn read(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Text(text.into()), Self::Ip)
    }

    /// The address, if a connection can be made to it.
    pub(crate) fn unicast(&self) -> Result<IpAddr, String> {
        let Self::Ip(given) = self else { return Err(format!("\"{self}\" is no IP address")) };
        let address = given.to_canonical();
        let usable = match address {
            IpAddr::V4(v4) => v4 != Ipv4Addr::BROADCAST,
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        };
        if !usable || address.is_unspecified() || address.is_loopback() || address.is_multicast() {
            return Err(format!("{given} is no unicast address of one host"));
        }
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Text(text) => write!(f, "{}", text.escape_debug()),
        }
    }
}
