//! TCP from outside to one Service.

use std::{collections::HashSet, net::SocketAddr, rc::Rc, str::FromStr, sync::Arc};

use anyhow::Context as _;
use mesh_config::{Config, Options};
use mesh_core::{Destination, Service, Snapshot, SpiffeId, Transport, WorkloadUid, resolve};
use mesh_transport::{
    Identities, IdentitySettings, Limits,
    hbone::{Pool, PoolKey, TunnelRequest},
    relay::{Far, RelayCounters, relay},
};
use tokio::{
    net::{TcpListener, TcpStream},
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, watch},
    time::timeout,
};

use crate::args::{GatewayArgs, MalformedName};

/// Connections carried at once; others wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 16_384;
/// The mesh's tunnel port, the same as ztunnel's.
const HBONE_PORT: u16 = 15_008;
/// How long a connection to an endpoint outside the mesh may take.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// `NAME.NAMESPACE:PORT`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTarget {
    name: String,
    namespace: String,
    port: u16,
}

impl FromStr for ServiceTarget {
    type Err = MalformedName;

    fn from_str(text: &str) -> Result<Self, MalformedName> {
        let parse = || {
            let (host, port) = text.rsplit_once(':')?;
            let (name, namespace) = host.split_once('.')?;
            let whole = !name.is_empty() && !namespace.is_empty() && !namespace.contains('.');
            let port = port.parse().ok().filter(|port| *port != 0)?;
            whole.then(|| Self { name: name.to_owned(), namespace: namespace.to_owned(), port })
        };
        parse().ok_or_else(|| MalformedName { value: text.to_owned(), form: "NAME.NAMESPACE:PORT" })
    }
}

struct Gateway {
    target: ServiceTarget,
    identity: SpiffeId,
    identities: Identities,
    pool: Pool,
    config: watch::Receiver<Arc<Config>>,
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What could not be started.
pub(crate) async fn run(args: GatewayArgs) -> anyhow::Result<()> {
    let certificate = args.certificate;
    let authority = certificate.authority().context(certificate.authority_flag())?;
    let trust_domain = certificate.trust_domain;
    let identity = SpiffeId::new(&trust_domain, &args.identity.namespace, &args.identity.name)?;
    let options =
        Options { trust_domain: trust_domain.clone(), cluster_domain: args.cluster_domain, ..Options::default() };
    let config = mesh_config::watch(args.config, options).await.context("--config")?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("--listen {}", args.listen))?;
    let identities = Identities::new(
        authority.source(),
        IdentitySettings { lifetime: certificate.certificate_lifetime, ..IdentitySettings::new(trust_domain) },
    );
    identities.hold(&HashSet::from([identity.clone()]));
    let gateway = Rc::new(Gateway {
        target: args.to,
        identity,
        pool: Pool::new(Limits::default(), identities.trust()),
        identities,
        config,
    });
    tracing::info!(address = %listener.local_addr()?, identity = %gateway.identity, "gateway listening");
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = accept(listener, &gateway) => {}
        () = gateway.identities.run() => {}
        () = gateway.pool.follow_trust() => {}
        () = authority.follow() => {}
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    Ok(())
}

async fn accept(listener: TcpListener, gateway: &Rc<Gateway>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::task::yield_now().await;
                continue;
            }
        };
        let gateway = gateway.clone();
        tokio::task::spawn_local(async move {
            gateway.carry(stream, client).await;
            drop(permit);
        });
    }
}

impl Gateway {
    async fn carry(&self, stream: TcpStream, client: SocketAddr) {
        match self.connect(client).await {
            Ok((destination, far)) => {
                let outcome = relay(stream, far, &RelayCounters::default()).await;
                let (from_client, to_client, end) = (outcome.sent, outcome.received, outcome.end.as_str());
                tracing::info!(target: "access", %client, %destination, from_client, to_client, end, "connection");
            }
            Err(error) => {
                // The client shall see a cut connection and no end of a stream.
                let _ = stream.set_zero_linger();
                tracing::info!(target: "access", %client, error = format!("{error:#}"), "connection refused");
            }
        }
    }

    async fn connect(&self, client: SocketAddr) -> anyhow::Result<(SocketAddr, Far)> {
        let snapshot = self.config.borrow().snapshot.clone();
        let destination = self.destination(&snapshot)?;
        let endpoint = destination.endpoint;
        let Transport::Hbone { identity: expected } = destination.transport else {
            let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(endpoint)).await??;
            return Ok((endpoint, stream.into()));
        };
        let tls = self.identities.fetch(&self.identity).await?;
        let peer = SocketAddr::new(endpoint.ip(), HBONE_PORT);
        let key = PoolKey { source: WorkloadUid::from("gateway"), identity: self.identity.clone(), peer, expected };
        let request =
            TunnelRequest { authority: endpoint.into(), forwarded: Some(client), baggage: None, traceparent: None };
        let tunnel = self.pool.connect(key, &tls, request, async || TcpStream::connect(peer).await).await?;
        Ok((endpoint, tunnel.into()))
    }

    /// One of the Service's endpoints, as [`resolve`] picks it.
    fn destination(&self, snapshot: &Snapshot) -> anyhow::Result<Destination> {
        let target = &self.target;
        let wanted = |service: &&Arc<Service>| *service.name == *target.name && *service.namespace == *target.namespace;
        let service = snapshot.services().find(wanted);
        let service = service.with_context(|| format!("no Service {}/{}", target.namespace, target.name))?;
        let vip = service.vips.first().context("the Service has no address of its own (headless)")?;
        Ok(resolve(snapshot, None, SocketAddr::new(*vip, target.port), fastrand::u64(..))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_taken_whole_or_not_at_all() {
        let target: ServiceTarget = "frontend.shop:8080".parse().unwrap();
        assert_eq!((target.name.as_str(), target.namespace.as_str(), target.port), ("frontend", "shop", 8080));
        for text in ["frontend:80", "frontend.shop", "frontend.shop:0", ".shop:1", "a.:1", "a.b.svc:1", "a.b:70000"] {
            assert!(text.parse::<ServiceTarget>().is_err(), "{text}");
        }
    }
}
