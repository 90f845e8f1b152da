//! Sessions: which endpoint a client's requests belong to, and how the client is told (GEP-1619).

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue, header::SET_COOKIE};
use mesh_core::l7::{Backend, RequestView as _, Rule, Session, SessionPlace, SessionToken};

use super::head::Head;
use crate::upstream::ClusterKey;

/// Octets of what a client says of its session.
const MAX_TEXT: usize = 1 << 10;

/// The session that a request is of, or that begins with it.
pub(super) struct Held {
    rule: Arc<Rule>,
    /// The endpoint that it is with, and when that began.
    known: Option<(SocketAddr, u64)>,
    /// Seconds since 1970.
    now: u64,
    /// Whether its client came by https.
    secure: bool,
}

impl Held {
    /// The session of a request that a rule is about, and the backend that it is with; none where the rule asks for no sessions. A
    /// client that names what is none of the rule's backends begins a new one.
    pub(super) fn of(rule: &Arc<Rule>, backends: &[Backend], head: &Head, port: u16) -> Option<(Self, Option<usize>)> {
        let session = rule.session.as_ref()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let found = told(session, head).filter(|token| !session.is_over(token, now)).and_then(|token| {
            let (cluster, address) = token.endpoint.rsplit_once('@')?;
            let is_it = |backend: &Backend| {
                ClusterKey::of_backend(&backend.target, port).is_ok_and(|key| key.to_string() == cluster)
            };
            Some((backends.iter().position(is_it)?, (address.parse().ok()?, token.times.0)))
        });
        let (backend, known) = found.unzip();
        let secure = head.scheme() == "https";
        Some((Self { rule: rule.clone(), known, now, secure }, backend))
    }

    /// The endpoint that it is with.
    pub(super) fn endpoint(&self) -> Option<SocketAddr> {
        self.known.map(|(endpoint, _)| endpoint)
    }

    /// Tells the client which session is its own, where that is news to it.
    pub(super) fn tell(&self, (cluster, endpoint): (&ClusterKey, SocketAddr), headers: &mut HeaderMap) {
        let Some(session) = &self.rule.session else { return };
        let stays = self.known.filter(|(known, _)| *known == endpoint);
        if stays.is_some() && session.idle.is_none() {
            return;
        }
        let began = stays.map_or(self.now, |(_, began)| began);
        let token = SessionToken { endpoint: format!("{cluster}@{endpoint}"), times: (began, self.now) };
        let text = URL_SAFE_NO_PAD.encode(token.text());
        let (name, value) = match session.place {
            SessionPlace::Header => (HeaderName::try_from(&*session.name).ok(), text),
            SessionPlace::Cookie { permanent } => {
                let left = session
                    .absolute
                    .filter(|_| permanent)
                    .map(|limit| (began + limit.as_secs()).saturating_sub(self.now));
                let age = left.map_or_else(String::new, |left| format!("; Max-Age={left}"));
                // With `Strict`, who follows another site's link would begin a new session.
                let secure = if self.secure { "; Secure" } else { "" };
                (Some(SET_COOKIE), format!("{}={text}; Path=/{age}; HttpOnly; SameSite=Lax{secure}", session.name))
            }
        };
        if let (Some(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
}

/// What a client says of its session.
fn told(session: &Session, head: &Head) -> Option<SessionToken> {
    let text = match session.place {
        SessionPlace::Cookie { .. } => head.cookie(&session.name)?,
        SessionPlace::Header => head.header(&session.name)?.into_owned(),
    };
    let octets = (text.len() <= MAX_TEXT).then(|| URL_SAFE_NO_PAD.decode(text).ok())??;
    SessionToken::read(std::str::from_utf8(&octets).ok()?)
}
