//! Connections that stop being HTTP's: WebSocket and other upgrades, and CONNECT.
//!
//! Within, all that asks for another protocol has HTTP/1.1's form, so that routes and policies see one request: a GET with
//! `upgrade`. HTTP/2 asks by a CONNECT that names the protocol (RFC 8441); what goes on is said in the endpoint's own way.

use std::rc::Rc;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderValue, Method, Response, StatusCode, Version as HttpVersion,
    header::{CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE},
};
use http_body::Body as _;
use hyper::{Request, body::Incoming, ext::Protocol};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_local;

use super::{
    attempt::Sent,
    fields,
    ledger::Ledger,
    other::{Other, Upstream},
    reply::{Flag, Refusal},
};
use crate::{inbound::Connection, upstream::AnswerBody};

/// What a server of WebSocket adds to a client's key (RFC 6455, section 1.3).
const WEBSOCKET: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A request that asks for it.
pub(super) struct Upgrading {
    connection: Rc<Connection>,
    client: Client,
    is_connect: bool,
}

/// What carries the client's side.
enum Client {
    /// The whole connection.
    Http1,
    /// One stream.
    Http2(hyper::upgrade::OnUpgrade),
}

impl Upgrading {
    /// What a request asks for; none for one that stays HTTP.
    pub(super) fn of(connection: &Rc<Connection>, request: &mut Request<Incoming>) -> Option<Self> {
        let mut is_connect = request.method() == Method::CONNECT;
        let connection = connection.clone();
        if request.version() == HttpVersion::HTTP_2 {
            if !is_connect {
                return None;
            }
            let client = Client::Http2(hyper::upgrade::on(&mut *request));
            if let Some(protocol) = request.extensions_mut().remove::<Protocol>() {
                is_connect = false;
                ask_for(&protocol, request);
            }
            return Some(Self { connection, client, is_connect });
        }
        let mut asks = request.version() == HttpVersion::HTTP_11 && fields::keep_protocols(request.headers_mut());
        if asks && !request.body().is_end_stream() {
            // Another protocol has no room for a body, and who asks may be ignored (RFC 9110, section 7.8).
            request.headers_mut().remove(UPGRADE);
            asks = false;
        }
        (is_connect || asks).then_some(Self { connection, client: Client::Http1, is_connect })
    }

    /// Whether it is CONNECT for bytes, which names no protocol.
    pub(super) const fn is_connect(&self) -> bool {
        self.is_connect
    }

    /// # Errors
    /// The protocol would carry requests that nobody here judges. HTTP/1.1 may ignore who asks for it; HTTP/2 has asked for nothing
    /// else.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if self.is_connect || protocol(headers).is_some_and(|name| !fields::hides_requests(name)) {
            return Ok(());
        }
        Err(Refusal::new(501, "no such protocol may go on here", Flag::DownstreamProtocol))
    }

    /// Makes the endpoint's answer one in the client's way, and says whether it agrees; `asked` are the fields of the request.
    ///
    /// # Errors
    /// It says yes in a way that is none.
    pub(super) fn agreed(&self, asked: &HeaderMap, response: &mut Response<AnswerBody>) -> Result<bool, Refusal> {
        let status = response.status();
        let (by_http2, to_http2) = (response.version() == HttpVersion::HTTP_2, matches!(self.client, Client::Http2(_)));
        let lie = |text| Err(Refusal::new(502, text, Flag::UpstreamProtocol));
        let agrees = match (self.is_connect, by_http2) {
            (true, false) => status.is_success(),
            (false, false) => status == StatusCode::SWITCHING_PROTOCOLS,
            (_, true) => status == StatusCode::OK,
        };
        if !agrees {
            let seems_to = status.is_success() && (by_http2 || to_http2);
            return if seems_to { lie("the endpoint did not change the protocol") } else { Ok(false) };
        }
        response.headers_mut().remove(CONTENT_LENGTH);
        if self.is_connect || by_http2 == to_http2 {
            return Ok(true);
        }
        let protocol = protocol(asked).unwrap_or_default();
        let accept = accept(asked).filter(|_| protocol.eq_ignore_ascii_case("websocket"));
        let headers = response.headers_mut();
        if to_http2 {
            if accept.is_some() && headers.get(SEC_WEBSOCKET_ACCEPT) != accept.as_ref() {
                return lie("the endpoint's Sec-WebSocket-Accept is not that of the key");
            }
            headers.remove(SEC_WEBSOCKET_ACCEPT);
            headers.remove(UPGRADE);
            *response.status_mut() = StatusCode::OK;
        } else {
            if let Some(accept) = accept {
                headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
            }
            headers.insert(UPGRADE, HeaderValue::from_str(protocol).unwrap_or(HeaderValue::from_static("-")));
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        Ok(true)
    }

    /// Has bytes pass both ways once the response is out.
    pub(super) fn hand_over(self, sent: Sent, ledger: &Rc<Ledger>) -> Response<AnswerBody> {
        let Sent { mut response, lease } = sent;
        let upstream = lease.other().unwrap_or_else(|| Upstream::Http2(hyper::upgrade::on(&mut response)));
        let other = Other::new(upstream, lease, ledger.clone());
        match self.client {
            Client::Http1 => self.connection.upgrade_to(other),
            Client::Http2(client) => {
                spawn_local(async move {
                    if let Ok(client) = client.await {
                        other.carry(&self.connection.worker, TokioIo::new(client)).await;
                    }
                });
            }
        }
        response
    }
}

/// Gives a request of HTTP/2 for another protocol the form that HTTP/1.1 has for it.
fn ask_for(protocol: &Protocol, request: &mut Request<Incoming>) {
    *request.method_mut() = Method::GET;
    let headers = request.headers_mut();
    if let Ok(name) = HeaderValue::from_str(protocol.as_str()) {
        headers.insert(UPGRADE, name);
    }
    if protocol.as_str().eq_ignore_ascii_case("websocket") {
        // HTTP/2 needs no proof that the server knows the protocol (RFC 8441, section 5); HTTP/1.1's servers give one.
        let key = STANDARD.encode(fastrand::u128(..).to_be_bytes());
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_str(&key).unwrap_or(HeaderValue::from_static("-")));
    }
}

/// The protocol that a request asks for, of several the first.
pub(super) fn protocol(headers: &HeaderMap) -> Option<&str> {
    let names = headers.get(UPGRADE)?.to_str().ok()?;
    names.split(',').map(str::trim).next().filter(|name| !name.is_empty())
}

/// What shows that a server has read the client's key (RFC 6455, section 4.2.2).
fn accept(asked: &HeaderMap) -> Option<HeaderValue> {
    let key = asked.get(SEC_WEBSOCKET_KEY)?.to_str().ok()?.trim();
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{WEBSOCKET}").as_bytes());
    HeaderValue::try_from(STANDARD.encode(digest)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6455, section 1.3.
    #[test]
    fn a_key_is_accepted_by_its_digest() {
        let mut asked = HeaderMap::new();
        assert_eq!(accept(&asked), None);
        asked.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept(&asked).expect("an answer"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
