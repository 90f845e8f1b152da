//! Keys by URL: fetched, followed as they change, and kept while they cannot be had.

use std::time::{Duration, Instant};

use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;

use crate::issuer::{ISSUER, Issuer, alice, publish};
use crate::server::{Client, serve_carts};
use crate::tokens::{ask_as, authentication, client};
use crate::world::{OUTSIDE, run_with};

/// Asks with a token until the answer is that, within what the waypoint may take to fetch keys.
async fn becomes(client: &mut Client, token: &str, status: u16) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ask_as(client, token).await;
        if answer.status == status {
            return;
        }
        assert!(Instant::now() < deadline, "still {}: {:?}", answer.status, answer.body);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn by_url(port: u16) -> String {
    authentication(&format!("jwksUri: http://{OUTSIDE}:{port}/keys"), "")
}

#[test]
fn keys_that_change_are_fetched_when_a_token_names_a_new_one() {
    let (one, two, stranger) = (Issuer::new("one"), Issuer::new("two"), Issuer::new("three"));
    run_with("", async move |world| {
        serve_carts().await;
        let publisher = publish(8001, one.keys(), None).await;
        world.configure(&by_url(8001));
        let mut client = client(&world).await;
        becomes(&mut client, &one.token(&alice()), 200).await;
        becomes(&mut client, &stranger.token(&alice()), 401).await;
        let before = publisher.asked.get();
        publisher.document.replace(Some(two.keys()));
        assert_eq!(ask_as(&mut client, &two.token(&alice())).await.status, 200, "its first use has the keys fetched");
        assert_eq!(publisher.asked.get(), before + 1);
        let answer = ask_as(&mut client, &one.token(&alice())).await;
        assert_eq!(answer.status, 401, "what was verified by a key that is withdrawn is not believed any more");
        // Names of keys that nobody has do not make the waypoint a flood.
        for _ in 0..50 {
            assert_eq!(ask_as(&mut client, &stranger.token(&alice())).await.status, 401);
        }
        assert!(publisher.asked.get() <= before + 4, "asked {} times", publisher.asked.get() - before);
        // While there are none to be had, the last ones stay.
        publisher.document.replace(None);
        assert_eq!(ask_as(&mut client, &two.token(&alice())).await.status, 200);
    });
}

#[test]
fn without_keys_no_token_is_believed() {
    let issuer = Issuer::new("one");
    run_with(&by_url(8001), async move |world| {
        serve_carts().await;
        let mut client = client(&world).await;
        let answer = ask_as(&mut client, &issuer.token(&alice())).await;
        assert_eq!((answer.status, &answer.body[..]), (401, &b"Jwks remote fetch is failed"[..]));
        assert_eq!(client.get("/").await.status, 200, "without a token nothing is to be verified");
        let publisher = publish(8001, "no key set".to_owned(), None).await;
        while publisher.asked.get() == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(ask_as(&mut client, &issuer.token(&alice())).await.status, 401);
        publisher.document.replace(Some("x".repeat(2 << 20)));
        world.logged("1048576 octets").await;
        publisher.document.replace(Some(issuer.keys()));
        becomes(&mut client, &issuer.token(&alice()), 200).await;
    });
}

/// A way to end TLS for [`OUTSIDE`], and its root.
fn tls() -> (ServerConfig, String) {
    let key = rcgen::KeyPair::generate().expect("key");
    let parameters = rcgen::CertificateParams::new(vec![OUTSIDE.to_owned()]).expect("parameters");
    let certificate = parameters.self_signed(&key).expect("certificate");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let builder = ServerConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions();
    let der = PrivateKeyDer::try_from(key.serialize_der()).expect("key");
    let config =
        builder.expect("versions").with_no_client_auth().with_single_cert(vec![certificate.der().clone()], der);
    (config.expect("configuration"), certificate.pem())
}

#[test]
fn keys_come_by_https_from_whom_the_system_trusts_alone() {
    let issuer = Issuer::new("one");
    let manifests = authentication(&format!("jwksUri: https://{OUTSIDE}:8443/keys"), "");
    run_with(&manifests, async move |world| {
        serve_carts().await;
        let (config, root) = tls();
        let (_, other_root) = tls();
        std::fs::write(world.roots(), other_root).expect("roots");
        let publisher = publish(8443, issuer.keys(), Some(config)).await;
        let mut client = client(&world).await;
        world.logged("keys not fetched").await;
        assert_eq!(ask_as(&mut client, &issuer.token(&alice())).await.status, 401);
        assert_eq!(publisher.asked.get(), 0);
        std::fs::write(world.roots(), root).expect("roots");
        becomes(&mut client, &issuer.token(&alice()), 200).await;
    });
}

#[test]
fn an_issuer_may_say_itself_where_its_keys_are() {
    let issuer = Issuer::new("one");
    let name = format!("http://{OUTSIDE}:8002");
    let manifests = authentication("", "").replace(ISSUER, &name);
    run_with(&manifests, async move |world| {
        serve_carts().await;
        publish(8001, issuer.keys(), None).await;
        let configuration = json!({"issuer": name, "jwks_uri": format!("http://{OUTSIDE}:8001/keys")});
        publish(8002, configuration.to_string(), None).await;
        let mut claims = alice();
        claims["iss"] = json!(name);
        becomes(&mut client(&world).await, &issuer.token(&claims), 200).await;
    });
}
