//! The API on TCP at 127.0.0.1, for what reaches a pod's loopback by the API server (`kubectl port-forward`).
//!
//! It answers whom the Unix socket answers: the kernel says whose the socket at the other end is.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{Request, header, uri::Authority};
use hyper::body::Incoming;
use mesh_netlink::{Holder, SockDiag};
use tokio::net::{TcpListener, TcpStream};

use crate::{
    cgroup::PodCgroups,
    server::{ACCEPT_PAUSE, Api, Places, Turned},
};

/// How often to try again where another has the port: an earlier daemon that is about to end, for one.
const AGAIN: Duration = Duration::from_secs(1);

/// Serves at 127.0.0.1:`port` until dropped, as soon as the port can be had; the program does not depend on it.
///
/// With `pods`, whoever runs in a pod's cgroup is refused: where the namespace is the node's own.
pub async fn serve_loopback<A: Api>(port: u16, pods: Option<PodCgroups>, api: Arc<A>) {
    let listener = bind(port).await;
    let places = Places::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors or memory: not at once again.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let client = client(&stream);
        let uid = client.map(|client| client.uid);
        let cgroup = client.and_then(|client| client.cgroup);
        let turned = match (places.has_right(uid), &pods, cgroup) {
            (false, ..) => Some(Turned::Stranger(uid)),
            (true, Some(pods), Some(cgroup)) => (!is_of_the_node(pods, cgroup).await).then_some(Turned::Pod),
            (true, ..) => None,
        };
        places.serve(stream, &api, turned, name_is_of_this_machine);
    }
}

/// It reads directories, of which there may be many: others go on meanwhile.
async fn is_of_the_node(pods: &PodCgroups, cgroup: u64) -> bool {
    let pods = pods.clone();
    tokio::task::spawn_blocking(move || pods.is_of_the_node(cgroup)).await.unwrap_or(false)
}

async fn bind(port: u16) -> TcpListener {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) if !told => {
                tracing::warn!(%error, %address, "--admin-port: not open yet; tried again each second");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Who holds the other end. `None` where the kernel does not say: nobody has a right then.
fn client(stream: &TcpStream) -> Option<Holder> {
    let (ours, theirs) = (stream.local_addr().ok()?, stream.peer_addr().ok()?);
    match SockDiag::open().and_then(|mut diag| diag.holder(theirs, ours)) {
        Ok(holder) => holder,
        Err(error) => {
            tracing::warn!(%error, "--admin-port: the kernel does not say whose a client is; it is refused");
            None
        }
    }
}

/// A browser that has the port forwarded to it must not lend its way to pages: those ask by a name of their own.
fn name_is_of_this_machine(request: &Request<Incoming>) -> Option<Turned> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let known = host.is_some_and(|host| ["localhost", "127.0.0.1", "[::1]"].contains(&host.host()));
    (!known).then_some(Turned::Name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use http::StatusCode;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{Routed, json};

    struct Says;

    impl Api for Says {
        const PROGRAM: &'static str = "says";

        async fn route(self: Arc<Self>, _: Request<Incoming>) -> Routed {
            Routed { answer: json(&"hello"), ends: true }
        }

        fn answered(&self, _: StatusCode) {}
    }

    /// A port that is free, and what is served at it.
    async fn served(pods: Option<PodCgroups>) -> (u16, tokio::task::JoinHandle<()>) {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = holder.local_addr().unwrap().port();
        // It waits for the port while another has it.
        let serving = tokio::spawn(serve_loopback(port, pods, Arc::new(Says)));
        tokio::task::yield_now().await;
        drop(holder);
        (port, serving)
    }

    async fn ask(port: u16, host: &str) -> String {
        let mut stream = loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn its_own_user_is_answered_by_loopbacks_names_alone() {
        let (port, serving) = served(None).await;
        for host in ["localhost", "127.0.0.1:15000", "[::1]:80"] {
            assert!(ask(port, host).await.starts_with("HTTP/1.1 200"), "{host}");
        }
        for host in ["rebound.example", "localhost.example:15000", ""] {
            let answer = ask(port, host).await;
            assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("localhost"), "{host}: {answer}");
        }
        serving.abort();
    }

    #[tokio::test]
    async fn a_client_from_where_no_program_of_the_node_runs_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        let (port, serving) = served(Some(PodCgroups::below(empty.path().to_owned()))).await;
        let answer = ask(port, "localhost").await;
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("pods"), "{answer}");
        serving.abort();
    }

    #[tokio::test]
    async fn another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not root: nobody else to ask as");
            return;
        }
        let (port, serving) = served(None).await;
        assert!(ask(port, "localhost").await.starts_with("HTTP/1.1 200"));
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET / HTTP/1.1\\r\\nhost: localhost\\r\\n\\r\\n' >&3; cat <&3"
        );
        let output = tokio::task::spawn_blocking(move || {
            Command::new("/bin/bash").args(["-c", &script]).uid(65_534).current_dir("/").output().unwrap()
        });
        let answer = String::from_utf8(output.await.unwrap().stdout).unwrap();
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("user 65534"), "{answer}");
        serving.abort();
    }
}
