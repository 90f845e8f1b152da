//! The client: what mesh-control serves becomes a configuration, by the same code as manifests do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::uri::PathAndQuery;
use mesh_ca::{Link, explain};
use mesh_config::{Config, LiveObjects, ObjectName, Options, put_in_force};
use mesh_core::lock::UnpoisonedMutex as _;
use prost::Message as _;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::proto::{self, DELTA_AGGREGATED_RESOURCES, DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use crate::replica::{Replica, Update};
use crate::table::{OBJECT_TYPE, Version};

/// How long a server may take to begin a stream.
const BEGINNING: Duration = Duration::from_secs(10);
/// The longest response that is read: one object may be several megabytes.
const MAX_RESPONSE: usize = 16 << 20;
/// Requests that wait to be sent: the first, and an answer.
const QUEUE: usize = 2;
/// Pauses before the next address is tried; they double.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What is followed, and how that goes.
#[derive(Debug, Clone)]
pub struct Following {
    /// The configuration in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// How far it is with what mesh-control serves.
    pub progress: Progress,
}

/// How far a client is. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Mutex<Standing>>);

/// How far a client is at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Where it is connected to; none while mesh-control is away.
    pub connected: Option<String>,
    /// The newest state that is in force as a whole.
    pub version: Option<Version>,
    /// Resources of which the newest version was not taken.
    pub rejected: usize,
    /// Streams that were begun.
    pub streams: u64,
}

impl Progress {
    /// How far it is now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.0.lock_unpoisoned().clone()
    }

    fn note(&self, note: impl FnOnce(&mut Standing)) {
        note(&mut self.0.lock_unpoisoned());
    }
}

/// An object that the client knows of otherwise, such as a Secret, which mesh-control never tells.
#[derive(Debug)]
pub enum Beside {
    /// It is there, or is another now.
    Put(ObjectName, Value),
    /// It is gone.
    Gone(ObjectName),
}

/// Follows what is served at one of these links: at the next one where one ends. What comes by `beside` is part of the configuration as if
/// it had been served, also while nobody serves.
///
/// Returns when all has been told once; until then this waits, and says in the log what for. While nobody is reached the last
/// configuration stays in force. Ends when the last receiver is dropped.
pub async fn follow(
    links: Vec<Link>,
    node: proto::Node,
    options: Options,
    mut beside: mpsc::Receiver<Beside>,
) -> Following {
    let progress = Progress::default();
    let (first, mut told) = mpsc::channel(1);
    let mut follower = Follower {
        objects: Some(LiveObjects::new(options)),
        replica: Replica::new(OBJECT_TYPE, node),
        publisher: Publisher::Waiting(first),
        progress: progress.clone(),
    };
    tokio::spawn(async move { follower.run(&links, &mut beside).await });
    match told.recv().await {
        Some(config) => Following { config, progress },
        // The follower ends after this alone.
        None => std::future::pending().await,
    }
}

/// Who is told of configurations.
enum Publisher {
    /// Nobody, until there is one.
    Waiting(mpsc::Sender<watch::Receiver<Arc<Config>>>),
    Telling(watch::Sender<Arc<Config>>),
}

struct Follower {
    objects: Option<LiveObjects>,
    replica: Replica,
    publisher: Publisher,
    progress: Progress,
}

impl Follower {
    async fn run(&mut self, links: &[Link], beside: &mut mpsc::Receiver<Beside>) {
        let mut pause = FIRST_PAUSE;
        for link in links.iter().cycle() {
            let before = self.progress.standing().streams;
            let ended = self.stream(link, beside).await;
            if self.is_done() {
                return;
            }
            self.progress.note(|standing| standing.connected = None);
            if self.progress.standing().streams > before {
                pause = FIRST_PAUSE;
            }
            let address = link.address();
            match ended {
                Ok(()) => tracing::info!(address, "configuration's stream ended; it goes on at the next"),
                Err(status) => {
                    let error = explain(&status);
                    match self.publisher {
                        Publisher::Waiting(_) => {
                            tracing::warn!(address, error, "no configuration yet; it is waited for")
                        }
                        Publisher::Telling(_) => {
                            tracing::warn!(address, error, "configuration not followed; the last one stays in force");
                        }
                    }
                }
            }
            let pausing = tokio::time::sleep(pause.mul_f64(0.5 + 0.5 * fastrand::f64()));
            tokio::pin!(pausing);
            loop {
                tokio::select! {
                    () = &mut pausing => break,
                    () = self.abandoned() => return,
                    Some(change) = beside.recv() => self.take_beside(change, beside).await,
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn is_done(&self) -> bool {
        match &self.publisher {
            Publisher::Waiting(first) => first.is_closed(),
            Publisher::Telling(configs) => configs.is_closed(),
        }
    }

    async fn abandoned(&self) {
        match &self.publisher {
            Publisher::Waiting(first) => first.closed().await,
            Publisher::Telling(configs) => configs.closed().await,
        }
    }

    /// Follows one stream to its end.
    async fn stream(&mut self, link: &Link, beside: &mut mpsc::Receiver<Beside>) -> Result<(), Status> {
        let (requests, outgoing) = mpsc::channel(QUEUE);
        let gone = |_| Status::cancelled("the stream ended");
        requests.try_send(self.replica.first_request()).map_err(|_| Status::internal("no room for a request"))?;
        let begun = timeout(BEGINNING, begin(link, outgoing)).await;
        let late = |_| Status::deadline_exceeded(format!("no answer within {} s", BEGINNING.as_secs()));
        let mut responses = begun.map_err(late)??;
        loop {
            let response = tokio::select! {
                response = responses.message() => response?,
                () = self.abandoned() => return Ok(()),
                Some(change) = beside.recv() => {
                    self.take_beside(change, beside).await;
                    continue;
                }
            };
            let Some(response) = response else { return Ok(()) };
            if self.progress.standing().connected.is_none() {
                tracing::info!(address = link.address(), "configuration followed");
                self.progress.note(|standing| {
                    standing.connected = Some(link.address().to_owned());
                    standing.streams += 1;
                });
            }
            // What is answered is in force.
            let answer = self.take(&response).await?;
            requests.send(answer).await.map_err(gone)?;
        }
    }

    async fn take(&mut self, response: &DeltaDiscoveryResponse) -> Result<DeltaDiscoveryRequest, Status> {
        let Some(objects) = self.objects.as_mut() else { return Err(Status::internal("the configuration is gone")) };
        let answer = self.replica.take(response, |update| apply(objects, update));
        if let Some(error) = &answer.error_detail {
            tracing::error!(error = error.message, "some of the configuration not taken; what was known of it stays");
        }
        if !response.system_version_info.is_empty() {
            self.publish().await;
            let rejected = self.replica.rejected().len();
            let version = self.replica.complete();
            self.progress.note(|standing| {
                standing.rejected = rejected;
                if rejected == 0 {
                    standing.version = version;
                }
            });
        }
        Ok(answer)
    }

    /// Takes what is told beside, all that is there at once, and puts it in force; not before all has been served once.
    async fn take_beside(&mut self, first: Beside, more: &mut mpsc::Receiver<Beside>) {
        let Some(objects) = self.objects.as_mut() else { return };
        let mut change = Some(first);
        while let Some(told) = change {
            match told {
                Beside::Put(name, value) => objects.apply(name, value),
                Beside::Gone(name) => objects.remove(&name),
            }
            change = more.try_recv().ok();
        }
        if matches!(self.publisher, Publisher::Telling(_)) {
            self.publish().await;
        }
    }

    /// Puts in force what the objects mean now.
    async fn publish(&mut self) {
        let Some(objects) = self.objects.take() else { return };
        let Some((objects, config)) = objects.publish_off_thread().await else { return };
        self.objects = Some(objects);
        match &self.publisher {
            Publisher::Telling(configs) => put_in_force(configs, config),
            Publisher::Waiting(first) => {
                let (configs, receiver) = watch::channel(config);
                // Nobody waits any more where this fails, and then this ends.
                if first.try_send(receiver).is_ok() {
                    self.publisher = Publisher::Telling(configs);
                }
            }
        }
    }
}

/// Applies a change of our own resources to the objects that they are.
///
/// # Errors
/// The resource is not what it should be; then nothing is changed.
pub fn apply(objects: &mut LiveObjects, update: Update<'_>) -> Result<(), String> {
    match update {
        Update::Put { name, message } => {
            let name = ObjectName::of_path(name).ok_or("its name is no GROUP/KIND/NAMESPACE/NAME")?;
            let proto::Object { object, refused } =
                proto::Object::decode(message).map_err(|error| error.to_string())?;
            objects.take(&name, &object, refused.as_deref()).map_err(|error| error.to_string())
        }
        Update::Remove { name } => {
            if let Some(name) = ObjectName::of_path(name) {
                objects.remove(&name);
            }
            Ok(())
        }
    }
}

async fn begin(
    link: &Link,
    requests: mpsc::Receiver<DeltaDiscoveryRequest>,
) -> Result<Streaming<DeltaDiscoveryResponse>, Status> {
    let mut grpc = link.grpc().max_decoding_message_size(MAX_RESPONSE);
    grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
    let request = link.with_token(ReceiverStream::new(requests)).await?;
    let codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
    let path = PathAndQuery::from_static(DELTA_AGGREGATED_RESOURCES);
    Ok(grpc.streaming(request, path, codec).await?.into_inner())
}
