//! The plugin and a peer that speaks as a runtime does. tests/kube has it asked by containerd itself.

use std::collections::BTreeMap;

use tokio::net::UnixListener;

use super::*;

const PLUGIN: Plugin<'_> = Plugin { name: "test", index: "10" };

/// Refuses whoever is called so.
struct Refuses(&'static str);

impl Admission for Refuses {
    async fn admit(&self, pod: Pod, event: Event, patience: Duration) -> Result<(), Refusal> {
        assert_eq!(patience, Duration::from_millis(500));
        assert_eq!(pod.labels.get("app"), Some(&pod.name));
        if pod.name == self.0 { Err(Refusal(format!("{event:?} of {}", pod.uid))) } else { Ok(()) }
    }
}

/// The runtime's side of a connection.
struct Peer {
    session: Session,
    stream: u32,
}

impl Peer {
    async fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        Self { session: Session { stream, inboxes: [OF_PLUGIN, OF_RUNTIME].map(Inbox::of) }, stream: 1 }
    }

    async fn registered(listener: &UnixListener) -> Self {
        let mut peer = Self::accept(listener).await;
        let asked = peer.session.next().await.unwrap();
        assert_eq!((asked.connection, asked.kind), (OF_RUNTIME, Kind::Request));
        let request: Request = read(asked.payload).unwrap();
        assert_eq!((&*request.service, &*request.method), (RUNTIME_SERVICE, "RegisterPlugin"));
        let registered: RegisterPluginRequest = read(request.payload).unwrap();
        assert_eq!((&*registered.plugin_name, &*registered.plugin_idx), ("test", "10"));
        peer.say(OF_RUNTIME, asked.stream, Kind::Response, &Response::default()).await;
        let configure = ConfigureRequest {
            runtime_name: "peer".to_owned(),
            runtime_version: "v1".to_owned(),
            request_timeout: 1000,
        };
        let told: ConfigureResponse = read(peer.ask("Configure", &configure).await.payload).unwrap();
        assert_eq!(told.events, 0b1001);
        for more in [true, false] {
            let told = peer.ask("Synchronize", &SynchronizeRequest { more }).await;
            assert_eq!(read::<SynchronizeResponse>(told.payload).unwrap().more, more);
        }
        peer
    }

    async fn say(&mut self, connection: u32, stream: u32, kind: Kind, message: &impl prost::Message) {
        let payload = message.encode_to_vec().into();
        self.session.send(Message { connection, stream, kind, payload }).await.unwrap();
    }

    async fn ask(&mut self, method: &str, message: &impl prost::Message) -> Response {
        let payload = message.encode_to_vec().into();
        let request = Request { service: String::new(), method: method.to_owned(), payload, timeout_nano: 0 };
        self.stream += 2;
        self.say(OF_PLUGIN, self.stream, Kind::Request, &request).await;
        let answer = self.session.next().await.unwrap();
        assert_eq!((answer.connection, answer.stream, answer.kind), (OF_PLUGIN, self.stream, Kind::Response));
        read(answer.payload).unwrap()
    }

    async fn ask_of(&mut self, method: &str, name: &str) -> Option<Status> {
        let labels = [("app".to_owned(), name.to_owned())].into();
        let pod = PodSandbox { name: name.to_owned(), uid: "u1".to_owned(), labels, ..PodSandbox::default() };
        self.ask(method, &AboutPod { pod: Some(pod) }).await.status
    }
}

#[tokio::test]
async fn a_runtime_is_told_which_pods_may_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nri.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut runtime = None;
    let served = async {
        let ended = PLUGIN.serve(&socket, &Refuses("bad"), |told| runtime = Some(told.clone())).await;
        ended.map(|never| match never {}).unwrap_err()
    };
    let asked = async {
        let mut peer = Peer::registered(&listener).await;
        assert_eq!(peer.ask_of("RunPodSandbox", "good").await, None);
        let refused = peer.ask_of("RunPodSandbox", "bad").await.unwrap();
        assert_eq!((refused.code, &*refused.message), (FAILED_PRECONDITION, "SandboxStarted of u1"));
        let refused = peer.ask_of("CreateContainer", "bad").await.unwrap();
        assert_eq!(refused.message, "ContainerCreated of u1");
        assert_eq!(peer.ask_of("StopPodSandbox", "good").await.unwrap().code, UNIMPLEMENTED);
        assert_eq!(peer.ask_of("Shutdown", "").await, None);
    };
    let (ended, ()) = tokio::join!(served, asked);
    assert!(matches!(ended, NriError::ShutDown), "{ended}");
    assert_eq!(runtime.map(|told| (told.name, told.version)), Some(("peer".to_owned(), "v1".to_owned())));
}

#[tokio::test]
async fn a_registration_that_is_refused_says_why_and_a_socket_that_is_not_there_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("nri.sock");
    let serve = || async {
        let ended = PLUGIN.serve(&socket, &Refuses(""), |_| unreachable!("not registered")).await;
        ended.map(|never| match never {}).unwrap_err()
    };
    assert!(matches!(serve().await, NriError::Connect(_)));
    let listener = UnixListener::bind(&socket).unwrap();
    let refuses = async {
        let mut peer = Peer::accept(&listener).await;
        let asked = peer.session.next().await.unwrap();
        let status = Some(Status { code: 3, message: "no such name".to_owned() });
        peer.say(OF_RUNTIME, asked.stream, Kind::Response, &Response { status, payload: Bytes::new() }).await;
    };
    let (ended, ()) = tokio::join!(serve(), refuses);
    assert!(matches!(&ended, NriError::Refused(why) if why == "no such name"), "{ended}");
}

#[test]
fn a_pod_that_the_api_server_does_not_know_is_told_apart() {
    let of = |source: Option<&str>| {
        let annotations =
            source.map(|source| ("kubernetes.io/config.source".to_owned(), source.to_owned())).into_iter();
        let told = PodSandbox { annotations: annotations.collect::<BTreeMap<_, _>>(), ..PodSandbox::default() };
        Pod::read(told).is_static
    };
    assert_eq!([of(None), of(Some("api")), of(Some("file"))], [false, false, true]);
}
