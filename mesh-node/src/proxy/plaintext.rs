//! At an application's own port: what TC steered here goes to the application, as its policies allow.
//!
//! It is plaintext, unless its first bytes begin the mutual TLS of one of Istio's sidecars (see [`super::sidecar`]). Nobody else
//! is kept waiting for them: the application is connected meanwhile, and a client that speaks first is looked at once its
//! first bytes are there, which no application could have had sooner. Where the application speaks first, its greeting goes
//! on at once, except to a pod that has a sidecar, which gets a moment to begin.

use std::{net::SocketAddr, pin::pin, time::Duration};

use mesh_core::{
    Workload,
    policy::{Authorization, Permit},
};
use mesh_transport::sidecar::{Opening, anew, opening};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{
    admission::{self, Rejection},
    sidecar,
};
use crate::{
    connections::Carried,
    pods::EnrolledPod,
    sockets,
    telemetry::{Ending, Party, Refused, Report, Reporter},
    workers::Worker,
};

/// How long a client and its application may both be silent until the client is taken for one that speaks plaintext. A sidecar
/// begins at once; this leaves room for a packet that is lost twice.
const SILENCE: Duration = Duration::from_secs(2);
/// How long an application's greeting is held back where the client's pod has a sidecar, which may be about to begin.
const GREETING_HELD: Duration = Duration::from_millis(250);

/// A connection at an application's own port.
#[derive(Clone, Copy)]
pub(super) struct Arrival<'a> {
    pub(super) worker: &'a Worker,
    pub(super) pod: &'a EnrolledPod,
    /// From where, as accept() said.
    pub(super) client: SocketAddr,
    /// To where.
    pub(super) target: SocketAddr,
}

/// Carries one steered connection.
pub(super) async fn carry(worker: &Worker, pod: &EnrolledPod, outside: TcpStream, client: SocketAddr) {
    let Ok(target) = outside.local_addr() else {
        return;
    };
    let (client, target) = (canonical(client), canonical(target));
    let (snapshot, workload) = admission::awaited(worker, pod).await;
    let source =
        Party { address: Some(client), workload: snapshot.workload_by_address(client.ip()).cloned(), principal: None };
    let mut report = Report::begin(Reporter::Destination, source);
    report.destination = Party { address: Some(target), workload, principal: None };
    let examined = admission::examine(pod, &snapshot, &mut report);
    drop(snapshot);
    let carried = worker.connections.begin(report);
    let arrival = Arrival { worker, pod, client, target };
    // On the heap, and gone before the bytes flow: a carried connection keeps little.
    let ending = match Box::pin(open(arrival, examined, &carried, outside)).await {
        Ok(Opened::Plaintext { permit, application, outside }) => carried.enter(permit, application, outside).await,
        Ok(Opened::Sidecar { application, outside }) => {
            // Who connects is not known yet, and is told of when it is.
            drop(carried);
            return Box::pin(sidecar::carry(arrival, application, outside)).await;
        }
        Err((reason, error)) => Ending::Refused(reason, error),
    };
    carried.finish(&ending);
}

/// What a connection that may go on turned out to be.
enum Opened {
    Plaintext {
        permit: Permit,
        application: TcpStream,
        outside: TcpStream,
    },
    Sidecar {
        /// Connected already, where plaintext would have been let in.
        application: Option<TcpStream>,
        outside: TcpStream,
    },
}

/// Connects the application, if plaintext may enter, and finds out who speaks.
async fn open(
    arrival: Arrival<'_>,
    examined: Result<Authorization, Rejection>,
    carried: &Carried<'_>,
    outside: TcpStream,
) -> Result<Opened, Rejection> {
    let opened = match examined {
        Ok(authorization) => identify(arrival, authorization, carried, &outside).await,
        Err(rejection) => Err(rejection),
    };
    match opened {
        Ok(Identified::Sidecar(application)) => Ok(Opened::Sidecar { application, outside }),
        Ok(Identified::Plaintext { permit, application, is_undecided }) => {
            let outside = if is_undecided { anew(outside) } else { Ok(outside) };
            let failed = |error| (Refused::Unreachable, format!("the client's socket cannot be waited for: {error}"));
            Ok(Opened::Plaintext { permit, application, outside: outside.map_err(failed)? })
        }
        Err(rejection) => {
            sockets::reset(outside);
            Err(rejection)
        }
    }
}

/// Who speaks.
enum Identified {
    Plaintext {
        permit: Permit,
        application: TcpStream,
        /// The client's first bytes may have been looked at and not understood.
        is_undecided: bool,
    },
    Sidecar(Option<TcpStream>),
}

async fn identify(
    arrival: Arrival<'_>,
    authorization: Authorization,
    carried: &Carried<'_>,
    outside: &TcpStream,
) -> Result<Identified, Rejection> {
    let Arrival { worker, pod, client, target } = arrival;
    let report = carried.connection().report();
    let permit = match &authorization.verdict {
        Ok(permit) => permit,
        Err(denial) => {
            if begins_as_sidecar(worker, report.source.workload.as_deref(), outside).await {
                return Ok(Identified::Sidecar(None));
            }
            worker.shared.telemetry.judged(report, &authorization);
            return Err(admission::rejection(denial));
        }
    };
    let dialled = sockets::dial_application(&pod.netns, target, client, &worker.flows, permit).await;
    let application = dialled.map_err(|error| (Refused::Unreachable, error.to_string()))?;
    let opening = first_word(outside, &application, report.source.workload.as_deref()).await;
    if opening == Some(Opening::Sidecar) {
        return Ok(Identified::Sidecar(Some(application)));
    }
    worker.shared.telemetry.judged(report, &authorization);
    let permit = authorization.verdict.map_err(|denial| admission::rejection(&denial))?;
    Ok(Identified::Plaintext { permit, application, is_undecided: opening.is_none() })
}

/// Whether a client whose plaintext is refused begins a sidecar's mutual TLS instead. A pod that has no sidecar is not waited for.
async fn begins_as_sidecar(worker: &Worker, client: Option<&Workload>, outside: &TcpStream) -> bool {
    client.is_none_or(Workload::has_sidecar) && worker.shared.hbone.awaits_sidecar(outside, SILENCE).await
}

/// What the client begins with. None where the application speaks first, or nobody.
async fn first_word(outside: &TcpStream, application: &TcpStream, client: Option<&Workload>) -> Option<Opening> {
    let mut opening = pin!(opening(outside));
    tokio::select! {
        biased;
        opening = &mut opening => return Some(opening),
        // Its first word, its end or its failure.
        _ = application.readable() => {}
        () = sleep(SILENCE) => return None,
    }
    if client.is_some_and(Workload::has_sidecar) { timeout(GREETING_HELD, opening).await.ok() } else { None }
}

/// A dual-stack listener shows IPv4 clients in mapped form.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
