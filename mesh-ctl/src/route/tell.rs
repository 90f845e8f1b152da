//! What becomes of a request, for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use mesh_admin::{Ejected, RequestBackend, RequestPolicy, RequestPreferred, RequestServer, RequestWhy, Why};

use crate::output::{age, one_line};
use crate::why::tell_policy;

/// Servers of a backend that are shown one by one.
const MAX_SHOWN: usize = 8;

/// All of an answer.
pub(crate) fn for_people(answer: &RequestWhy) -> String {
    let mut text = String::new();
    if let Some(connection) = &answer.connection {
        tell_connection(&mut text, connection);
    }
    let known = [
        ("service", &answer.service),
        ("waypoint", &answer.waypoint),
        ("gateway", &answer.gateway),
        ("listener", &answer.listener),
        ("token", &answer.principal),
    ];
    for (name, value) in known {
        value.iter().for_each(|value| line(&mut text, name, value));
    }
    if answer.principal.is_none() && !answer.authentication.is_empty() {
        line(&mut text, "token", &format!("none that {} believes", answer.authentication.join(" or ")));
    }
    if let Some(policy) = &answer.policy {
        tell_policies(&mut text, policy);
    }
    for limit in &answer.limits {
        line(&mut text, "limit", &format!("{}: {}; else {}", limit.limit, limit.rate, limit.status));
    }
    if let Some(rule) = &answer.rule {
        line(&mut text, "rule", rule);
    }
    answer.matched.iter().for_each(|matched| line(&mut text, "matches", matched));
    line(&mut text, "request", &answer.outcome);
    let mut name = "to";
    for backend in &answer.backends {
        tell_backend(&mut text, name, backend, answer.path.is_none());
        name = "";
    }
    if !answer.asked.is_empty() {
        let out: BTreeSet<&str> =
            answer.backends.iter().flat_map(|backend| &backend.ejected).map(|it| &*it.endpoint).collect();
        let out = match out.len() {
            0 => "no endpoint is ejected".to_owned(),
            1 => "one endpoint is ejected".to_owned(),
            many => format!("{many} endpoints are ejected"),
        };
        line(&mut text, "asked", &format!("{}: {out}", answer.asked.join(", ")));
    }
    answer.path.iter().for_each(|path| line(&mut text, "as", path));
    let mut name = "with";
    for what in &answer.with {
        line(&mut text, name, what);
        name = "";
    }
    answer.notes.iter().for_each(|note| line(&mut text, "note", note));
    text
}

fn tell_connection(text: &mut String, connection: &Why) {
    let source = &connection.source;
    let pod = source.namespace.as_ref().zip(source.pod.as_ref());
    let name = pod.map_or_else(|| source.address.to_string(), |(namespace, pod)| format!("{namespace}/{pod}"));
    let who = match (&source.identity, &source.outside) {
        (_, Some(why)) => format!("{name}, outside the mesh: {why}"),
        (Some(identity), None) => format!("{name}, {identity}"),
        (None, None) => name,
    };
    line(text, "from", &who);
    if let Some(way) = connection.ways.first() {
        line(text, "path", &format!("{}: {}", way.path.replace('_', " "), way.path_reason));
    }
}

fn tell_policies(text: &mut String, policy: &RequestPolicy) {
    if policy.considered.is_empty() {
        line(text, "policies", "none is about it");
        return;
    }
    for (index, considered) in policy.considered.iter().enumerate() {
        tell_policy(text, if index == 0 { "policies" } else { "" }, considered, line);
    }
    for authorizer in &policy.authorizers {
        line(text, "asks", &format!("authorizer {authorizer}; what follows is if it allows the request as it is"));
    }
    line(text, "verdict", &format!("{}: {}", if policy.allowed { "allowed" } else { "refused" }, policy.reason));
    policy.dry_run.iter().for_each(|dry_run| line(text, "dry run", dry_run));
    if !policy.audited.is_empty() {
        line(text, "audited", &policy.audited.join(", "));
    }
}

fn tell_backend(text: &mut String, name: &str, backend: &RequestBackend, own_path: bool) {
    line(text, name, &format!("{:.4} %  {}", backend.percent, backend.to));
    if let Some(path) = backend.path.as_ref().filter(|_| own_path) {
        line(text, "", &format!("  as {path}"));
    }
    backend.host.iter().for_each(|host| line(text, "", &format!("  as host {host}")));
    // A backend that names nothing says so itself.
    if let (Some(status), Some(why), false) = (backend.status, &backend.fails, backend.to.starts_with("nobody")) {
        line(text, "", &format!("  answered with {status}: {why}"));
    }
    backend.preferred.iter().for_each(|preferred| line(text, "", &format!("  {}", of_preferred(preferred))));
    let Some(shown) = backend.servers.get(..MAX_SHOWN.min(backend.servers.len())) else { return };
    shown.iter().for_each(|server| line(text, "", &format!("  {}", of_server(server, backend))));
    let others = backend.preferred.as_ref().map_or(0, |preferred| preferred.others);
    let more = (backend.endpoints + others).saturating_sub(shown.len());
    if more > 0 && !shown.is_empty() {
        line(text, "", &format!("  and {more} more"));
    }
    let is_shown = |ejected: &&Ejected| shown.iter().any(|server| server.endpoint == ejected.endpoint);
    for ejected in backend.ejected.iter().filter(|ejected| !is_shown(ejected)).take(MAX_SHOWN) {
        let pod = ejected.pod.as_ref().map_or_else(String::new, |pod| format!("{pod} "));
        line(text, "", &format!("  of these {pod}({}) is {}", ejected.endpoint, of_ejected(ejected)));
    }
}

/// Why servers are not all alike, and to whom.
fn of_preferred(preferred: &RequestPreferred) -> String {
    let at = preferred.locality.as_ref().map_or_else(String::new, |locality| format!(" in {locality}"));
    let otherwise = match preferred.otherwise {
        0 => String::new(),
        1 => "; another replica sees it otherwise, from where it is".to_owned(),
        many => format!("; {many} other replicas see it otherwise, from where they are"),
    };
    format!("chosen by {}, seen from {}{at}{otherwise}", preferred.by, preferred.seen_from)
}

fn of_server(server: &RequestServer, of: &RequestBackend) -> String {
    let pod = server.pod.as_ref().map_or_else(String::new, |pod| format!("{pod} "));
    let reached = match (&server.by, &server.stop) {
        (_, Some(stop)) => format!("{pod}({}) refuses: {stop}", server.endpoint),
        (Some(by), None) => format!("{pod}({}) by {by}", server.endpoint),
        (None, None) => format!("{pod}({})", server.endpoint),
    };
    let is_told = of.preferred.is_some();
    let at = server.locality.as_ref().filter(|_| is_told).map(|locality| format!("in {locality}"));
    let rank = match (server.left_out, server.priority, server.share) {
        (true, ..) => Some("left out, for where it is".to_owned()),
        (_, Some(0), _) => Some("first".to_owned()),
        (_, Some(priority), _) => Some(format!("priority {priority}, stands in for those before it")),
        (_, None, Some(share)) => Some(format!("share {share} of its locality")),
        (_, None, None) => None,
    };
    let ejected = of.ejected.iter().filter(|ejected| ejected.endpoint == server.endpoint).map(of_ejected);
    std::iter::once(reached).chain(at).chain(rank).chain(ejected).collect::<Vec<_>>().join(", ")
}

fn of_ejected(ejected: &Ejected) -> String {
    format!("ejected at {}: {}; back in {}", ejected.at, ejected.why, age(ejected.returns_in_seconds))
}

fn line(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "{name:10} {}", one_line(value));
}
