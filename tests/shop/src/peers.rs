//! Where the other programs are: from the environment, with names as Kubernetes gives them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The host and port of a service. The host is a name or an address; it is resolved anew for every connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name, or an IP address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A text that names no host and port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an address; write it as http://cart.shop:8080 or [::1]:8080")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `host:port` after an optional `http://` or `tcp://`; nothing may follow but one `/`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let refused = || AddressError(text.to_owned());
        let rest = ["http://", "tcp://"].iter().find_map(|scheme| text.strip_prefix(scheme)).unwrap_or(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or_else(refused)?;
        let port = port.parse().map_err(|_| refused())?;
        let bare = match host.strip_prefix('[') {
            Some(open) => open.strip_suffix(']').ok_or_else(refused)?,
            None if host.contains(':') => return Err(refused()),
            None => host,
        };
        if bare.is_empty() || bare.contains(['/', '@', '[', ']', ' ']) {
            return Err(refused());
        }
        Ok(Self { host: bare.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The addresses of the services that others call, and how long connections to them are used.
#[derive(Debug, Clone)]
pub struct Peers {
    /// `CART_ADDR`
    pub cart: Address,
    /// `PRODUCT_ADDR`
    pub product: Address,
    /// `ORDER_ADDR`
    pub order: Address,
    /// `PAYMENT_ADDR`
    pub payment: Address,
    /// `NOTIFICATION_ADDR`
    pub notification: Address,
    /// `CONNECTION_MAX_AGE_MS`, 30 s without it: no connection is used for longer. Zero makes a new connection for each request.
    pub connection_max_age: Duration,
}

/// An environment variable that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// It holds no address.
    #[error("{variable}: {problem}")]
    Address {
        /// The variable's name.
        variable: &'static str,
        /// What is wrong with it.
        problem: AddressError,
    },
    /// It holds no number.
    #[error("{variable}={value:?} is not a number of milliseconds")]
    Milliseconds {
        /// The variable's name.
        variable: &'static str,
        /// Its value.
        value: String,
    },
}

impl Peers {
    /// Reads the variables by `lookup`, which is `std::env::var(..).ok()` in a program.
    ///
    /// # Errors
    /// A variable is there and holds no address or number.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, PeerError> {
        let address = |variable: &'static str, default: &str| {
            let value = lookup(variable);
            let text = value.as_deref().unwrap_or(default);
            text.parse().map_err(|problem| PeerError::Address { variable, problem })
        };
        let variable = "CONNECTION_MAX_AGE_MS";
        let age = match lookup(variable) {
            None => Duration::from_secs(30),
            Some(value) => match value.parse() {
                Ok(millis) => Duration::from_millis(millis),
                Err(_) => return Err(PeerError::Milliseconds { variable, value }),
            },
        };
        Ok(Self {
            cart: address("CART_ADDR", "http://cart.shop:8080")?,
            product: address("PRODUCT_ADDR", "http://product.shop:8080")?,
            order: address("ORDER_ADDR", "http://order.shop:8080")?,
            payment: address("PAYMENT_ADDR", "http://payment.shop:9090")?,
            notification: address("NOTIFICATION_ADDR", "tcp://notification.shop:7070")?,
            connection_max_age: age,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_whole_or_refused() {
        for (text, shown) in [
            ("http://cart.shop:8080", Some("cart.shop:8080")),
            ("http://cart:8080/", Some("cart:8080")),
            ("tcp://[fd00::1]:7070", Some("[fd00::1]:7070")),
            ("127.0.0.1:1", Some("127.0.0.1:1")),
            ("cart", None),
            ("http://cart", None),
            (":80", None),
            ("http://:80", None),
            ("fd00::1:80", None),
            ("[fd00::1:80", None),
            ("http://cart:8080/path", None),
            ("https://cart:8080", None),
            ("cart:65536", None),
        ] {
            let read = text.parse::<Address>().ok().map(|a| a.to_string());
            assert_eq!(read.as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn a_bad_variable_is_named() {
        let error = Peers::from_variables(|name| (name == "ORDER_ADDR").then(|| "nowhere".into()));
        let text = error.map(|_| ()).unwrap_err().to_string();
        assert!(text.contains("ORDER_ADDR") && text.contains("nowhere"), "{text}");
    }
}
