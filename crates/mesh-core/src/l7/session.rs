//! Sessions: requests that belong together go to the endpoint that the first of them went to (Gateway API, GEP-1619).

use std::sync::Arc;
use std::time::Duration;

/// What a rule asks for (`sessionPersistence`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The cookie's name, or the header field's in lower case.
    pub name: Arc<str>,
    /// Where clients say which session is theirs.
    pub place: SessionPlace,
    /// How long a session may last.
    pub absolute: Option<Duration>,
    /// How long it may go unused.
    pub idle: Option<Duration>,
}

/// Where clients say which session is theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionPlace {
    /// A cookie; `permanent` outlives the browser, for as long as the session may last.
    Cookie {
        /// Whether it does.
        permanent: bool,
    },
    /// A header field, of requests and of responses.
    Header,
}

/// A session, as a client tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionToken {
    /// The endpoint's cluster and address, as whoever forwards requests names them.
    pub endpoint: String,
    /// When it began, and when it was used last, in seconds since 1970.
    pub times: (u64, u64),
}

impl SessionToken {
    /// What a client is told.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}|{}|{}", self.endpoint, self.times.0, self.times.1)
    }

    /// Reads what a client says. Nobody has to believe it: it names an endpoint, and whoever reads it looks whether that is one of
    /// those that a request may go to.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let (rest, used) = text.rsplit_once('|')?;
        let (endpoint, began) = rest.rsplit_once('|')?;
        Some(Self { endpoint: endpoint.to_owned(), times: (began.parse().ok()?, used.parse().ok()?) })
    }
}

impl Session {
    /// Whether a session is over at a time, in seconds since 1970.
    #[must_use]
    pub fn is_over(&self, token: &SessionToken, now: u64) -> bool {
        let (began, used) = token.times;
        let over = |limit: Option<Duration>, since: u64| limit.is_some_and(|limit| since + limit.as_secs() <= now);
        // A time to come is nobody's of ours.
        began > now + 60 || used > now + 60 || over(self.absolute, began) || over(self.idle, used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_by_its_age_or_by_disuse() {
        let of = |absolute: Option<u64>, idle: Option<u64>| Session {
            name: "session".into(),
            place: SessionPlace::Header,
            absolute: absolute.map(Duration::from_secs),
            idle: idle.map(Duration::from_secs),
        };
        let token = SessionToken { endpoint: "a|b".to_owned(), times: (1_000, 1_050) };
        assert_eq!(SessionToken::read(&token.text()).as_ref(), Some(&token));
        for (session, now, expected) in [
            (of(None, None), 1_000_000, false),
            (of(Some(100), None), 1_099, false),
            (of(Some(100), None), 1_100, true),
            (of(None, Some(100)), 1_149, false),
            (of(None, Some(100)), 1_150, true),
            (of(Some(100), Some(10)), 1_070, true),
            (of(None, None), 900, true),
        ] {
            assert_eq!(session.is_over(&token, now), expected, "{session:?} at {now}");
        }
        for text in ["", "a", "a|1", "a|x|1", "a|1|x"] {
            assert_eq!(SessionToken::read(text), None, "{text:?}");
        }
    }
}
