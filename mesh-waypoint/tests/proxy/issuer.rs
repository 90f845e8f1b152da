//! Somebody who issues tokens, and a server that publishes their keys.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;

use crate::world::OUTSIDE;

/// The issuer's name.
pub(crate) const ISSUER: &str = "https://issuer.example";

/// An issuer's key pair.
pub(crate) struct Issuer {
    pair: EcdsaKeyPair,
    key_name: &'static str,
}

pub(crate) fn b64(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// What a token of alice's says.
pub(crate) fn alice() -> Value {
    json!({"iss": ISSUER, "sub": "alice", "aud": "shop", "exp": now() + 600, "groups": ["staff"]})
}

impl Issuer {
    pub(crate) fn new(key_name: &'static str) -> Self {
        Self { pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"), key_name }
    }

    /// The public key, as a set has it.
    pub(crate) fn key(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": self.key_name, "x": b64(x), "y": b64(y)})
    }

    /// The key set.
    pub(crate) fn keys(&self) -> String {
        json!({"keys": [self.key()]}).to_string()
    }

    /// A token.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.signed(&json!({"alg": "ES256", "typ": "JWT", "kid": self.key_name}), claims)
    }

    /// Anything, signed.
    pub(crate) fn signed(&self, header: &Value, claims: &Value) -> String {
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", b64(signature))
    }
}

/// A server with one document.
pub(crate) struct Publisher {
    /// What it answers; nothing for 503.
    pub(crate) document: RefCell<Option<String>>,
    /// How often it was asked.
    pub(crate) asked: Cell<usize>,
}

/// Publishes a document at a port of [`OUTSIDE`], by HTTPS if there is a way to end TLS.
pub(crate) async fn publish(port: u16, document: String, tls: Option<rustls::ServerConfig>) -> Rc<Publisher> {
    let listener = TcpListener::bind((OUTSIDE, port)).await.expect("listen");
    let publisher = Rc::new(Publisher { document: RefCell::new(Some(document)), asked: Cell::new(0) });
    let (serving, tls) = (publisher.clone(), tls.map(|config| TlsAcceptor::from(Arc::new(config))));
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (publisher, tls) = (serving.clone(), tls.clone());
            spawn_local(async move {
                match tls {
                    None => answer(publisher, stream).await,
                    Some(tls) => {
                        // A client that does not trust us goes away.
                        if let Ok(stream) = tls.accept(stream).await {
                            answer(publisher, stream).await;
                        }
                    }
                }
            });
        }
    });
    publisher
}

async fn answer(publisher: Rc<Publisher>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(|_| {
        publisher.asked.set(publisher.asked.get() + 1);
        let document = publisher.document.borrow().clone();
        let status = if document.is_some() { 200 } else { 503 };
        let response = Response::builder().status(status).body(Full::<Bytes>::from(document.unwrap_or_default()));
        async move { Ok::<_, Infallible>(response.expect("valid")) }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
