//! A request that is over, as those hear of it who listen to flows.

use std::{sync::Arc, time::UNIX_EPOCH};

use mesh_admin::{Flow, Party, RequestFlow, Talk};
use mesh_core::{SpiffeId, Workload};

use super::{Ended, trace_id};
use crate::inbound::Target;

impl Ended<'_> {
    /// As a flow; `id` tells it from others of this process.
    pub(crate) fn flow(&self, id: u64) -> Flow {
        let (client, noted) = (&self.arrival.client, self.noted);
        let at_gateway = matches!(self.arrival.target, Target::Gateway(_));
        let began = noted.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let context = self.trace.or(noted.trace);
        let endpoint = self.endpoint;
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
            reporter: if at_gateway { "gateway" } else { "waypoint" }.to_owned(),
            source: party(Some(client.address), client.workload.as_deref(), client.identity.as_ref()),
            destination: party(
                endpoint.map(|endpoint| endpoint.address()),
                endpoint.and_then(|endpoint| endpoint.workload.as_deref()),
                endpoint.and_then(|endpoint| endpoint.identity()),
            ),
            service: self.arrival.target.service().map(|service: &Arc<_>| service.hostname.to_string()),
            original_destination: None,
            security: if at_gateway { "none" } else { "mutual_tls" }.to_owned(),
            policy: self.policy.map(str::to_owned),
            bytes_from_client: self.sent,
            bytes_to_client: self.received,
        };
        Flow {
            at_milliseconds: u64::try_from((began + self.duration).as_millis()).unwrap_or(u64::MAX),
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
