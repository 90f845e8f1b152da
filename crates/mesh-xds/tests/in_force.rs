//! One replica asks another over real TLS what is in force at those whom that one tells.
#![allow(clippy::unwrap_used)]

mod control;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_ca::{CaService, Caller, Denial, Gatekeeper, Link, RemoteSettings, SERVER_NAME, ServerIdentity};
use mesh_config::{ObjectName, Options};
use mesh_core::{NodeName, SpiffeId, TrustDomain};
use mesh_transport::{CertificateAuthority, CertificateSource as _, LocalAuthority};
use mesh_xds::proto::{Node, Wanted};
use mesh_xds::{Count, Inquiry, MAX_WANTED, OBJECT_TYPE, State, XdsService, follow};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use self::control::Control;

const NODE: &str = "the-token-of-a-node";
const REPLICA: &str = "the-token-of-a-replica";

struct Tokens;

impl Gatekeeper for Tokens {
    async fn authenticate(&self, token: &str) -> Result<Caller, Denial> {
        if token == NODE { Ok(Caller::Node(NodeName::from("a"))) } else { Err(Denial::UnknownCaller) }
    }

    async fn authenticate_replica(&self, token: &str) -> Result<(), Denial> {
        if token == REPLICA { Ok(()) } else { Err(Denial::UnknownCaller) }
    }

    async fn placed(&self, node: &NodeName, identity: &SpiffeId) -> Result<(), Denial> {
        Err(Denial::NotPlaced { identity: identity.clone(), node: node.clone() })
    }
}

/// Serves `state`; gives links to it by token.
async fn serve(dir: &Path, state: watch::Receiver<State>) -> impl Fn(&str) -> Link {
    let authority = CertificateAuthority::generate(&TrustDomain::default(), SystemTime::now()).unwrap();
    authority.write(dir, true).unwrap();
    let authority = Arc::new(LocalAuthority::open(dir, SystemTime::now()).unwrap());
    let identity = ServerIdentity::new(authority.clone(), SERVER_NAME).unwrap();
    let gatekeeper = Arc::new(Tokens);
    let life = Duration::from_secs(60);
    let signing = CaService::new(authority.clone(), gatekeeper.clone(), TrustDomain::default(), life);
    let service = XdsService::new(gatekeeper, state, signing);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(mesh_ca::serve(listener, identity, service));
    let dir = dir.to_owned();
    move |token| {
        let file = dir.join(token);
        std::fs::write(&file, token).unwrap();
        let root = dir.join("root-cert.pem");
        let settings = RemoteSettings { address: address.clone(), name: SERVER_NAME.to_owned(), root, token: file };
        Link::new(&settings, authority.trust()).unwrap()
    }
}

#[tokio::test]
async fn a_replica_is_told_at_how_many_a_version_is_in_force_and_nobody_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut control = Control::new();
    let pod = |uid: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart", "namespace": "shop", "uid": uid},
            "spec": {"nodeName": "a", "containers": [{"name": "c"}]}})
    };
    let name = ObjectName::of_path("/Pod/shop/cart").unwrap();
    control.learn(&[(name.clone(), Some(pod("one")))]);
    let version = |control: &Control| {
        let table = control.state.table(OBJECT_TYPE).clone();
        let resource = table.resources().get(("", name.path().as_str())).unwrap().clone();
        Wanted { name: name.path(), version: resource.version() }
    };
    let first = version(&control);
    let (told, state) = watch::channel(control.state.clone());
    let link = serve(dir.path(), state).await;

    let refused = Inquiry::begin(&link(NODE)).await.unwrap_err();
    assert_eq!(refused.message(), Denial::UnknownCaller.to_string());
    let mut inquiry = Inquiry::begin(&link(REPLICA)).await.unwrap();
    let wanted = vec![first.clone(), Wanted { version: 1, ..first.clone() }];
    assert_eq!(inquiry.ask(wanted.clone()).await.unwrap(), [Count::default(); 2]);

    let (_beside, beside) = mpsc::channel(1);
    let mut following = follow(vec![link(NODE)], Node::default(), Options::default(), beside).await;
    let counted = async |inquiry: &mut Inquiry, wanted: &[Wanted], expected: &[Count]| {
        // What has been put in force is said to be so a moment later.
        let arrived = async { while inquiry.ask(wanted.to_vec()).await.unwrap() != expected {} };
        tokio::time::timeout(Duration::from_secs(30), arrived).await.expect("counted");
    };
    let (all, none) = (Count { current: 1, all: 1 }, Count { current: 0, all: 1 });
    counted(&mut inquiry, &wanted, &[all, none]).await;

    // What was in force is no more, once the next is.
    control.learn(&[(name.clone(), Some(pod("two")))]);
    told.send_replace(control.state.clone());
    following.config.changed().await.unwrap();
    counted(&mut inquiry, &[first.clone(), version(&control)], &[none, all]).await;
    // Whoever is gone does not count.
    drop(following);
    counted(&mut inquiry, &[version(&control)], &[Count::default()]).await;

    let too_much = inquiry.ask(vec![first; MAX_WANTED + 1]).await.unwrap_err();
    assert!(too_much.message().contains("more than"), "{too_much}");
}
