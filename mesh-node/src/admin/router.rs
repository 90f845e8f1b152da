//! From a request to what answers it.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use mesh_admin::{FlowSelection, Selection, path};

use super::{
    Admin,
    answer::{Answer, json, refuse},
};

impl Admin {
    /// Answers a request. The answer's second part: whether it has an end.
    pub(super) async fn route(self: &Arc<Self>, request: Request<Incoming>) -> (Answer, bool) {
        let get = request.method() == Method::GET;
        let query = Query::of(&request);
        let answer = match request.uri().path() {
            path::LOG if request.method() == Method::PUT => self.set_log_filter(request).await,
            path::LOG if get => json(&self.log_filter()),
            path::STATUS if get => json(&self.status().await),
            path::WORKLOADS if get => query.select(|selection| json(&self.workloads(selection))),
            path::SERVICES if get => query.select(|selection| json(&self.services(selection))),
            path::POLICIES if get => query.select(|selection| json(&self.policies(selection))),
            path::CERTIFICATES if get => query.select(|selection| json(&self.certificates(selection))),
            path::CONNECTIONS if get => match Selection::from_query(query.pairs()) {
                Ok(selection) => json(&self.connections(&selection).await),
                Err(error) => bad_query(error),
            },
            path::FLOWS if get => match FlowSelection::from_query(query.pairs()) {
                Ok(selection) => return (self.flows(selection), false),
                Err(error) => bad_query(error),
            },
            path::WHY if get => self.why(&query, true),
            path::AUTHZ if get => self.why(&query, false),
            path::LOG => method_not_allowed("GET or PUT"),
            path::STATUS
            | path::WORKLOADS
            | path::SERVICES
            | path::CERTIFICATES
            | path::POLICIES
            | path::CONNECTIONS
            | path::FLOWS
            | path::WHY
            | path::AUTHZ => method_not_allowed("GET"),
            other => {
                let error = format!("{other} is no path of this API");
                refuse(StatusCode::NOT_FOUND, error, Some("mesh-ctl and mesh-node should be of one version"))
            }
        };
        (answer, true)
    }
}

fn bad_query(error: String) -> Answer {
    refuse(StatusCode::BAD_REQUEST, error, None)
}

fn method_not_allowed(allowed: &str) -> Answer {
    refuse(StatusCode::METHOD_NOT_ALLOWED, format!("{allowed} only"), None)
}

/// The query of a request, decoded.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    fn of<B>(request: &Request<B>) -> Self {
        let text = request.uri().query().unwrap_or_default();
        Self(form_urlencoded::parse(text.as_bytes()).into_owned().collect())
    }

    /// Names and values.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    fn select(&self, answer: impl FnOnce(&Selection) -> Answer) -> Answer {
        match Selection::from_query(self.pairs()) {
            Ok(selection) => answer(&selection),
            Err(error) => bad_query(error),
        }
    }
}
