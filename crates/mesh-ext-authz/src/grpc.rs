//! Asked by gRPC: `envoy.service.auth.v3.Authorization/Check`, a message each way.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use ::http::header::{CONTENT_TYPE, HeaderValue, TE};
use ::http::{HeaderMap, Method, StatusCode, request};
use bytes::{BufMut as _, Bytes, BytesMut};
use prost::Message as _;

use crate::answer::{Answer, Denied, Malformed};
use crate::changes::{Changes, Field, How, is_writable};
use crate::check::{Check, PARTIAL_BODY, Party};
use crate::proto::{
    Address, AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption, HttpRequest,
    HttpResponse, OkHttpResponse, Peer, Request, SocketAddress, Timestamp, TlsSession,
};

/// The method's path.
pub const PATH: &str = "/envoy.service.auth.v3.Authorization/Check";
/// Before each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The head of the call; its path is [`PATH`], its authority is the caller's to say.
#[must_use]
pub fn head() -> request::Parts {
    let (mut parts, ()) = ::http::Request::new(()).into_parts();
    parts.method = Method::POST;
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    parts.headers.insert(TE, HeaderValue::from_static("trailers"));
    parts
}

/// The body of the call.
#[must_use]
pub fn body(check: &Check<'_>) -> Bytes {
    let message = message(check);
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // A buffer that grows has room.
    let _ = message.encode(&mut framed);
    framed.freeze()
}

fn message(check: &Check<'_>) -> CheckRequest {
    let since = check.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time = Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or_default(),
    };
    let mut http = HttpRequest {
        id: check.id.to_owned(),
        method: check.method.to_string(),
        headers: headers(check),
        path: check.target.to_string(),
        host: check.host.to_owned(),
        scheme: check.scheme.to_owned(),
        size: check.size.map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX)),
        protocol: if check.is_http2 { "HTTP/2" } else { "HTTP/1.1" }.to_owned(),
        ..HttpRequest::default()
    };
    if let Some(shown) = &check.body {
        http.headers.insert(PARTIAL_BODY.to_owned(), (!shown.is_whole).to_string());
        if shown.as_bytes {
            http.raw_body = shown.bytes.to_vec();
        } else {
            http.body = String::from_utf8_lossy(&shown.bytes).into_owned();
        }
    }
    let attributes = AttributeContext {
        source: Some(peer(&check.source)),
        destination: Some(peer(&check.destination)),
        request: Some(Request { time: Some(time), http: Some(http) }),
        tls_session: check.server_name.map(|name| TlsSession { sni: name.to_owned() }),
    };
    CheckRequest { attributes: Some(attributes) }
}

fn peer(party: &Party<'_>) -> Peer {
    let socket_address = Some(SocketAddress {
        address: party.address.ip().to_canonical().to_string(),
        port_value: party.address.port().into(),
    });
    Peer {
        address: Some(Address { socket_address }),
        service: party.service.to_owned(),
        principal: party.principal.unwrap_or_default().to_owned(),
    }
}

/// All fields in lower case, lines of one name joined, and HTTP/2's own beside them.
fn headers(check: &Check<'_>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in check.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let known = all.entry(name.as_str().to_owned());
        known.and_modify(|known| *known = format!("{known},{value}")).or_insert_with(|| value.into_owned());
    }
    let own: [(&str, Cow<'_, str>); 4] = [
        (":method", check.method.as_str().into()),
        (":path", check.target.as_str().into()),
        (":authority", check.host.into()),
        (":scheme", check.scheme.into()),
    ];
    all.extend(own.map(|(name, value)| (name.to_owned(), value.into_owned())));
    all
}

/// Reads the answer: the response's status and fields, all of its body, and its trailers.
///
/// # Errors
/// It is none.
pub fn answer(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    trailers: Option<&HeaderMap>,
) -> Result<Answer, Malformed> {
    if status != StatusCode::OK {
        return Err(Malformed::Status(status.as_u16()));
    }
    // Without a message, the status may stand in the head (gRPC over HTTP/2, Trailers-Only).
    let said = trailers.and_then(|trailers| trailers.get("grpc-status")).or_else(|| headers.get("grpc-status"));
    match said.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(other) => return Err(Malformed::Grpc(String::from_utf8_lossy(other).chars().take(8).collect())),
        None => return Err(Malformed::Grpc("missing".to_owned())),
    }
    let (prefix, message) = body.split_at_checked(PREFIX).ok_or(Malformed::Frame)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || usize::try_from(length) != Ok(message.len()) {
        return Err(Malformed::Frame);
    }
    let response = CheckResponse::decode(message).map_err(|error| Malformed::Message(error.to_string()))?;
    read(response)
}

/// Envoy takes a message with nothing in it for a yes, since a status that is not written is 0. Here somebody has to have said
/// so: with a status, or with what to change.
fn read(response: CheckResponse) -> Result<Answer, Malformed> {
    let allowed = match (&response.status, &response.http_response) {
        (Some(status), _) => status.code == 0,
        (None, Some(HttpResponse::Ok(_))) => true,
        (None, Some(HttpResponse::Denied(_))) => false,
        (None, None) => return Err(Malformed::Empty),
    };
    match (allowed, response.http_response) {
        (true, Some(HttpResponse::Ok(ok))) => Ok(Answer::Allowed(changes(ok)?)),
        (true, _) => Ok(Answer::Allowed(Changes::default())),
        (false, Some(HttpResponse::Denied(denied))) => Ok(Answer::Denied(refusal(denied)?)),
        (false, _) => Ok(Answer::Denied(refusal(DeniedHttpResponse::default())?)),
    }
}

fn refusal(denied: DeniedHttpResponse) -> Result<Denied, Malformed> {
    let code = denied.status.map_or(0, |status| status.code);
    let code = u16::try_from(code).ok().filter(|code| (200..=599).contains(code));
    // A refusal with a status that there is not is a refusal all the same.
    let status = code.and_then(|code| StatusCode::from_u16(code).ok()).unwrap_or(StatusCode::FORBIDDEN);
    let mut headers = HeaderMap::new();
    fields(&denied.headers)?.iter().for_each(|field| field.write(&mut headers));
    Ok(Denied { status, headers, body: denied.body.into() })
}

fn changes(ok: OkHttpResponse) -> Result<Changes, Malformed> {
    let removed = ok.headers_to_remove.iter().filter(|name| !name.starts_with(':'));
    let removed = removed.map(|name| {
        let name = ::http::HeaderName::from_bytes(name.as_bytes());
        name.map_err(|_| Malformed::Header("of headers_to_remove".to_owned()))
    });
    let removed = removed.filter(|name| name.as_ref().map_or(true, is_writable));
    let changes = Changes {
        request: fields(&ok.headers)?,
        removed: removed.collect::<Result<_, _>>()?,
        response: response_fields(&ok.response_headers_to_add)?,
        query_set: ok.query_parameters_to_set.into_iter().map(|set| (set.key, set.value)).collect(),
        query_removed: ok.query_parameters_to_remove,
    };
    changes.check()
}

/// Where nothing is said, a field of the request takes the place of what is there (OkHttpResponse, `headers`).
fn fields(options: &[HeaderValueOption]) -> Result<Vec<Field>, Malformed> {
    read_fields(options, How::Set)
}

/// And one of the response stands beside it (OkHttpResponse, `response_headers_to_add`).
fn response_fields(options: &[HeaderValueOption]) -> Result<Vec<Field>, Malformed> {
    read_fields(options, How::Append)
}

fn read_fields(options: &[HeaderValueOption], unsaid: How) -> Result<Vec<Field>, Malformed> {
    let mut all = Vec::new();
    for option in options {
        let Some(header) = &option.header else { continue };
        let how = match (option.append, option.append_action) {
            (Some(append), _) => {
                if append.value {
                    How::Append
                } else {
                    How::Set
                }
            }
            (None, 1) => How::AddIfAbsent,
            (None, 2) => How::Set,
            (None, 3) => How::SetIfPresent,
            (None, _) => unsaid,
        };
        let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        all.extend(Field::read(&header.key, value, how)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{BoolValue, HeaderValue as ProtoValue, HttpStatus, QueryParameter, Status};

    fn framed(response: &CheckResponse) -> Vec<u8> {
        let message = response.encode_to_vec();
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
        framed.extend(message);
        framed
    }

    fn answered(body: &[u8]) -> Result<Answer, Malformed> {
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        answer(StatusCode::OK, &HeaderMap::new(), body, Some(&trailers))
    }

    fn option(key: &str, value: &str, append: Option<bool>) -> HeaderValueOption {
        let header = ProtoValue { key: key.to_owned(), value: value.to_owned(), raw_value: Vec::new() };
        HeaderValueOption { header: Some(header), append: append.map(|value| BoolValue { value }), append_action: 0 }
    }

    #[test]
    fn a_yes_comes_with_its_changes() {
        let ok = OkHttpResponse {
            headers: vec![
                option("x-user", "alice", None),
                option("x-role", "b", Some(true)),
                option("host", "evil", None),
            ],
            headers_to_remove: vec!["authorization".to_owned(), "Content-Length".to_owned()],
            response_headers_to_add: vec![option("set-cookie", "a=1", None)],
            query_parameters_to_set: vec![QueryParameter { key: "q".to_owned(), value: "1".to_owned() }],
            query_parameters_to_remove: vec!["token".to_owned()],
        };
        let response = CheckResponse { status: Some(Status { code: 0 }), http_response: Some(HttpResponse::Ok(ok)) };
        let Ok(Answer::Allowed(changes)) = answered(&framed(&response)) else { panic!() };
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-user", "mallory"), ("x-role", "a"), ("authorization", "secret"), ("content-length", "3")]
        {
            headers.insert(name, HeaderValue::from_static(value));
        }
        changes.write_request(&mut headers);
        assert_eq!(headers["x-user"], "alice");
        assert_eq!(headers.get_all("x-role").iter().count(), 2);
        assert!(!headers.contains_key("authorization") && headers.contains_key("content-length"));
        assert!(!headers.contains_key("host"));
        let mut headers = HeaderMap::from_iter([("set-cookie".parse().unwrap(), HeaderValue::from_static("b=2"))]);
        changes.write_response(&mut headers);
        assert_eq!(headers.get_all("set-cookie").iter().count(), 2);
    }

    #[test]
    fn a_no_has_a_status_whatever_it_says() {
        for (code, expected) in [(401, 401), (0, 403), (302, 302), (200, 200), (99, 403), (-1, 403), (1000, 403)] {
            let denied = DeniedHttpResponse {
                status: Some(HttpStatus { code }),
                headers: vec![option("location", "/login", None), option("content-length", "99", None)],
                body: "go away".to_owned(),
            };
            let http_response = Some(HttpResponse::Denied(denied));
            let response = CheckResponse { status: Some(Status { code: 7 }), http_response };
            let Ok(Answer::Denied(denied)) = answered(&framed(&response)) else { panic!() };
            assert_eq!((denied.status.as_u16(), &denied.body[..]), (expected, &b"go away"[..]));
            assert_eq!(denied.headers.len(), 1);
            assert_eq!(denied.headers["location"], "/login");
        }
    }

    #[test]
    fn the_status_decides_and_silence_is_no_yes() {
        let ok = Some(HttpResponse::Ok(OkHttpResponse::default()));
        let denied = Some(HttpResponse::Denied(DeniedHttpResponse::default()));
        for (code, http_response, allowed) in [
            (Some(0), None, Some(true)),
            (Some(0), denied.clone(), Some(true)),
            (Some(16), ok.clone(), Some(false)),
            (Some(7), None, Some(false)),
            (None, ok, Some(true)),
            (None, denied, Some(false)),
            (None, None, None),
        ] {
            let response = CheckResponse { status: code.map(|code| Status { code }), http_response };
            let found = answered(&framed(&response)).ok().map(|answer| matches!(answer, Answer::Allowed(_)));
            assert_eq!(found, allowed, "{response:?}");
        }
    }

    #[test]
    fn what_is_no_message_is_no_answer() {
        let yes = framed(&CheckResponse { status: Some(Status { code: 0 }), http_response: None });
        assert!(answered(&yes).is_ok());
        let compressed = [&[1], &yes[1..]].concat();
        let longer = [&yes[..], &[0]].concat();
        for body in [&[][..], &[0, 0], &yes[..yes.len() - 1], &compressed, &longer, &[0, 0, 0, 0, 2, 0xff, 0xff]] {
            assert!(answered(body).is_err(), "{body:?}");
        }
        let head = |status| HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(status))]);
        assert!(answer(StatusCode::OK, &HeaderMap::new(), &yes, None).is_err(), "no status");
        assert!(answer(StatusCode::OK, &head("14"), &[], None).is_err());
        assert!(answer(StatusCode::BAD_GATEWAY, &head("0"), &yes, None).is_err());
        assert!(answer(StatusCode::OK, &head("0"), &yes, None).is_ok());
    }
}
