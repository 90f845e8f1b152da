//! Asked by HTTP: a request like the one that is decided on, to which 200 is yes.

use ::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, LOCATION, PROXY_AUTHENTICATE, WWW_AUTHENTICATE,
};
use ::http::uri::PathAndQuery;
use ::http::{HeaderMap, Method, StatusCode, request};
use bytes::Bytes;
use mesh_core::provider::HttpCheck;

use crate::answer::{Answer, Denied, Malformed};
use crate::changes::{Changes, Field, How, is_writable};
use crate::check::{Check, PARTIAL_BODY};

/// By which an authorizer asks for fields of the request to be taken out, names with commas between them.
const TO_REMOVE: &str = "x-envoy-auth-headers-to-remove";

/// The head of the question: method, target and fields. Its authority is the caller's to write.
#[must_use]
pub fn head(check: &Check<'_>, asks: &HttpCheck) -> request::Parts {
    let (mut parts, ()) = ::http::Request::new(()).into_parts();
    // A tunnel is nothing to ask for here.
    parts.method = if *check.method == Method::CONNECT { Method::GET } else { check.method.clone() };
    let headers = &mut parts.headers;
    for (name, value) in check.headers {
        if is_writable(name) && (*name == AUTHORIZATION || asks.request_headers.matches(name.as_str())) {
            headers.append(name, value.clone());
        }
    }
    for (name, value) in &asks.additional_headers {
        let (Ok(name), Ok(value)) = (HeaderName::try_from(&**name), HeaderValue::try_from(&**value)) else { continue };
        headers.insert(name, value);
    }
    if let Some(shown) = &check.body {
        headers.insert(PARTIAL_BODY, HeaderValue::from_static(if shown.is_whole { "false" } else { "true" }));
    }
    let length = check.body.as_ref().map_or(0, |shown| shown.bytes.len());
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    parts
}

/// What is asked for: the request's own target behind the prefix.
#[must_use]
pub fn target(check: &Check<'_>, asks: &HttpCheck) -> PathAndQuery {
    if asks.path_prefix.is_empty() {
        return check.target.clone();
    }
    let joined = PathAndQuery::try_from(format!("{}{}", asks.path_prefix, check.target));
    // A prefix was looked at when it was read.
    joined.unwrap_or_else(|_| check.target.clone())
}

/// Reads the answer.
///
/// # Errors
/// It is none: the authorizer says itself that it failed, or wants what cannot be.
pub fn answer(status: StatusCode, headers: &HeaderMap, body: Bytes, asks: &HttpCheck) -> Result<Answer, Malformed> {
    if status.is_server_error() || status.is_informational() {
        return Err(Malformed::Status(status.as_u16()));
    }
    if status != StatusCode::OK {
        let one_hop = of_one_hop(headers);
        let shown = |name: &HeaderName| match &asks.to_downstream_on_deny {
            None => true,
            Some(names) => {
                [LOCATION, PROXY_AUTHENTICATE, WWW_AUTHENTICATE].contains(name) || names.matches(name.as_str())
            }
        };
        let mut kept = HeaderMap::new();
        for (name, value) in headers.iter().filter(|(name, _)| is_writable(name) && shown(name)) {
            if !one_hop.contains(name) {
                kept.append(name, value.clone());
            }
        }
        return Ok(Answer::Denied(Denied { status, headers: kept, body }));
    }
    let mut changes = Changes::default();
    let mut before: Option<&HeaderName> = None;
    for (name, value) in headers.iter().filter(|(name, _)| is_writable(name)) {
        if asks.to_upstream_on_allow.matches(name.as_str()) {
            // The first line of a field takes the place of what the client wrote, further ones stand beside it.
            let how = if before == Some(name) { How::Append } else { How::Set };
            changes.request.push(Field::new(name, value, how));
        }
        if asks.to_downstream_on_allow.matches(name.as_str()) {
            changes.response.push(Field::new(name, value, How::Append));
        }
        before = Some(name);
    }
    for list in headers.get_all(TO_REMOVE).iter().filter_map(|list| list.to_str().ok()) {
        let names = list.split(',').filter_map(|name| HeaderName::try_from(name.trim()).ok());
        changes.removed.extend(names.filter(is_writable));
    }
    changes.check().map(Answer::Allowed)
}

/// The fields that `connection` names.
fn of_one_hop(headers: &HeaderMap) -> Vec<HeaderName> {
    let lists = headers.get_all(CONNECTION).iter().filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).filter_map(|name| HeaderName::try_from(name.trim()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use mesh_core::policy::{Pattern, Patterns};

    use super::*;
    use crate::check::Party;

    fn patterns(values: &[&str]) -> Patterns {
        values.iter().map(|value| Pattern::parse(value).unwrap()).collect()
    }

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_question_is_like_the_request_and_carries_what_was_asked_for() {
        let headers =
            map(&[("x-one", "1"), ("x-two", "2"), ("authorization", "a"), ("cookie", "c"), ("content-length", "9")]);
        let party = Party { address: "10.0.0.1:1".parse().unwrap(), principal: None, service: "" };
        let target = PathAndQuery::from_static("/items?x=1");
        let check = Check {
            id: "",
            method: &Method::PUT,
            target: &target,
            host: "cart",
            scheme: "http",
            headers: &headers,
            size: None,
            is_http2: false,
            time: SystemTime::UNIX_EPOCH,
            source: party.clone(),
            destination: party,
            server_name: None,
            body: None,
        };
        let asks = HttpCheck {
            path_prefix: "/check".into(),
            request_headers: patterns(&["x-o*"]),
            additional_headers: vec![("x-mesh".into(), "yes".into())],
            ..HttpCheck::default()
        };
        let head = head(&check, &asks);
        assert_eq!((head.method, super::target(&check, &asks).as_str()), (Method::PUT, "/check/items?x=1"));
        let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "content-length", "x-mesh", "x-one"]);
        assert_eq!(head.headers["content-length"], "0");
    }

    #[test]
    fn only_200_is_yes_and_only_named_fields_go_on() {
        let asks = HttpCheck {
            to_upstream_on_allow: patterns(&["x-user"]),
            to_downstream_on_allow: patterns(&["set-*"]),
            ..HttpCheck::default()
        };
        let said = map(&[
            ("x-user", "a"),
            ("x-user", "b"),
            ("x-other", "c"),
            ("set-cookie", "d"),
            ("x-envoy-auth-headers-to-remove", "cookie, content-length"),
        ]);
        let Ok(Answer::Allowed(changes)) = answer(StatusCode::OK, &said, Bytes::new(), &asks) else { panic!() };
        let mut request = map(&[("x-user", "mallory"), ("cookie", "secret"), ("content-length", "3")]);
        changes.write_request(&mut request);
        let users: Vec<_> = request.get_all("x-user").iter().collect();
        assert_eq!(users, ["a", "b"]);
        assert_eq!(request.len(), 3);
        let mut response = HeaderMap::new();
        changes.write_response(&mut response);
        assert_eq!(response, map(&[("set-cookie", "d")]));
        for (status, is_answer) in [(201, true), (204, true), (302, true), (401, true), (500, false), (503, false)] {
            let found = answer(StatusCode::from_u16(status).unwrap(), &said, Bytes::new(), &asks);
            assert_eq!(matches!(found, Ok(Answer::Denied(_))), is_answer, "{status}");
            assert_eq!(found.is_err(), !is_answer, "{status}");
        }
    }

    #[test]
    fn a_refusal_shows_what_is_named_and_what_tells_how_to_get_in() {
        let said = map(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("location", "/login"),
            ("x-why", "no"),
            ("x-internal", "2"),
            ("content-length", "3"),
        ]);
        let shown = |names: Option<&[&str]>| {
            let asks = HttpCheck { to_downstream_on_deny: names.map(patterns), ..HttpCheck::default() };
            match answer(StatusCode::FOUND, &said, Bytes::from("abc"), &asks) {
                Ok(Answer::Denied(denied)) => denied.headers.keys().map(ToString::to_string).collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(shown(None), ["location", "x-why", "x-internal"]);
        assert_eq!(shown(Some(&["x-why"])), ["location", "x-why"]);
    }
}
