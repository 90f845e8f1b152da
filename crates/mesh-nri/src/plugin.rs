//! The plugin's side: registers, and answers what it is asked.

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    time::timeout,
};

use crate::{
    proto::{
        AboutPod, ConfigureRequest, ConfigureResponse, PodSandbox, RegisterPluginRequest, Request, Response, Status,
        SynchronizeRequest, SynchronizeResponse,
    },
    wire::{self, FRAME_HEADER, Inbox, Kind, Message, OF_PLUGIN, OF_RUNTIME},
};

const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";
/// How long a runtime may take until it has told all that there is; it waits for pods that just start.
const REGISTRATION: Duration = Duration::from_secs(60);
/// What a runtime waits for an answer that does not say so: NRI's default.
const USUAL_PATIENCE: Duration = Duration::from_secs(2);
/// The plugin's only question.
const REGISTER_STREAM: u32 = 1;
/// Octets of a refusal's reason: the runtime's reader takes a frame of 4,096 octets whole, or not at all.
const MAX_REASON: usize = 1024;
/// The events that are asked for: of NRI's `Event`, RUN_POD_SANDBOX is 1 and has the first bit, CREATE_CONTAINER is 4.
const EVENTS: i32 = 0b1001;
/// `google.rpc.Code`.
const FAILED_PRECONDITION: i32 = 9;
const UNIMPLEMENTED: i32 = 12;

/// Who the plugin is.
#[derive(Clone, Copy, Debug)]
pub struct Plugin<'a> {
    /// Its name: letters, digits and `-_.+`. By it a runtime can be told to require it.
    pub name: &'a str,
    /// Two digits, by whose order plugins are asked.
    pub index: &'a str,
}

/// The runtime that asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runtime {
    /// Such as `containerd`.
    pub name: String,
    /// Its version, as it has it.
    pub version: String,
    /// How long it waits for an answer. Then it goes on without, and asks this plugin no more.
    pub patience: Duration,
}

/// When a runtime asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A pod's sandbox runs, and none of its containers does.
    SandboxStarted,
    /// One of its containers is about to be created.
    ContainerCreated,
}

/// A pod, as a runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// As in metadata.uid; of a static pod, kubelet's own.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels, and what kubelet adds to them.
    pub labels: BTreeMap<String, String>,
    /// Whether kubelet has it from a file or a URL, and not from the API server.
    pub is_static: bool,
    /// Its sandbox's process, in the runtime's pid namespace, where it is told.
    pub pid: Option<u32>,
}

/// Why a pod may not go on, for whoever looks at its Events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refusal(pub String);

/// Who decides whether a pod may go on.
pub trait Admission {
    /// Decides, within `patience`: what takes longer is no answer. The runtime asks of one pod at a time, and the node's other pods
    /// wait. It starts a pod that was refused again later.
    fn admit(&self, pod: Pod, event: Event, patience: Duration) -> impl Future<Output = Result<(), Refusal>> + Send;
}

/// Why a runtime asks no more. Connecting again may help with each of them.
#[derive(Debug, thiserror::Error)]
pub enum NriError {
    /// Nobody listens.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke, or the runtime closed it: it ends, or an answer took too long.
    #[error("the connection ended: {0}")]
    Io(#[from] io::Error),
    /// The runtime did not want the plugin.
    #[error("the runtime refused the registration: {0}")]
    Refused(String),
    /// The runtime did not end its introduction.
    #[error("the runtime did not finish the registration in {} s", REGISTRATION.as_secs())]
    Silent,
    /// What came is not NRI.
    #[error("the runtime does not speak NRI v1alpha1: {0}")]
    Malformed(String),
    /// The runtime said that it ends.
    #[error("the runtime shuts down")]
    ShutDown,
}

impl Plugin<'_> {
    /// Connects to the runtime at `socket`, and answers by `admission` until the connection ends. `registered` is called once the
    /// runtime asks.
    ///
    /// # Errors
    /// Always, since nothing else ends it: why the runtime asks no more.
    pub async fn serve(
        &self,
        socket: &Path,
        admission: &impl Admission,
        registered: impl FnOnce(&Runtime),
    ) -> Result<std::convert::Infallible, NriError> {
        let stream = UnixStream::connect(socket).await.map_err(NriError::Connect)?;
        let mut session = Session { stream, inboxes: [OF_PLUGIN, OF_RUNTIME].map(Inbox::of) };
        let runtime = timeout(REGISTRATION, session.register(self)).await.map_err(|_| NriError::Silent)??;
        registered(&runtime);
        loop {
            let message = session.next().await?;
            session.answer(message, &runtime, admission).await?;
        }
    }
}

/// A connection to a runtime.
struct Session {
    stream: UnixStream,
    inboxes: [Inbox; 2],
}

impl Session {
    /// Registers, and waits until the runtime has told all that runs, which is of no interest.
    async fn register(&mut self, plugin: &Plugin<'_>) -> Result<Runtime, NriError> {
        let asks = RegisterPluginRequest { plugin_name: plugin.name.to_owned(), plugin_idx: plugin.index.to_owned() };
        let request = Request {
            service: RUNTIME_SERVICE.to_owned(),
            method: "RegisterPlugin".to_owned(),
            payload: asks.encode_to_vec().into(),
            timeout_nano: 0,
        };
        let payload = request.encode_to_vec().into();
        self.send(Message { connection: OF_RUNTIME, stream: REGISTER_STREAM, kind: Kind::Request, payload }).await?;
        let mut runtime = None;
        loop {
            let message = self.next().await?;
            if message.kind == Kind::Response {
                accepted(&message)?;
                continue;
            }
            let request: Request = read(message.payload)?;
            match &*request.method {
                "Configure" => {
                    runtime = Some(Runtime::read(read(request.payload)?));
                    self.respond(message.stream, ConfigureResponse { events: EVENTS }.encode_to_vec()).await?;
                }
                "Synchronize" => {
                    let SynchronizeRequest { more } = read(request.payload)?;
                    self.respond(message.stream, SynchronizeResponse { more }.encode_to_vec()).await?;
                    match runtime.take() {
                        Some(runtime) if !more => return Ok(runtime),
                        known => runtime = known,
                    }
                }
                _ => self.refuse(message.stream, UNIMPLEMENTED, "not before the registration").await?,
            }
        }
    }

    async fn answer(
        &mut self,
        message: Message,
        runtime: &Runtime,
        admission: &impl Admission,
    ) -> Result<(), NriError> {
        if message.kind == Kind::Response {
            return accepted(&message);
        }
        let request: Request = read(message.payload)?;
        let event = match &*request.method {
            "RunPodSandbox" => Event::SandboxStarted,
            "CreateContainer" => Event::ContainerCreated,
            "Shutdown" => {
                self.respond(message.stream, Vec::new()).await?;
                return Err(NriError::ShutDown);
            }
            // Nothing else was asked for.
            other => {
                let reason = format!("{other} is not served");
                return Ok(self.refuse(message.stream, UNIMPLEMENTED, &reason).await?);
            }
        };
        let AboutPod { pod } = read(request.payload)?;
        let pod = pod.ok_or_else(|| NriError::Malformed(format!("{} without a pod", request.method)))?;
        // Half of it, since the runtime counts from before it has sent.
        let decided = admission.admit(Pod::read(pod), event, runtime.patience / 2).await;
        match decided {
            // An empty response, to which nothing is changed.
            Ok(()) => self.respond(message.stream, Vec::new()).await?,
            Err(Refusal(reason)) => self.refuse(message.stream, FAILED_PRECONDITION, &reason).await?,
        }
        Ok(())
    }

    async fn respond(&mut self, stream: u32, payload: Vec<u8>) -> io::Result<()> {
        let response = Response { status: None, payload: payload.into() };
        self.send_response(stream, &response).await
    }

    async fn refuse(&mut self, stream: u32, code: i32, reason: &str) -> io::Result<()> {
        let end = reason.floor_char_boundary(MAX_REASON);
        let status = Status { code, message: reason[..end].to_owned() };
        self.send_response(stream, &Response { status: Some(status), payload: Bytes::new() }).await
    }

    async fn send_response(&mut self, stream: u32, response: &Response) -> io::Result<()> {
        let payload = response.encode_to_vec().into();
        self.send(Message { connection: OF_PLUGIN, stream, kind: Kind::Response, payload }).await
    }

    async fn send(&mut self, message: Message) -> io::Result<()> {
        self.stream.write_all(&message.encode()).await
    }

    /// The next message of either connection.
    async fn next(&mut self) -> Result<Message, NriError> {
        let malformed = |error: wire::WireError| NriError::Malformed(error.to_string());
        loop {
            for inbox in &mut self.inboxes {
                if let Some(message) = inbox.next().map_err(malformed)? {
                    return Ok(message);
                }
            }
            let mut header = [0; FRAME_HEADER];
            self.stream.read_exact(&mut header).await?;
            let (connection, length) = wire::frame_header(&header).map_err(malformed)?;
            let mut octets = vec![0; length];
            self.stream.read_exact(&mut octets).await?;
            match connection {
                OF_PLUGIN => self.inboxes[0].push(&octets),
                OF_RUNTIME => self.inboxes[1].push(&octets),
                other => return Err(NriError::Malformed(format!("a connection of the number {other}"))),
            }
        }
    }
}

/// Whether the runtime took the registration.
fn accepted(message: &Message) -> Result<(), NriError> {
    let Response { status, .. } = read(message.payload.clone())?;
    match status.filter(|status| status.code != 0) {
        Some(status) => Err(NriError::Refused(status.message)),
        None => Ok(()),
    }
}

fn read<M: prost::Message + Default>(payload: Bytes) -> Result<M, NriError> {
    M::decode(payload).map_err(|error| NriError::Malformed(error.to_string()))
}

impl Runtime {
    fn read(told: ConfigureRequest) -> Self {
        let told_patience = u64::try_from(told.request_timeout).unwrap_or_default();
        let patience = if told_patience == 0 { USUAL_PATIENCE } else { Duration::from_millis(told_patience) };
        Self { name: told.runtime_name, version: told.runtime_version, patience }
    }
}

impl Pod {
    fn read(told: PodSandbox) -> Self {
        let source = told.annotations.get("kubernetes.io/config.source");
        Self {
            is_static: source.is_some_and(|source| source != "api"),
            uid: told.uid,
            namespace: told.namespace,
            name: told.name,
            labels: told.labels,
            pid: Some(told.pid).filter(|pid| *pid != 0),
        }
    }
}

#[cfg(test)]
mod tests;
