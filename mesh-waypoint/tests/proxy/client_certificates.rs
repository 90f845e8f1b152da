//! Certificates that clients of the Gateway API's Gateways show (`spec.tls.frontend`).

use crate::gateway::{Certificate, GATEWAY, gateway, get};
use crate::server::{Backend, serve};
use crate::world::{OUTSIDE, World, run_as};

/// HTTPS at two ports: of the first clients show certificates of a ConfigMap's authority, of the second any.
fn manifests(server: &Certificate, roots: &str) -> String {
    let https = |name: &str, port: u16| {
        format!("{{name: {name}, port: {port}, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}")
    };
    let listeners =
        format!("{}, {}, {{name: http, port: 8000, protocol: HTTP}}", https("strict", 4430), https("lax", 4431));
    let validation = |more: &str| {
        format!("{{validation: {{caCertificateRefs: [{{group: '', kind: ConfigMap, name: clients}}]{more}}}}}")
    };
    let tls = format!(
        "{{frontend: {{default: {}, perPort: [{{port: 4431, tls: {}}}]}}}}",
        validation(""),
        validation(", mode: AllowInsecureFallback")
    );
    let class = "gatewayClassName: mesh, ";
    let gateway = gateway(&listeners).replace(class, &format!("{class}tls: {tls}, "));
    format!("{gateway}{}{roots}", server.secret("cert"))
}

fn config_map(client: &Certificate) -> String {
    let roots = std::fs::read_to_string(client.roots()).expect("roots").trim_end().replace('\n', "\n    ");
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: clients, namespace: shop}}\ndata:\n  ca.crt: |\n    {roots}\n---\n"
    )
}

fn told(backend: &Backend) -> bool {
    backend.seen.borrow().last().is_some_and(|head| head.headers.contains_key("x-forwarded-client-cert"))
}

#[test]
fn clients_show_certificates_of_the_gateways_authorities() {
    run_as(GATEWAY, "", async |world: World| {
        let outside = serve(OUTSIDE, 8080, false).await;
        let server = Certificate::new(&world, "server", &["a.example"]);
        let [known, stranger] = ["known", "stranger"].map(|name| Certificate::new(&world, name, &[name]));
        let directory = |name: &str| {
            let directory = world.home().join(name);
            std::fs::create_dir_all(&directory).expect("directory");
            directory
        };
        let (known_files, strangers) = (known.files(&directory("known")), stranger.files(&directory("stranger")));
        let with = |files: &(String, String)| {
            ["--cacert", server.roots(), "--cert", &files.0, "--key", &files.1].map(str::to_owned).to_vec()
        };
        let nothing = vec!["--cacert".to_owned(), server.roots().to_owned()];
        let ask = async |port: u16, arguments: &[String]| {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            get(&format!("https://a.example:{port}/"), &arguments).await.0
        };
        world.configure(&manifests(&server, &config_map(&known)));
        assert_eq!(ask(4430, &with(&known_files)).await, "200");
        assert!(told(&outside), "servers are told of it");
        assert_eq!(ask(4430, &nothing).await, "000");
        assert_eq!(ask(4430, &with(&strangers)).await, "000");
        for (arguments, is_told) in [(with(&known_files), true), (nothing.clone(), false), (with(&strangers), false)] {
            assert_eq!(ask(4431, &arguments).await, "200", "whoever comes is let in");
            assert_eq!(told(&outside), is_told, "and nobody is told of what nobody believes: {arguments:?}");
        }
        assert_eq!(get("http://a.example:8000/", &[]).await.0, "200", "no TLS, no certificates");
        // Another authority, from now on.
        world.configure(&manifests(&server, &config_map(&stranger)));
        while ask(4430, &with(&strangers)).await != "200" {}
        assert_eq!(ask(4430, &with(&known_files)).await, "000");
    });
}

#[test]
fn without_roots_nobody_gets_in() {
    run_as(GATEWAY, "", async |world: World| {
        serve(OUTSIDE, 8080, false).await;
        let server = Certificate::new(&world, "server", &["a.example"]);
        world.configure(&manifests(&server, ""));
        assert_eq!(get("http://a.example:8000/", &[]).await.0, "200", "the other listener is open");
        for port in [4430, 4431] {
            let refused = tokio::net::TcpStream::connect((crate::world::WAYPOINT, port)).await;
            assert!(refused.is_err(), "port {port} is not opened");
        }
    });
}
