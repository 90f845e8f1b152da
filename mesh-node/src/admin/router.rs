//! From a request to what answers it.

use std::sync::Arc;

use http::{Method, Request};
use hyper::body::Incoming;
use mesh_admin::{FlowSelection, Selection, path};
use mesh_admin_server::{
    Api as _, Query, Routed, bad_query, json, log_filter, method_not_allowed, set_log_filter, traffic, unknown_path,
};

use super::Admin;

impl Admin {
    /// Answers a request.
    pub(super) async fn find(self: &Arc<Self>, request: Request<Incoming>) -> Routed {
        let get = request.method() == Method::GET;
        let query = Query::of(&request);
        let answer = match request.uri().path() {
            path::LOG if request.method() == Method::PUT => set_log_filter(&self.log, request).await,
            path::LOG if get => log_filter(&self.log),
            path::STATUS if get => json(&self.status().await),
            path::WORKLOADS if get => query.select(|selection| json(&self.workloads(selection))),
            path::SERVICES if get => query.select(|selection| json(&self.services(selection))),
            path::POLICIES if get => query.select(|selection| json(&self.policies(selection))),
            path::CERTIFICATES if get => query.select(|selection| json(&self.certificates(selection))),
            path::CONNECTIONS if get => match Selection::from_query(query.pairs()) {
                Ok(selection) => json(&self.connections(&selection).await),
                Err(error) => bad_query(error),
            },
            path::OUTSIDE if get => match Selection::from_query(query.pairs()) {
                Ok(selection) => json(&self.outside(&selection).await),
                Err(error) => bad_query(error),
            },
            path::FLOWS if get => match FlowSelection::from_query(query.pairs()) {
                Ok(selection) => return Routed { answer: self.flows(selection), ends: false },
                Err(error) => bad_query(error),
            },
            path::TRAFFIC if get => json(&traffic(&self.shared.telemetry.metrics.gather())),
            path::WHY if get => self.why(&query, true),
            path::AUTHZ if get => self.why(&query, false),
            path::REQUEST if get => self.request(&query),
            path::LOG => method_not_allowed("GET or PUT"),
            path::STATUS
            | path::WORKLOADS
            | path::SERVICES
            | path::CERTIFICATES
            | path::POLICIES
            | path::CONNECTIONS
            | path::OUTSIDE
            | path::FLOWS
            | path::TRAFFIC
            | path::WHY
            | path::REQUEST
            | path::AUTHZ => method_not_allowed("GET"),
            other => unknown_path(other, Self::PROGRAM),
        };
        Routed { answer, ends: true }
    }
}
