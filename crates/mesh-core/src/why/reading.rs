//! A request before whoever reads it: tokens, policies, limits, the rule, and whom it is sent to.

use std::net::IpAddr;
use std::sync::Arc;

use super::imagined::Imagined;
use super::onward::{Failure, Forwarder, Share};
use super::request::{Outcome, Reader, RequestAnswer, RequestQuestion, refused};
use crate::identity::SpiffeId;
use crate::l7::cors::Crossing;
use crate::l7::gateway::{Entered, Listener, NotServed};
use crate::l7::{Abort, Action, Backend, Found, Percent, Place, RequestView as _, RouteTable};
use crate::model::Service;
use crate::policy::{Facts, Peer, PolicyName, RequestFacts, TokenRule, explain_request};
use crate::rate_limit::Judging;

/// Whoever reads a request: where, whose, and who they are themselves.
pub(super) struct Reading<'a> {
    pub(super) question: RequestQuestion<'a>,
    pub(super) place: Place<'a>,
    /// The Service that is meant, of those that share the address.
    pub(super) meant: Option<&'a Arc<Service>>,
    /// The client's identity, where it is proven.
    pub(super) identity: Option<&'a SpiffeId>,
    /// The client's address.
    pub(super) client: IpAddr,
    /// The client for whom it is sent on, by the word of proxies that are believed.
    pub(super) forwarded: IpAddr,
    pub(super) own: Forwarder<'a>,
}

impl Reading<'_> {
    fn facts<'f>(&'f self, server: Option<&'f str>) -> Facts<'f> {
        let peer = self.identity.map_or(Peer::Unproven, Peer::Certificate);
        let (client, destination) = (self.client, self.place.destination());
        Facts { peer, client, forwarded: Some(self.forwarded), server, destination }
    }

    /// Tokens, then policies. Whether the request goes on.
    pub(super) fn admit(&self, answer: &mut RequestAnswer, request: &mut Imagined) -> bool {
        let snapshot = self.question.snapshot;
        let authentication = self.place.authentication(snapshot);
        answer.authentication = authentication.iter().map(|policy| Arc::clone(&policy.name)).collect();
        let rules: Vec<_> = authentication.iter().flat_map(|policy| &policy.rules).collect();
        // What the destination believes to be claims is not the client's to say.
        let shown = |rule: &&Arc<TokenRule>, name: &str| {
            rule.payload_field.as_deref() == Some(name) || rule.claim_fields.iter().any(|shown| *shown.field == *name)
        };
        request.headers.retain(|(name, _)| !rules.iter().any(|rule| shown(rule, name)));
        match self.question.tokens.believed(&rules) {
            Ok(token) => request.token = token,
            Err(Failure { status, why }) => {
                answer.outcome = refused(status, why);
                return false;
            }
        }
        answer.principal = request.token.as_ref().and_then(|token| token.principal.clone());
        let facts = RequestFacts { view: request, token: request.token.as_ref() };
        // Whoever asks a gateway by https names the same server in TLS.
        let server = (request.tls && matches!(self.place, Place::Gateway(_))).then_some(&*request.host);
        let judged = explain_request(snapshot, &self.place.policies(snapshot), &self.facts(server), Some(&facts));
        let denial = judged.authorization.verdict.as_ref().err().map(ToString::to_string);
        answer.judged = Some(judged);
        if let Some(denial) = denial {
            answer.outcome = refused(403, denial);
            return false;
        }
        true
    }

    /// What a gateway has for a request that policies let on.
    pub(super) fn enter(
        &self,
        answer: &mut RequestAnswer,
        gateway: &PolicyName,
        entered: Result<Entered<'_>, NotServed>,
        request: &Imagined,
    ) {
        let listener = match entered {
            Ok(Entered::Rules(listener, table)) => {
                self.route(answer, request, Some(table));
                listener
            }
            Ok(Entered::ByHttps(listener)) => {
                let why = format!("the listener sends clients to https://{}{}", request.host, request.path);
                answer.outcome = Outcome::Answered { status: 301, why, wanted: true };
                listener
            }
            Err(error) => {
                answer.outcome = refused(error.status(), error.to_string());
                return;
            }
        };
        answer.reader = Some(Reader::Gateway(gateway.clone(), Some(Arc::clone(listener))));
    }

    /// What is no HTTP, to the Service that was asked for.
    pub(super) fn carry(&self, answer: &mut RequestAnswer) {
        if let Place::Service(service, port) = self.place {
            answer.shares = vec![Share::of_service(self.question.snapshot, self.own, service, port)];
        }
        self.admit_connection(answer, None);
    }

    /// What a gateway does not look into, by weight.
    pub(super) fn pass_on(&self, answer: &mut RequestAnswer, listener: &Listener, server: Option<&str>) {
        match listener.connection_route(server) {
            Some(route) => {
                answer.shares = Share::of_backends(self.question.snapshot, self.own, &route.backends, 0);
                answer.matched = Some(route.at.to_string());
                self.admit_connection(answer, server);
            }
            None => answer.outcome = Outcome::NotConnected("no route is for the connection".to_owned()),
        }
    }

    fn admit_connection(&self, answer: &mut RequestAnswer, server: Option<&str>) {
        let snapshot = self.question.snapshot;
        let judged = explain_request(snapshot, &self.place.policies(snapshot), &self.facts(server), None);
        answer.outcome = match &judged.authorization.verdict {
            Ok(_) => Outcome::Forwarded,
            Err(denial) => Outcome::NotConnected(denial.to_string()),
        };
        answer.judged = Some(judged);
    }

    /// The rule, the limits, and what the rule asks for.
    pub(super) fn route(&self, answer: &mut RequestAnswer, request: &Imagined, table: Option<&RouteTable>) {
        let snapshot = self.question.snapshot;
        let found = table.map(|table| table.find(request));
        let rule = found.flatten().map(|found| found.rule);
        let place = match (self.place, self.meant) {
            (Place::Service(_, port), Some(meant)) => Place::Service(meant, port),
            (place, _) => place,
        };
        let limits = place.limits(snapshot, self.own.gateway, self.own.pod());
        let mut judging = Judging::default();
        for applied in &limits {
            if judging.next(applied, request, rule.map(|rule| &rule.at)) {
                answer.limits.push(applied.clone());
            }
        }
        let Some(found) = found else {
            answer.shares = match place {
                Place::Service(service, port) => vec![Share::of_service(snapshot, self.own, service, port)],
                Place::Workload(address) => vec![Share::of_address(snapshot, self.own, address)],
                Place::Gateway(_) => Vec::new(),
            };
            answer.outcome = Outcome::Forwarded;
            return;
        };
        let Some(found) = found else {
            answer.outcome = refused(404, "no rule matches it");
            return;
        };
        let rule = found.rule;
        answer.rule = Some(Arc::clone(rule));
        answer.matched = found.matched.map(ToString::to_string);
        if let Some(Crossing::Preflight(_)) = rule.cors.as_ref().map(|cors| cors.judge(request)) {
            let why = "a preflight request, by the rule itself".to_owned();
            answer.outcome = Outcome::Answered { status: 200, why, wanted: true };
            return;
        }
        if let Some((Percent::ALL, abort)) = rule.fault.abort {
            let (status, why) = match abort {
                Abort::Http(status) => (status, "a fault that the rule injects".to_owned()),
                Abort::Grpc(status) => (200, format!("a fault that the rule injects, gRPC status {status}")),
            };
            answer.outcome = refused(status, why);
            return;
        }
        answer.outcome = self.act(answer, request, &found);
    }

    /// What the rule asks for.
    fn act(&self, answer: &mut RequestAnswer, request: &Imagined, found: &Found<'_>) -> Outcome {
        let rule = found.rule;
        match &rule.action {
            Action::Redirect(redirect) => {
                let why = format!("go to {}", redirect.location(request, found.path()));
                Outcome::Answered { status: redirect.status, why, wanted: true }
            }
            Action::Respond(response) => {
                Outcome::Answered { status: response.status, why: "by the rule itself".to_owned(), wanted: true }
            }
            Action::Forward(backends) => {
                answer.shares = Share::of_backends(self.question.snapshot, self.own, backends, request.port());
                for (share, backend) in answer.shares.iter_mut().zip(backends) {
                    share.rewrite(rule, backend, (request, found.path()));
                }
                if backends.iter().all(|backend: &Backend| backend.weight == 0) {
                    refused(500, "no destination has a weight")
                } else {
                    Outcome::Forwarded
                }
            }
        }
    }
}
