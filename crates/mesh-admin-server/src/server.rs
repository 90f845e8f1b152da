//! Clients of the socket: who may ask, how many at once, and for how long.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Notify, Semaphore},
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
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why a client is not served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turned {
    /// It runs as this user, who has no right; `None` if the kernel does not say.
    Stranger(Option<u32>),
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
    let own = rustix::process::geteuid().as_raw();
    let (clients, strangers) = (Arc::new(Semaphore::new(MAX_CLIENTS)), Arc::new(Semaphore::new(MAX_STRANGERS)));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors or memory: not at once again.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // SO_PEERCRED: the kernel's word for who called connect().
        let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
        let (turned, place) = match uid {
            Some(uid) if uid == 0 || uid == own => match clients.clone().try_acquire_owned() {
                Ok(place) => (None, Some(place)),
                Err(_) => (Some(Turned::Crowd), strangers.clone().try_acquire_owned().ok()),
            },
            uid => (Some(Turned::Stranger(uid)), strangers.clone().try_acquire_owned().ok()),
        };
        let Some(place) = place else { continue };
        let api = api.clone();
        tokio::spawn(async move {
            talk(stream, api, turned).await;
            drop(place);
        });
    }
}

/// One request of one client.
async fn talk<A: Api>(stream: UnixStream, api: Arc<A>, turned: Option<Turned>) {
    let answered = Arc::new(Notify::new());
    let service = {
        let answered = answered.clone();
        service_fn(move |request: Request<Incoming>| {
            let (api, answered) = (api.clone(), answered.clone());
            async move {
                let Routed { answer, ends } = match turned {
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
        Turned::Crowd => refuse(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{MAX_CLIENTS} clients are served already"),
            Some("end a `mesh-ctl flows -f`, or try again"),
        ),
    }
}
