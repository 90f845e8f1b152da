//! Whom a request asks: one host, written in one way, or the request is refused.

use http::{
    Method, Version,
    header::HOST,
    request::Parts,
    uri::{Authority, Scheme},
};

use super::reply::Refusal;
use crate::{inbound::Target, telemetry::BadInput};

/// RFC 9112, section 3.2, and RFC 9113, section 8.3.1: exactly one host. In absolute form the target says it, and Host
/// has to be there all the same.
///
/// # Errors
/// It names no host, more than one, or what can be none.
pub(super) fn authority_of(parts: &Parts, target: &Target) -> Result<Authority, Refusal> {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(bad("more than one Host"));
    }
    if first.is_none() && parts.version == Version::HTTP_11 {
        return Err(bad("no Host"));
    }
    let host = first.map(|host| written_once(host.as_bytes())).transpose()?;
    let is_http2 = parts.version == Version::HTTP_2;
    if !is_http2 || parts.method == Method::CONNECT {
        check_form(parts)?;
    }
    let Some(authority) = parts.uri.authority() else {
        return host.map_or_else(|| assumed(target), Ok);
    };
    let authority = written_once(authority.as_str().as_bytes())?;
    let contradicts = is_http2 && host.is_some_and(|host| host != authority);
    if contradicts { Err(bad("Host is not :authority")) } else { Ok(authority) }
}

fn bad(text: &'static str) -> Refusal {
    Refusal::of_bad_input(400, text, BadInput::Host)
}

/// The form of the target is the method's: only CONNECT asks for an authority, and for one with a port (RFC 9110, section
/// 9.3.6); what is absolute is HTTP's.
fn check_form(parts: &Parts) -> Result<(), Refusal> {
    let bad = |text| Err(Refusal::of_bad_input(400, text, BadInput::Path));
    let (scheme, authority) = (parts.uri.scheme(), parts.uri.authority());
    if parts.method == Method::CONNECT {
        let port = authority.and_then(Authority::port_u16);
        let is_alone = scheme.is_none() && parts.uri.path_and_query().is_none();
        return if port.is_some() && is_alone { Ok(()) } else { bad("CONNECT asks for a host and a port") };
    }
    match (scheme, authority) {
        (None, None) => Ok(()),
        (Some(scheme), Some(_)) if [Scheme::HTTP, Scheme::HTTPS].contains(scheme) => Ok(()),
        _ => bad("malformed target"),
    }
}

/// The authority in its one form: no user, a name or an address, no dot at its end, a port that is one.
fn written_once(text: &[u8]) -> Result<Authority, Refusal> {
    let malformed = || bad("malformed host");
    let authority = Authority::try_from(text).map_err(|_| malformed())?;
    let host = authority.host();
    let rest = authority.as_str().strip_prefix(host).ok_or_else(malformed)?;
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => "",
        Some(port) if port.parse::<u16>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        // What is before an `@` is not the host, and what is no number is no port.
        _ => return Err(malformed()),
    };
    if !is_address(host) && !is_name(host) {
        return Err(malformed());
    }
    match host.strip_suffix('.') {
        None => Ok(authority),
        Some("") => Err(malformed()),
        Some(name) => Authority::try_from(format!("{name}{port}")).map_err(|_| malformed()),
    }
}

/// An IPv6 address in brackets.
fn is_address(host: &str) -> bool {
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    inner.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
}

/// A name, or an IPv4 address. RFC 3986 allows more in it, which no name of the DNS has and servers read in many ways.
fn is_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
}

/// A client that says nothing means what it is connected to.
fn assumed(target: &Target) -> Result<Authority, Refusal> {
    let host = match target {
        Target::Service(service, _) => service.hostname.to_string(),
        Target::Workload(address) => address.to_string(),
        Target::Gateway(_) => return Err(bad("no Host")),
    };
    Authority::try_from(host).map_err(|_| bad("no Host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_written_in_one_way_or_refused() {
        for (text, expected) in [
            ("a.example", Some("a.example")),
            ("A.example:80", Some("A.example:80")),
            ("a.example.", Some("a.example")),
            ("a.example.:80", Some("a.example:80")),
            ("[2001:db8::1]:80", Some("[2001:db8::1]:80")),
            ("192.0.2.1", Some("192.0.2.1")),
            ("a_b-c~d", Some("a_b-c~d")),
            (".", None),
            ("", None),
            (":80", None),
            ("a:", None),
            ("a:+80", None),
            ("a:65536", None),
            ("user@a", None),
            ("a@", None),
            ("a!b", None),
            ("a%2eb", None),
            ("[::1%25eth0]", None),
            ("[v1.a]", None),
        ] {
            let authority = written_once(text.as_bytes()).ok();
            assert_eq!(authority.as_ref().map(Authority::as_str), expected, "{text:?}");
        }
    }
}
