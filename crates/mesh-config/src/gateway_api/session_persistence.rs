//! A rule's `sessionPersistence` (experimental channel of the Gateway API).

use std::sync::Arc;

use mesh_core::PolicyName;
use mesh_core::l7::{Session, SessionPlace};
use serde::Deserialize;

use crate::istio::{Flaw, check_header_field, duration};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawSession {
    session_name: Option<String>,
    absolute_timeout: Option<String>,
    idle_timeout: Option<String>,
    #[serde(rename = "type", default)]
    kind: Kind,
    #[serde(default)]
    cookie_config: RawCookie,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum Kind {
    #[default]
    Cookie,
    Header,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawCookie {
    #[serde(default)]
    lifetime_type: Lifetime,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum Lifetime {
    #[default]
    Session,
    Permanent,
}

impl RawSession {
    /// What the rule of that place in a route asks for; `field` is the rule.
    pub(super) fn read(self, route: &PolicyName, index: usize, field: &str) -> Result<Session, Flaw> {
        let at = |name: &str| format!("{field}.sessionPersistence.{name}");
        let permanent = self.cookie_config.lifetime_type == Lifetime::Permanent;
        if permanent && self.absolute_timeout.is_none() {
            return Err(Flaw::value(at("absoluteTimeout"), "a permanent cookie has one"));
        }
        let given = self.session_name.filter(|name| !name.is_empty());
        let name = given.unwrap_or_else(|| format!("mesh-session-{}-{}-{index}", route.namespace, route.name));
        // A cookie's name is a token as well (RFC 6265, section 4.1.1).
        check_header_field(&name, "", &at("sessionName"))?;
        let time = |text: Option<String>, name: &str| text.map(|text| duration(&text, at(name))).transpose();
        let (place, name) = match self.kind {
            Kind::Cookie => (SessionPlace::Cookie { permanent }, name),
            Kind::Header => (SessionPlace::Header, name.to_ascii_lowercase()),
        };
        let absolute = time(self.absolute_timeout, "absoluteTimeout")?;
        Ok(Session { name: Arc::from(name), place, absolute, idle: time(self.idle_timeout, "idleTimeout")? })
    }
}
