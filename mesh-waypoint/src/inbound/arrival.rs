//! What a tunnel is for: who sends, and to what.

use std::{net::SocketAddr, rc::Rc, sync::Arc};

use ::http::{HeaderMap, HeaderValue};
use mesh_core::{
    Protocol, Service, Snapshot, Speaks, SpiffeId, TraceContext, Workload,
    l7::{GatewayPlace, Place, Topology, Waypoint, topology::forwarded_client},
};
use mesh_transport::hbone::{Authority, ConnectRequest};

use crate::{
    args::GatewayName,
    listeners::{Listeners, Shown},
    worker::Worker,
};

/// Why a tunnel's target is none of this waypoint's. The client's node has another view of the cluster, or is none of ours.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotOurs {
    /// Nobody has it.
    #[error("no Service and no workload is at {0}")]
    Unknown(Authority),
    /// The Service does not declare the port.
    #[error("service {namespace}/{name} declares no TCP port {port}")]
    Port {
        /// The Service's namespace.
        namespace: Arc<str>,
        /// The Service's name.
        name: Arc<str>,
        /// The port asked for.
        port: u16,
    },
    /// It is reached by another waypoint, or by none: what this one may, others' clients shall not.
    #[error("{target} is not reached by waypoint {waypoint}")]
    OtherWaypoint {
        /// What was asked for.
        target: Authority,
        /// This waypoint.
        waypoint: GatewayName,
    },
}

/// Who sends.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// By certificate of the mesh; none for who comes from outside.
    pub(crate) identity: Option<SpiffeId>,
    /// The client's address, by the word of its node where the address is the tunnel's own; at a gateway by the word of those
    /// before it that are believed.
    pub(crate) address: SocketAddr,
    /// Who has connected: the client, or a proxy before the gateway.
    pub(crate) peer: SocketAddr,
    /// The workload of that address and identity, where known.
    pub(crate) workload: Option<Arc<Workload>>,
    /// At a gateway, the URIs that its verified certificate names, joined by commas.
    certificate_uris: Option<Arc<str>>,
}

/// Where somebody came in at a gateway.
#[derive(Debug, Clone)]
pub(crate) struct Entrance {
    /// The gateway's port.
    pub(crate) port: u16,
    /// The server that the client asked for in TLS.
    pub(crate) server: Option<Arc<str>>,
    /// The address at which the connection was taken.
    pub(crate) address: Option<SocketAddr>,
    /// Whether TLS ended here.
    pub(crate) tls: bool,
    /// Whether the client speaks https, to this gateway or to a proxy before it that is believed.
    pub(crate) https: bool,
    /// What stands before the gateway, and what is believed of it.
    pub(crate) topology: Topology,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A port of a Service.
    Service(Arc<Service>, u16),
    /// A workload's own address.
    Workload(SocketAddr),
    /// Whatever a gateway's listeners lead to.
    Gateway(Entrance),
}

/// What a Service's port is declared to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declared {
    /// HTTP of some version.
    Http,
    /// Nothing that can be looked into.
    Tcp,
    /// Nothing is said.
    Unknown,
}

/// One tunnel's purpose.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    /// Who sends.
    pub(crate) client: Client,
    /// To what.
    pub(crate) target: Target,
    /// The address that it was asked for by, where it was.
    pub(crate) asked: Option<SocketAddr>,
    /// Speaking what.
    pub(crate) declared: Declared,
    /// The span of the tunnel's set-up, as the client's node names it.
    pub(crate) trace: Option<TraceContext>,
    /// What `x-forwarded-client-cert` says of the client; none for clients without a certificate.
    pub(crate) client_certificate: Option<HeaderValue>,
}

impl Arrival {
    /// What a CONNECT is for.
    ///
    /// # Errors
    /// Its target is none of this waypoint's.
    pub(super) fn of(worker: &Worker, peer: SocketAddr, request: &ConnectRequest) -> Result<Self, NotOurs> {
        let (shared, snapshot) = (&worker.shared, worker.snapshot());
        let target = Target::find(&snapshot, &shared.own.gateway, &request.authority)?;
        let declared = target.declared();
        let client = Client::of(&snapshot, peer, request);
        let chain = format!("By={};URI={}", shared.identity, request.peer);
        let client_certificate = HeaderValue::try_from(chain).unwrap_or(HeaderValue::from_static(""));
        let trace = request.traceparent.as_deref().and_then(|text| text.parse().ok());
        let asked = request.authority.address().map(|asked| SocketAddr::new(asked.ip().to_canonical(), asked.port()));
        Ok(Self { client, target, asked, declared, trace, client_certificate: Some(client_certificate) })
    }

    /// A connection from outside, at a gateway: who has connected, and for whom; and what is told of a certificate.
    pub(crate) fn from_outside(
        (peer, address): (SocketAddr, SocketAddr),
        certificate: Option<Shown>,
        entrance: Entrance,
    ) -> Self {
        let (client_certificate, certificate_uris) = certificate.map(|shown| (shown.told, shown.uris)).unzip();
        let client = Client { identity: None, address, peer, workload: None, certificate_uris };
        Self {
            client,
            target: Target::Gateway(entrance),
            asked: None,
            declared: Declared::Http,
            trace: None,
            client_certificate,
        }
    }
}

impl Arrival {
    /// The workload that metrics have as the source: a waypoint's client, and a gateway itself.
    pub(crate) fn source<'a>(&'a self, listeners: &'a Listeners) -> Option<&'a Arc<Workload>> {
        match &self.target {
            Target::Gateway(_) => listeners.own.as_ref(),
            Target::Service(..) | Target::Workload(_) => self.client.workload.as_ref(),
        }
    }

    /// The address that the client has connected to.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.asked.or_else(|| match &self.target {
            Target::Service(service, port) => service.vips.first().map(|address| SocketAddr::new(*address, *port)),
            Target::Workload(address) => Some(*address),
            Target::Gateway(entrance) => entrance.address,
        })
    }

    /// The same of one request, which a proxy before the gateway that is believed may have sent on for another client than that of
    /// the connection (`x-forwarded-for`), and by another scheme (`x-forwarded-proto`).
    pub(crate) fn of_request(self: &Rc<Self>, headers: &HeaderMap) -> Rc<Self> {
        let Target::Gateway(entrance) = &self.target else { return self.clone() };
        if entrance.topology.trusted_proxies == 0 {
            return self.clone();
        }
        let lines = headers.get_all("x-forwarded-for").iter().map(|line| line.to_str().unwrap_or("?"));
        let client = forwarded_client(lines, entrance.topology.trusted_proxies);
        let https = match headers.get("x-forwarded-proto").map(HeaderValue::as_bytes) {
            Some(b"https") => true,
            Some(b"http") => false,
            _ => entrance.https,
        };
        let mut own = Self { target: Target::Gateway(Entrance { https, ..entrance.clone() }), ..Self::clone(self) };
        if let Some(client) = client {
            // Which port it has is not said.
            own.client.address = SocketAddr::new(client, 0);
        }
        Rc::new(own)
    }
}

impl Client {
    fn of(snapshot: &Snapshot, peer: SocketAddr, request: &ConnectRequest) -> Self {
        let peer = SocketAddr::new(peer.ip().to_canonical(), 0);
        // The node dials under its pod's own address; what it says beside that is the port.
        let said = request.forwarded.filter(|forwarded| forwarded.ip().to_canonical() == peer.ip());
        let address = said.map_or(peer, |said| SocketAddr::new(peer.ip(), said.port()));
        let workload = snapshot.workload_by_address(address.ip());
        let workload = workload.filter(|workload| workload.identity == request.peer).cloned();
        Self { identity: Some(request.peer.clone()), address, peer: address, workload, certificate_uris: None }
    }

    /// Who it is by its verified certificate: its identity, or at a gateway all URIs that the certificate names.
    pub(crate) fn uris(&self) -> Option<&str> {
        self.identity.as_ref().map(SpiffeId::as_str).or(self.certificate_uris.as_deref())
    }

    /// The identity as logs have it.
    pub(crate) fn name(&self) -> &str {
        self.identity.as_ref().map_or("unknown", SpiffeId::as_str)
    }
}

impl Target {
    /// The Service that it is.
    pub(crate) const fn service(&self) -> Option<&Arc<Service>> {
        match self {
            Self::Service(service, _) => Some(service),
            Self::Workload(_) | Self::Gateway(_) => None,
        }
    }

    /// The scheme of requests for it, as their client sees it.
    pub(crate) const fn scheme(&self) -> &'static str {
        match self {
            Self::Gateway(Entrance { https: true, .. }) => "https",
            Self::Gateway(_) | Self::Service(..) | Self::Workload(_) => "http",
        }
    }

    /// The server that the client asked for in TLS.
    pub(crate) fn server_name(&self) -> Option<&str> {
        match self {
            Self::Gateway(entrance) => entrance.server.as_deref(),
            Self::Service(..) | Self::Workload(_) => None,
        }
    }

    fn find(snapshot: &Snapshot, waypoint: &GatewayName, authority: &Authority) -> Result<Self, NotOurs> {
        let found = match authority {
            Authority::Name(host, port) => snapshot.service_by_hostname(host).map(|service| (service, *port)),
            Authority::Address(address) => {
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                let by_vip = snapshot.service_by_vip(address.ip()).map(|service| (service, address.port()));
                // The address of a ServiceEntry may be a server's own, with other ports.
                let by_vip = by_vip
                    .filter(|(service, port)| service.entry.is_none() || service.port(*port, Protocol::Tcp).is_some());
                // A pod is reached as itself; what listens elsewhere is known by the Service whose endpoint it is.
                let is_pod = snapshot.workload_by_address(address.ip()).is_some();
                by_vip.or_else(|| snapshot.headless_service(address).filter(|_| !is_pod))
            }
        };
        let l7 = snapshot.l7();
        let is_this = |found: Option<&Arc<Waypoint>>| found.is_some_and(|found| waypoint.is(found));
        let others = || NotOurs::OtherWaypoint { target: authority.clone(), waypoint: waypoint.clone() };
        if let Some((service, port)) = found {
            if !is_this(l7.waypoint_of(service)) {
                return Err(others());
            }
            if service.port(port, Protocol::Tcp).is_none() {
                let (namespace, name) = (service.namespace.clone(), service.name.clone());
                return Err(NotOurs::Port { namespace, name, port });
            }
            return Ok(Self::Service(service.clone(), port));
        }
        let unknown = || NotOurs::Unknown(authority.clone());
        let address = authority.address().ok_or_else(unknown)?;
        let workload = snapshot.workload_by_address(address.ip()).ok_or_else(unknown)?;
        if !is_this(l7.waypoint_of_workload(workload)) {
            return Err(others());
        }
        Ok(Self::Workload(SocketAddr::new(address.ip().to_canonical(), address.port())))
    }

    /// As the Service declares the port. Of a workload's own port nothing is said.
    fn declared(&self) -> Declared {
        let Self::Service(service, port) = self else { return Declared::Unknown };
        match service.port(*port, Protocol::Tcp).map(|port| port.speaks) {
            Some(Speaks::Http | Speaks::Http2) => Declared::Http,
            Some(Speaks::Opaque) => Declared::Tcp,
            Some(Speaks::Unknown) | None => Declared::Unknown,
        }
    }

    /// Where requests for it are read; at a gateway by this Gateway, whose pod is `pod`.
    pub(crate) fn place<'a>(&'a self, gateway: &'a GatewayName, pod: Option<&'a Workload>) -> Place<'a> {
        match self {
            Self::Service(service, port) => Place::Service(service, *port),
            Self::Workload(address) => Place::Workload(*address),
            Self::Gateway(entrance) => {
                let GatewayName { namespace, name } = gateway;
                Place::Gateway(GatewayPlace { namespace, name, pod, port: entrance.port })
            }
        }
    }

    /// The port that was asked for.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Service(_, port) => *port,
            Self::Workload(address) => address.port(),
            Self::Gateway(entrance) => entrance.port,
        }
    }
}
