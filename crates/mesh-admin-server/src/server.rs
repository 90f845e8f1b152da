//! Clients of the socket: who may ask, how many at once, and for how long.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixListener,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
};

use crate::answer::{Answer, refuse};

/// Clients that are served at once.
const MAX_CLIENTS: usize = 32;
/// Clients without the right that are told so at once.
const MAX_STRANGERS: usize = 8;
/// How long a request's head may take.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// How long an answer may take to be made.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How long a client may take to read an answer that has an end.
const READ_TIME: Duration = Duration::from_secs(30);
/// Pause after accept() failed.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a client is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turned {
    /// It runs as this user, who has no right; `None` if the kernel does not say.
    Stranger(Option<u32>),
    /// It runs in a pod, or where that cannot be told.
    Pod,
    /// It asks a name that is not of this machine, as a web page does that had a name point here.
    Name,
    /// There are enough already.
    Crowd,
}

/// What answers.
#[derive(Debug)]
pub struct Routed {
    /// The answer.
    pub answer: Answer,
    /// Whether it has an end, and so a bound on the time that a client may take to read it.
    pub ends: bool,
}

/// A program that answers requests.
pub trait Api: Send + Sync + 'static {
    /// The program, as it is called on a command line.
    const PROGRAM: &'static str;

    /// Answers a request.
    fn route(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Routed> + Send;

    /// A request was answered with this status.
    fn answered(&self, status: StatusCode);
}

/// Serves until dropped.
pub async fn serve<A: Api>(listener: UnixListener, api: Arc<A>) {
    let places = Places::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors or memory: not at once again.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // SO_PEERCRED: the kernel's word for who called connect().
        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
        let turned = (!places.has_right(uid)).then_some(Turned::Stranger(uid));
        places.serve(stream, &api, turned, |_| None);
    }
}

/// How many are served at once, and who is.
pub(crate) struct Places {
    own: u32,
    clients: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Places {
    pub(crate) fn new() -> Self {
        Self {
            own: rustix::process::geteuid().as_raw(),
            clients: Arc::new(Semaphore::new(MAX_CLIENTS)),
            strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
        }
    }

    /// Root and the program's own user.
    pub(crate) fn has_right(&self, uid: Option<u32>) -> bool {
        uid.is_some_and(|uid| uid == 0 || uid == self.own)
    }

    /// Serves a client in a task of its own, or tells it why not, where there is a place for either. `check` may find a
    /// reason in the request.
    pub(crate) fn serve<A: Api, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        &self,
        stream: S,
        api: &Arc<A>,
        turned: Option<Turned>,
        check: fn(&Request<Incoming>) -> Option<Turned>,
    ) {
        let place = |places: &Arc<Semaphore>| places.clone().try_acquire_owned().ok();
        let (turned, place): (_, Option<OwnedSemaphorePermit>) = match (turned, place(&self.clients)) {
            (None, Some(place)) => (None, Some(place)),
            (None, None) => (Some(Turned::Crowd), place(&self.strangers)),
            (turned, _) => (turned, place(&self.strangers)),
        };
        let Some(place) = place else { return };
        let api = api.clone();
        tokio::spawn(async move {
            talk(stream, api, turned, check).await;
            drop(place);
        });
    }
}

/// One request of one client.
async fn talk<A: Api, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    api: Arc<A>,
    turned: Option<Turned>,
    check: fn(&Request<Incoming>) -> Option<Turned>,
) {
    let answered = Arc::new(Notify::new());
    let service = {
        let answered = answered.clone();
        service_fn(move |request: Request<Incoming>| {
            let (api, answered) = (api.clone(), answered.clone());
            async move {
                let Routed { answer, ends } = match turned.or_else(|| check(&request)) {
                    Some(turned) => Routed { answer: turn_away(turned, A::PROGRAM), ends: true },
                    None => answer(&api, request).await,
                };
                api.answered(answer.status());
                if ends {
                    answered.notify_one();
                }
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // A client that breaks off is no news.
        _ = connection => {}
        () = async { answered.notified().await; tokio::time::sleep(READ_TIME).await } => {}
    }
}

async fn answer<A: Api>(api: &Arc<A>, request: Request<Incoming>) -> Routed {
    match tokio::time::timeout(ANSWER_TIME, api.clone().route(request)).await {
        Ok(routed) => routed,
        Err(_elapsed) => {
            let error = format!("no answer within {} s", ANSWER_TIME.as_secs());
            let remedy = format!("{} may be overloaded: try again", A::PROGRAM);
            Routed { answer: refuse(StatusCode::GATEWAY_TIMEOUT, error, Some(&remedy)), ends: true }
        }
    }
}

fn turn_away(turned: Turned, program: &str) -> Answer {
    match turned {
        Turned::Stranger(uid) => {
            let who = uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
            let error = format!("{who} may not use the admin API");
            let remedy = format!("ask as root or as the user that runs {program}");
            refuse(StatusCode::FORBIDDEN, error, Some(&remedy))
        }
        Turned::Pod => refuse(
            StatusCode::FORBIDDEN,
            "pods on the node's own network may not use the admin API",
            Some("ask through the API server, as mesh-ctl does by a kubeconfig, or on the node itself"),
        ),
        Turned::Name => refuse(
            StatusCode::FORBIDDEN,
            "the admin API has no name but localhost",
            Some("ask http://localhost or http://127.0.0.1"),
        ),
        Turned::Crowd => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{MAX_CLIENTS} clients are served already"),
            Some("end a `mesh-ctl flows -f`, or try again"),
        ),
    }
}
