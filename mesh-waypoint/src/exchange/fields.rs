//! Header fields: those of one hop, which do not go on (RFC 9110, section 7.6.1), and those that a mesh adds.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, COOKIE, EXPECT, HOST,
        PROXY_AUTHORIZATION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
    request, response,
};

use mesh_core::l7::topology::CertificateForwarding;

use crate::inbound::{Arrival, Client, Connection, Target};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
/// What a client that would go on by HTTP/2 says of itself (RFC 7540, section 3.2.1).
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");
const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What is no trailer.
const NO_TRAILERS: [HeaderName; 19] = [
    AUTHORIZATION,
    CONNECTION,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    EXPECT,
    HOST,
    KEEP_ALIVE,
    PROXY_AUTHORIZATION,
    PROXY_CONNECTION,
    SET_COOKIE,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    FORWARDED_FOR,
    CLIENT_CERTIFICATE,
];

/// Whether a message is gRPC's.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Makes a request's fields those that go on to an endpoint.
pub(super) fn prepare_request(parts: &mut request::Parts, connection: &Connection, arrival: &Arrival, upgrades: bool) {
    let headers = &mut parts.headers;
    let has_trailers = tokens(headers, &TE).any(|coding| coding.eq_ignore_ascii_case("trailers"));
    remove_hop_by_hop(headers, upgrades);
    if has_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    // The client has been told to go on by the one who reads its body: us.
    headers.remove(EXPECT);
    forward_certificate(headers, arrival);
    match &arrival.target {
        Target::Gateway(entrance) => from_outside(headers, &connection.arrival.client, &arrival.client, entrance.https),
        Target::Service(..) | Target::Workload(_) => {
            headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
        }
    }
    headers.entry(REQUEST_ID).or_insert_with(request_id);
}

/// Who the client is says its certificate, and never the client; unless a gateway is told to believe who stands before it.
fn forward_certificate(headers: &mut HeaderMap, arrival: &Arrival) {
    let forwarding = match &arrival.target {
        Target::Gateway(entrance) => entrance.topology.certificates,
        Target::Service(..) | Target::Workload(_) => CertificateForwarding::SanitizeSet,
    };
    match (forwarding, &arrival.client_certificate) {
        (CertificateForwarding::AlwaysForwardOnly, _) | (CertificateForwarding::ForwardOnly, Some(_)) => {}
        (CertificateForwarding::SanitizeSet, Some(certificate)) => {
            headers.insert(CLIENT_CERTIFICATE, certificate.clone());
        }
        (CertificateForwarding::AppendForward, Some(certificate)) => {
            let before = headers.get_all(CLIENT_CERTIFICATE).iter().map(HeaderValue::as_bytes);
            let all = before.chain([certificate.as_bytes()]).collect::<Vec<_>>().join(&b","[..]);
            // Octets that may be in a field may be in it.
            headers.insert(CLIENT_CERTIFICATE, HeaderValue::from_bytes(&all).unwrap_or_else(|_| certificate.clone()));
        }
        (CertificateForwarding::Sanitize, _) | (_, None) => drop(headers.remove(CLIENT_CERTIFICATE)),
    }
}

/// What a gateway says of who is outside: who sent the request to it, and whose it is. What the client itself says of it is not
/// believed, but for the addresses before its own, which stay in front for whoever knows whom to trust.
fn from_outside(headers: &mut HeaderMap, sender: &Client, client: &Client, https: bool) {
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(if https { "https" } else { "http" }));
    let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
    let sender = sender.address.ip().to_string();
    let chain = before.map(str::to_owned).chain([sender]).collect::<Vec<_>>().join(",");
    if let Ok(chain) = HeaderValue::try_from(chain) {
        headers.insert(FORWARDED_FOR, chain);
    }
    if let Ok(address) = HeaderValue::try_from(client.address.ip().to_string()) {
        headers.insert(EXTERNAL_ADDRESS, address);
    }
}

/// Leaves of the protocols that a client asks for those that may go on, and says whether there is one. A tunnel of HTTP/2 or of TLS
/// would carry requests that nobody here judges; a server may ignore who asks (RFC 9110, section 7.8).
pub(super) fn keep_protocols(headers: &mut HeaderMap) -> bool {
    let is_named = tokens(headers, &CONNECTION).any(|name| name.eq_ignore_ascii_case("upgrade"));
    let kept: Vec<&str> = tokens(headers, &UPGRADE).filter(|name| is_named && !hides_requests(name)).collect();
    match HeaderValue::try_from(kept.join(", ")) {
        Ok(kept) if !kept.is_empty() => drop(headers.insert(UPGRADE, kept)),
        _ => drop(headers.remove(UPGRADE)),
    }
    headers.contains_key(UPGRADE)
}

/// Whether such a protocol carries requests.
pub(super) fn hides_requests(protocol: &str) -> bool {
    let name = protocol.split('/').next().unwrap_or_default();
    ["h2c", "h2", "http", "tls"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

/// The members of a field that is a list.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Fields that say nothing good after a body: what routes, frames, or says who somebody is has been decided by then (RFC 9110,
/// section 6.5.1).
pub(super) fn prepare_trailers(trailers: &mut HeaderMap) {
    for name in NO_TRAILERS {
        trailers.remove(name);
    }
}

/// Makes a response's fields those that go on to the client.
pub(super) fn prepare_response(parts: &mut response::Parts, upgrades: bool) {
    remove_hop_by_hop(&mut parts.headers, upgrades);
}

fn remove_hop_by_hop(headers: &mut HeaderMap, upgrades: bool) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> =
            tokens(headers, &CONNECTION).filter_map(|name| HeaderName::try_from(name).ok()).collect();
        for name in named {
            if name != UPGRADE {
                headers.remove(name);
            }
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS, TE, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    if upgrades && headers.contains_key(UPGRADE) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
}

/// A random UUID (RFC 9562, section 5.4), which is what people's log queries expect.
fn request_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let random = (fastrand::u128(..) & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut text = [b'-'; 36];
    let places = (0..36).filter(|place| ![8, 13, 18, 23].contains(place));
    for (index, place) in places.enumerate() {
        text[place] = DIGITS[(random >> (124 - 4 * index) & 0xf) as usize];
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_a_random_uuid() {
        let (one, other) = (request_id(), request_id());
        assert_ne!(one, other);
        let text = one.to_str().unwrap();
        assert_eq!((text.len(), &text[14..15]), (36, "4"), "{text}");
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
        assert_eq!(text.matches('-').count(), 4, "{text}");
    }

    #[test]
    fn fields_of_one_hop_do_not_go_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Own"),
            ("keep-alive", "timeout=5"),
            ("x-own", "1"),
            ("te", "gzip"),
            ("upgrade", "websocket"),
            ("x-kept", "2"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let mut upgraded = headers.clone();
        remove_hop_by_hop(&mut headers, false);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
        remove_hop_by_hop(&mut upgraded, true);
        assert_eq!(upgraded.get(UPGRADE).unwrap(), "websocket");
        assert_eq!(upgraded.get(CONNECTION).unwrap(), "upgrade");
    }
}
