//! A request that is over, and a connection that nobody looks into, as those hear of them who listen to flows.

use std::time::{SystemTime, UNIX_EPOCH};

use mesh_admin::{Flow, Party, RequestFlow, Talk};
use mesh_core::{SpiffeId, Workload};

use super::{Ended, EndedConnection, trace_id};
use crate::{
    inbound::{Arrival, Target},
    upstream::Endpoint,
};

impl Ended<'_> {
    /// As a flow; `id` tells it from others of this process.
    pub(crate) fn flow(&self, id: u64) -> Flow {
        let noted = self.noted;
        let context = self.trace.or(noted.trace);
        let request = RequestFlow {
            protocol: if self.grpc.is_some() { "grpc" } else { "http" }.to_owned(),
            status: self.status,
            grpc_status: self.grpc,
            flags: self.flags.to_owned(),
            duration_microseconds: u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            method: Some(noted.method.to_string()),
            path: Some(noted.path.clone()),
            url: self.url(),
            rule: self.rule.map(|rule| rule.at.to_string()),
            trace_id: context.map(|context| trace_id(context).to_string()),
        };
        let talk = Talk {
            policy: self.policy.map(str::to_owned),
            ..talk(self.arrival, self.endpoint, (self.sent, self.received))
        };
        Flow {
            at_milliseconds: milliseconds(noted.at + self.duration),
            event: "request".to_owned(),
            id,
            talk,
            end: None,
            detail: self.token_refused.map(|reason| format!("token refused: {reason}")),
            request: Some(Box::new(request)),
        }
    }

    /// As who asks about such a request writes it; none where it names no host.
    fn url(&self) -> Option<String> {
        let path = Some(self.noted.path.as_str()).filter(|path| path.starts_with('/'))?;
        Some(match &self.arrival.target {
            Target::Service(service, port) => format!("http://{}:{port}{path}", service.hostname),
            Target::Workload(address) => format!("http://{address}{path}"),
            Target::Gateway(entrance) => {
                let scheme = if entrance.tls { "https" } else { "http" };
                let host = host_of(self.noted.authority()?);
                format!("{scheme}://{host}:{}{path}", entrance.port)
            }
        })
    }
}

impl EndedConnection<'_> {
    /// As the flow of the connection of this number.
    pub(crate) fn flow(&self, id: u64) -> Flow {
        let event = match self.end {
            event @ ("refused" | "cut") => event,
            _ => "closed",
        };
        Flow {
            at_milliseconds: milliseconds(self.at + self.duration),
            event: event.to_owned(),
            id,
            talk: talk(self.arrival, self.endpoint, (self.sent, self.received)),
            end: Some(self.end.to_owned()),
            detail: self.error.map(str::to_owned),
            request: None,
        }
    }
}

/// A connection of this number that nobody looks into is carried to an endpoint from now on.
pub(crate) fn opened(id: u64, arrival: &Arrival, endpoint: &Endpoint) -> Flow {
    Flow {
        at_milliseconds: milliseconds(SystemTime::now()),
        event: "opened".to_owned(),
        id,
        talk: talk(arrival, Some(endpoint), (0, 0)),
        end: None,
        detail: None,
        request: None,
    }
}

/// Who talks to whom by an arrival, and how many bytes the client and the server have sent.
fn talk(arrival: &Arrival, endpoint: Option<&Endpoint>, (sent, received): (u64, u64)) -> Talk {
    let (client, at_gateway) = (&arrival.client, matches!(arrival.target, Target::Gateway(_)));
    Talk {
        reporter: if at_gateway { "gateway" } else { "waypoint" }.to_owned(),
        source: party(Some(client.address), client.workload.as_deref(), client.identity.as_ref()),
        destination: party(
            endpoint.map(Endpoint::address),
            endpoint.and_then(|endpoint| endpoint.workload.as_deref()),
            endpoint.and_then(Endpoint::identity),
        ),
        service: arrival.target.service().map(|service| service.hostname.to_string()),
        original_destination: None,
        security: if at_gateway { "none" } else { "mutual_tls" }.to_owned(),
        policy: None,
        bytes_from_client: sent,
        bytes_to_client: received,
    }
}

/// Since 1970.
fn milliseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// An authority without its port.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn party(address: Option<std::net::SocketAddr>, workload: Option<&Workload>, identity: Option<&SpiffeId>) -> Party {
    Party {
        address,
        namespace: workload.map(|workload| workload.namespace.to_string()),
        pod: workload.map(|workload| workload.name.to_string()),
        workload: workload.map(|workload| workload.workload_name.to_string()),
        principal: identity.map(SpiffeId::to_string),
    }
}
