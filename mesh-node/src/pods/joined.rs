//! One pod that is in the mesh, and what the daemon holds for it.

use std::{net::TcpListener, path::Path, sync::Arc};

use mesh_netlink::{NetlinkSocket, Subject};
use rustix::net::sockopt;
use tokio::sync::watch;

use super::{
    EnrolledPod,
    discovery::{self, SandboxProcess},
    sandbox::SandboxWatch,
};
use crate::{
    listeners::{ListenError, Role},
    netns::{NetNamespace, NetnsError},
    repairs::{Part, Repair},
    workers::{Acceptor, Workers},
};

/// Groups of rtnetlink, as a mask: links (RTNLGRP_LINK), and filters with their queueing disciplines (RTNLGRP_TC).
const LINKS_AND_FILTERS: u32 = 1 | 1 << 3;

/// One pod that is in the mesh.
pub(super) struct Joined {
    pub(super) pod: Arc<EnrolledPod>,
    pub(super) sandbox: SandboxProcess,
    pub(super) drain: watch::Sender<bool>,
    served: Vec<Served>,
    links: LinkWatch,
    _watch: SandboxWatch,
}

/// A listener whose connections a worker takes. The daemon keeps a descriptor of its own, to see whether it listens
/// still and to pass it on.
struct Served {
    role: Role,
    /// The kernel's name for the listener (`SO_COOKIE`), which its duplicates share.
    cookie: u64,
    listener: TcpListener,
    acceptor: Acceptor,
}

/// What a pod's part could not be put back for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot share a listener with a worker: {0}")]
    Share(std::io::Error),
}

impl Joined {
    /// Lets `workers` take the connections of the pod's listeners.
    pub(super) fn serve(
        pod: Arc<EnrolledPod>,
        sandbox: SandboxProcess,
        drain: watch::Sender<bool>,
        (links, watch): (LinkWatch, SandboxWatch),
        listeners: Vec<(Role, TcpListener)>,
        workers: &Workers,
    ) -> Result<Self, ServeError> {
        let served = listeners.into_iter().map(|(role, listener)| Served::start(&pod, role, listener, workers));
        let served = served.collect::<Result<_, _>>()?;
        Ok(Self { pod, sandbox, drain, served, links, _watch: watch })
    }

    /// Whether the pod's sandbox is still the one that was joined.
    pub(super) fn is_current(&self, proc: &Path) -> bool {
        discovery::netns_inode(proc, self.sandbox.pid) == Some(self.sandbox.netns_inode)
    }

    /// Whether the pod's interfaces, or filters on them, may have changed since this was asked last.
    pub(super) fn links_changed(&mut self) -> bool {
        self.links.0.take_heard()
    }

    /// The listeners by their sockets' cookies.
    pub(super) fn listeners(&self) -> impl Iterator<Item = (u64, &TcpListener)> {
        self.served.iter().map(|served| (served.cookie, &served.listener))
    }

    /// The listeners, for the pod as it joins again. The tunnels that it has are told to go away.
    pub(super) fn into_listeners(self) -> Vec<(Role, TcpListener)> {
        self.drain.send_replace(true);
        self.served.into_iter().map(|served| (served.role, served.listener)).collect()
    }

    /// Duplicates of the listeners, with the connections that wait in them.
    pub(super) fn duplicates(&self) -> impl Iterator<Item = TcpListener> {
        // Without descriptors left there is one less to pass on: the successor opens it anew.
        self.served.iter().filter_map(|served| served.listener.try_clone().ok())
    }

    /// Opens the listeners again that somebody closed, and lets a worker take the connections of those that none serves.
    pub(super) fn repair_listeners(&mut self, workers: &Workers) -> Result<Vec<Repair>, ServeError> {
        let mut repairs = Vec::new();
        for served in &mut self.served {
            if !sockopt::socket_acceptconn(&served.listener).unwrap_or(false) {
                let Some(listener) = self.pod.netns.enter(|| served.role.open())?? else {
                    continue;
                };
                *served = Served::start(&self.pod, served.role, listener, workers)?;
                repairs.push(Repair::new(Part::Listener, served.role.name()));
            } else if !served.acceptor.is_alive() {
                served.acceptor = accept(&self.pod, served.role, &served.listener, workers)?;
                repairs.push(Repair::new(Part::Acceptor, served.role.name()));
            }
        }
        Ok(repairs)
    }
}

impl Served {
    fn start(pod: &Arc<EnrolledPod>, role: Role, listener: TcpListener, workers: &Workers) -> Result<Self, ServeError> {
        let cookie = sockopt::socket_cookie(&listener).map_err(|error| ServeError::Share(error.into()))?;
        let acceptor = accept(pod, role, &listener, workers)?;
        Ok(Self { role, cookie, listener, acceptor })
    }
}

fn accept(
    pod: &Arc<EnrolledPod>,
    role: Role,
    listener: &TcpListener,
    workers: &Workers,
) -> Result<Acceptor, ServeError> {
    let shared = listener.try_clone().map_err(ServeError::Share)?;
    Ok(workers.accept(pod, role.kind(), shared))
}

/// Hears of changes to a namespace's interfaces.
pub(super) struct LinkWatch(NetlinkSocket);

impl LinkWatch {
    pub(super) fn start(netns: &NetNamespace) -> Result<Self, NetnsError> {
        let socket = netns.enter(|| NetlinkSocket::listen(Subject::Route, LINKS_AND_FILTERS))?;
        socket.map(Self).map_err(NetnsError::Enter)
    }
}
