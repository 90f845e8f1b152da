//! What an authorizer answers, by gRPC and by HTTP: what it changes leaves framing and host alone.

#![no_main]

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use libfuzzer_sys::fuzz_target;
use mesh_core::policy::Pattern;
use mesh_core::provider::HttpCheck;
use mesh_ext_authz::{Answer, grpc, http as by_http};

const FRAMING: [&str; 4] = ["content-length", "transfer-encoding", "connection", "host"];

fn check(answer: Answer) {
    match answer {
        Answer::Denied(denied) => {
            assert!((200..=599).contains(&denied.status.as_u16()));
            assert!(FRAMING.iter().all(|name| !denied.headers.contains_key(*name)));
        }
        Answer::Allowed(changes) => {
            let mut headers = HeaderMap::new();
            for name in FRAMING {
                headers.insert(name, HeaderValue::from_static("mine"));
            }
            changes.write_request(&mut headers);
            for name in FRAMING {
                assert!(headers.get_all(name).iter().eq(["mine"]), "{name}");
            }
            if let Some(target) = changes.write_target(&"/path?a=1&b=2".parse().unwrap()) {
                assert_eq!(target.path(), "/path");
            }
            changes.write_response(&mut HeaderMap::new());
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let ok = HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"))]);
    if let Ok(answer) = grpc::answer(StatusCode::OK, &HeaderMap::new(), data, Some(&ok)) {
        check(answer);
    }
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
    let framed = [&[0][..], &length, data].concat();
    if let Ok(answer) = grpc::answer(StatusCode::OK, &ok, &framed, None) {
        check(answer);
    }
    let Some((status, text)) = data.split_at_checked(2) else { return };
    let Ok(status) = StatusCode::from_u16(u16::from_be_bytes([status[0], status[1]])) else { return };
    if status.as_u16() > 599 {
        return;
    }
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(&line[..colon]), HeaderValue::from_bytes(&line[colon + 1..]))
        {
            headers.append(name, value);
        }
    }
    let all = || [Pattern::Presence].into_iter().collect();
    let asks =
        HttpCheck { to_upstream_on_allow: all(), to_downstream_on_allow: all(), ..HttpCheck::default() };
    if let Ok(answer) = by_http::answer(status, &headers, Default::default(), &asks) {
        check(answer);
    }
});
