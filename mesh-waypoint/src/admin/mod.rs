//! The admin API: what the waypoint says of itself on a Unix socket, to root and to its own user alone.
//!
//! The types and paths are `mesh-admin`'s, the server is `mesh-admin-server`'s; `mesh-ctl waypoint` is the client.

mod clusters;
mod in_force;
mod request;
mod routes;
mod status;

use std::{sync::Arc, time::Instant};

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use mesh_admin::{Flow, FlowSelection, path};
use mesh_admin_server::{
    Api, LogControl, Query, Routed, bad_query, flows, json, log_filter, method_not_allowed, set_log_filter, traffic,
    unknown_path,
};
use tokio::net::UnixListener;

pub(crate) use self::in_force::all_rules;
use crate::serve::Shared;

/// What the API answers from.
pub(crate) struct Admin {
    shared: Arc<Shared>,
    log: LogControl,
    started: Instant,
}

impl Admin {
    /// Of a waypoint that has just been started.
    pub(crate) fn new(shared: Arc<Shared>, log: LogControl) -> Self {
        Self { shared, log, started: Instant::now() }
    }
}

/// Serves until dropped, wherever it is asked for.
pub(crate) async fn serve(socket: Option<UnixListener>, port: Option<u16>, api: Admin) {
    let api = Arc::new(api);
    let by_socket = async {
        match socket {
            Some(listener) => mesh_admin_server::serve(listener, api.clone()).await,
            None => std::future::pending().await,
        }
    };
    let by_loopback = async {
        match port {
            // In a pod of its own nobody else is on loopback.
            Some(port) => mesh_admin_server::serve_loopback(port, None, api.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::join!(by_socket, by_loopback);
}

impl Api for Admin {
    const PROGRAM: &'static str = "mesh-waypoint";

    async fn route(self: Arc<Self>, request: Request<Incoming>) -> Routed {
        let get = request.method() == Method::GET;
        let query = Query::of(&request);
        let answer = match request.uri().path() {
            path::LOG if request.method() == Method::PUT => set_log_filter(&self.log, request).await,
            path::LOG if get => log_filter(&self.log),
            path::WAYPOINT_STATUS if get => json(&self.status()),
            path::WAYPOINT_ROUTES if get => query.select(|selection| json(&self.routes(selection))),
            path::WAYPOINT_CLUSTERS if get => query.select(|selection| json(&self.clusters(selection))),
            path::REQUEST if get => self.request(&query),
            path::TRAFFIC if get => json(&traffic(&self.shared.telemetry.gather())),
            path::FLOWS if get => match FlowSelection::from_query(query.pairs()) {
                Ok(selection) => {
                    let answer = flows(self.shared.telemetry.flows.listen(), selection, Flow::clone);
                    return Routed { answer, ends: false };
                }
                Err(error) => bad_query(error),
            },
            path::LOG => method_not_allowed("GET or PUT"),
            path::WAYPOINT_STATUS
            | path::WAYPOINT_ROUTES
            | path::WAYPOINT_CLUSTERS
            | path::FLOWS
            | path::REQUEST
            | path::TRAFFIC => method_not_allowed("GET"),
            other => unknown_path(other, Self::PROGRAM),
        };
        Routed { answer, ends: true }
    }

    fn answered(&self, status: StatusCode) {
        self.shared.telemetry.own.admin_request(status.as_u16());
    }
}
