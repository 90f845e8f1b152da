//! `mesh-ctl route`: what becomes of a request, by the routes of the Service that it is sent to. Nothing is sent.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use hyper::Uri;
use mesh_config::load;
use mesh_core::l7::{Action, Backend, BackendTarget, Found, RequestView, path};
use mesh_core::{Snapshot, Workload};
use serde::Serialize;

use crate::Outcome;
use crate::manifests::Reading;
use crate::output::{Format, print, print_value};

/// Says which rule a request belongs to, and what becomes of it, without sending it.
#[derive(Debug, Args)]
#[command(after_help = crate::EXIT_CODES)]
pub(crate) struct Route {
    /// What is asked for: http://SERVICE.NAMESPACE[:PORT]/PATH?QUERY.
    url: Uri,
    /// A directory of manifests, or one file.
    #[arg(long, value_name = "PATH")]
    config: PathBuf,
    /// The method.
    #[arg(short = 'X', long, default_value = "GET")]
    method: String,
    /// A field of the request's header, as `NAME: VALUE`; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "FIELD", value_parser = header_field)]
    headers: Vec<(String, String)>,
    /// Who sends it: NAMESPACE/POD, the name of a pod or of its owner, or an address.
    #[arg(long, value_name = "SRC")]
    from: Option<String>,
    /// The form of the output.
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    reading: Reading,
}

fn header_field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
}

/// A request that nobody sends.
struct Request<'a> {
    route: &'a Route,
    host: String,
    port: u16,
    /// In normal form, as a waypoint reads it.
    path: Cow<'a, str>,
    client: Option<Arc<Workload>>,
}

impl RequestView for Request<'_> {
    fn method(&self) -> &str {
        &self.route.method
    }

    fn scheme(&self) -> &str {
        "http"
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> Option<&str> {
        self.route.url.query()
    }

    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        let fields = self.route.headers.iter().filter(|(known, _)| known == name);
        let values: Vec<&str> = fields.map(|(_, value)| value.as_str()).collect();
        (!values.is_empty()).then(|| Cow::Owned(values.join(",")))
    }

    fn client(&self) -> Option<&Workload> {
        self.client.as_deref()
    }
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    service: String,
    /// Who looks at requests; nobody, and they go as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<String>,
    /// The rule that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// What becomes of the request.
    outcome: String,
    /// Who may get it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    backends: Vec<Share>,
    /// What is asked for there, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// What happens besides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    with: Vec<String>,
    /// Whether nobody can answer it.
    #[serde(skip)]
    lost: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Share {
    percent: f64,
    to: String,
}

impl Route {
    pub(crate) fn run(&self) -> anyhow::Result<Outcome> {
        let config = load(&self.config, &self.reading.options())?;
        let answer = self.answer(&config.snapshot)?;
        match self.output {
            Format::Table => print(&answer.for_people())?,
            format => print_value(&answer, format)?,
        }
        Ok(if answer.lost { Outcome::Bad } else { Outcome::Good })
    }

    fn answer(&self, snapshot: &Snapshot) -> anyhow::Result<Answer> {
        if self.url.scheme_str() != Some("http") {
            bail!("{}: write the request as http://SERVICE.NAMESPACE[:PORT]/PATH", self.url);
        }
        let authority = self.url.authority().context("the URL names no host")?;
        let client = match &self.from {
            Some(from) => mesh_core::why::find_client(snapshot, from, None)?.workload,
            None => None,
        };
        let namespace = client.as_ref().map(|client| &*client.namespace);
        let asked = format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80));
        let address = mesh_core::why::find_target(snapshot, &asked, namespace)?.address;
        let service = snapshot.service_by_vip(address.ip());
        let service = service.with_context(|| format!("{asked} is no Service with an address: it has no routes"))?;
        let mut answer = Answer { service: service.hostname.to_string(), ..Answer::default() };
        let Some(waypoint) = snapshot.l7().waypoint_of(service) else {
            "forwarded as it is: the Service has no waypoint, and nobody else looks at requests"
                .clone_into(&mut answer.outcome);
            return Ok(answer);
        };
        answer.waypoint = Some(waypoint.to_string());
        let path = match path::normalised(self.url.path()) {
            Ok(path) => path,
            Err(error) => {
                answer.outcome = format!("answered with 400: {error}");
                answer.lost = true;
                return Ok(answer);
            }
        };
        let host = authority.host().to_ascii_lowercase();
        let request = Request { route: self, host, port: address.port(), path, client: client.clone() };
        let Some(table) = snapshot.l7().service_routes(namespace, &service.hostname, address.port()) else {
            "forwarded as it is: the Service has no routes".clone_into(&mut answer.outcome);
            return Ok(answer);
        };
        match table.find(&request) {
            None => {
                "answered with 404: no rule of the Service matches it".clone_into(&mut answer.outcome);
                answer.lost = true;
            }
            Some(found) => answer.describe(&found, &request),
        }
        Ok(answer)
    }
}

impl Answer {
    fn describe(&mut self, found: &Found<'_>, request: &Request<'_>) {
        let rule = found.rule;
        self.rule = Some(rule.at.to_string());
        self.with = rule.beside(request.port);
        match &rule.action {
            Action::Forward(backends) => {
                "forwarded".clone_into(&mut self.outcome);
                self.backends = shares(backends, request.port);
                let resolved =
                    |backend: &Backend| backend.weight > 0 && matches!(backend.target, BackendTarget::Service { .. });
                self.lost = !backends.iter().any(resolved);
                let rewritten = rule.rewrite.path.as_ref().map(|rewrite| rewrite.apply(request.path(), found.path()));
                self.path = rewritten.filter(|path| path != request.path());
            }
            Action::Redirect(redirect) => {
                let location = redirect.location(request, found.path());
                self.outcome = format!("answered with {}: go to {location}", redirect.status);
            }
            Action::Respond(response) => {
                self.outcome = format!("answered with {} by the rule itself", response.status);
            }
        }
    }

    fn for_people(&self) -> String {
        let line = |name: &str, text: &str| format!("{name:10} {text}\n");
        let mut text = line("service", &self.service);
        for (name, value) in [("waypoint", &self.waypoint), ("rule", &self.rule)] {
            text.extend(value.iter().map(|value| line(name, value)));
        }
        text.push_str(&line("request", &self.outcome));
        let mut name = "to";
        for share in &self.backends {
            text.push_str(&line(name, &format!("{:.4} %  {}", share.percent, share.to)));
            name = "";
        }
        text.extend(self.path.iter().map(|path| line("as", path)));
        let mut name = "with";
        for what in &self.with {
            text.push_str(&line(name, what));
            name = "";
        }
        text
    }
}

fn shares(backends: &[Backend], port: u16) -> Vec<Share> {
    let total: f64 = backends.iter().map(|backend| f64::from(backend.weight)).sum();
    let share = |backend: &Backend| {
        let percent = if total > 0.0 { f64::from(backend.weight) * 100.0 / total } else { 0.0 };
        Share { percent, to: backend.target.at_port(port) }
    };
    backends.iter().map(share).collect()
}
