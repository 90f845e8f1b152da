//! Envoy's static configuration, in JSON.

use std::net::IpAddr;
use std::path::Path;

use mesh_core::SpiffeId;
use serde_json::{Value, json};

use super::envoy::Protocol;
use crate::stage::App;

const TYPES: &str = "type.googleapis.com/envoy.extensions";
/// Connections to a cluster that Envoy allows; its own default is 1024.
const MAX_CONNECTIONS: u32 = 1_000_000;

/// Which end an Envoy stands at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// Takes the client's connections on loopback and carries them to the server's Envoy.
    Client {
        /// The server's pod.
        server: IpAddr,
    },
    /// Takes the client's Envoy's connections and carries them to the application.
    Server,
}

/// The port at which the client's Envoy takes connections for an application. Like all listeners' it is below
/// those that connecting sockets get.
pub(crate) const fn entrance(app: App) -> u16 {
    app.port() + 4_000
}

/// The port at which the server's Envoy takes the other Envoy's connections for an application.
const fn exit(app: App) -> u16 {
    app.port() + 6_000
}

/// The configuration. `files` is where its certificate is, without the ending; `peer` is whom it accepts at the other end.
pub(crate) fn render(files: &Path, role: Role, protocol: Protocol, peer: &SpiffeId) -> String {
    let parts: Vec<_> = App::ALL.into_iter().map(|app| part(files, role, protocol, peer, app)).collect();
    let (listeners, clusters): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}}).to_string()
}

/// The listener and the cluster of one application.
fn part(files: &Path, role: Role, protocol: Protocol, peer: &SpiffeId, app: App) -> (Value, Value) {
    let name = format!("{app:?}");
    let tls = tls(files, protocol, peer);
    let log = access_log(files);
    match role {
        Role::Client { server } => {
            let mut proxy = tcp_proxy(&name, &log);
            let mut cluster = cluster(&name, &server.to_string(), exit(app));
            cluster["transport_socket"] = transport_socket("UpstreamTlsContext", json!({"common_tls_context": tls}));
            if protocol == Protocol::Hbone {
                proxy["typed_config"]["tunneling_config"] = json!({"hostname": format!("{server}:{}", app.port())});
                cluster["typed_extension_protocol_options"] = http2();
            }
            (listener(&name, "127.0.0.1", entrance(app), json!({"filters": [proxy]})), cluster)
        }
        Role::Server => {
            let filter = match protocol {
                Protocol::Tcp => tcp_proxy(&name, &log),
                Protocol::Hbone => connect_terminator(&name, &log),
            };
            let context = json!({"require_client_certificate": true, "common_tls_context": tls});
            let chain =
                json!({"filters": [filter], "transport_socket": transport_socket("DownstreamTlsContext", context)});
            (listener(&name, "0.0.0.0", exit(app), chain), cluster(&name, "127.0.0.1", app.port()))
        }
    }
}

fn listener(name: &str, address: &str, port: u16, chain: Value) -> Value {
    json!({"name": name, "address": socket_address(address, port), "filter_chains": [chain], "tcp_backlog_size": 4096})
}

fn cluster(name: &str, address: &str, port: u16) -> Value {
    let endpoint = json!({"endpoint": {"address": socket_address(address, port)}});
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": {"thresholds": [{
            "max_connections": MAX_CONNECTIONS, "max_pending_requests": MAX_CONNECTIONS, "max_requests": MAX_CONNECTIONS,
        }]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}

fn socket_address(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

fn tcp_proxy(name: &str, log: &Value) -> Value {
    json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": {
        "@type": format!("{TYPES}.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": name, "cluster": name, "access_log": [log],
    }})
}

/// Takes HTTP/2 and turns each CONNECT into a connection to the application.
fn connect_terminator(name: &str, log: &Value) -> Value {
    let upgrade = json!({"upgrade_type": "CONNECT", "connect_config": {}});
    let route = json!({"match": {"connect_matcher": {}}, "route": {"cluster": name, "timeout": "0s", "upgrade_configs": [upgrade]}});
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": name,
        "access_log": [log],
        "stream_idle_timeout": "0s",
        "http2_protocol_options": {"allow_connect": true},
        "route_config": {"virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": format!("{TYPES}.filters.http.router.v3.Router")},
        }],
    }})
}

fn http2() -> Value {
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": {"http2_protocol_options": {"allow_connect": true}},
    }})
}

/// TLS 1.3, both ends with a certificate, the other's identity as a URI.
fn tls(files: &Path, protocol: Protocol, peer: &SpiffeId) -> Value {
    let file = |ending: &str| json!({"filename": files.with_extension(ending)});
    let mut tls = json!({
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [{"certificate_chain": file("pem"), "private_key": file("key")}],
        "validation_context": {
            "trusted_ca": {"filename": files.with_file_name("roots.pem")},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer.as_str()}}],
        },
    });
    if protocol == Protocol::Hbone {
        tls["alpn_protocols"] = json!(["h2"]);
    }
    tls
}

fn transport_socket(context: &str, mut config: Value) -> Value {
    config["@type"] = json!(format!("{TYPES}.transport_sockets.tls.v3.{context}"));
    json!({"name": "envoy.transport_sockets.tls", "typed_config": config})
}

/// One line of JSON for each connection, with about as much in it as the daemon's.
fn access_log(files: &Path) -> Value {
    json!({"name": "envoy.access_loggers.file", "typed_config": {
        "@type": format!("{TYPES}.access_loggers.file.v3.FileAccessLog"),
        "path": files.with_extension("access.log"),
        "log_format": {"json_format": {
            "time": "%START_TIME%", "client": "%DOWNSTREAM_REMOTE_ADDRESS%", "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
            "peer": "%DOWNSTREAM_PEER_URI_SAN%", "upstream": "%UPSTREAM_HOST%", "cluster": "%UPSTREAM_CLUSTER%",
            "received": "%BYTES_RECEIVED%", "sent": "%BYTES_SENT%", "duration": "%DURATION%", "flags": "%RESPONSE_FLAGS%",
        }},
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(role: Role, protocol: Protocol) -> Value {
        let peer = SpiffeId::parse("spiffe://cluster.local/ns/bench/sa/peer").expect("an identity");
        serde_json::from_str(&render(Path::new("/e/client"), role, protocol, &peer)).expect("JSON")
    }

    #[test]
    fn each_application_has_a_way_from_the_client_to_itself() {
        let client = rendered(Role::Client { server: IpAddr::from([10, 0, 0, 2]) }, Protocol::Tcp);
        let server = rendered(Role::Server, Protocol::Tcp);
        let at = |config: &Value, path: &str| config.pointer(path).cloned().unwrap_or_default();
        let to = "load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value";
        for (index, app) in App::ALL.into_iter().enumerate() {
            let listens = format!("/static_resources/listeners/{index}/address/socket_address/port_value");
            let connects = format!("/static_resources/clusters/{index}/{to}");
            assert_eq!(at(&client, &listens), json!(entrance(app)));
            assert_eq!(at(&client, &connects), at(&server, &listens));
            assert_eq!(at(&server, &connects), json!(app.port()));
        }
    }

    #[test]
    fn both_ends_prove_who_they_are() {
        let client = rendered(Role::Client { server: IpAddr::from([10, 0, 0, 2]) }, Protocol::Tcp).to_string();
        let server = rendered(Role::Server, Protocol::Tcp).to_string();
        for text in [&client, &server] {
            assert!(
                text.contains("spiffe://cluster.local/ns/bench/sa/peer") && text.contains("/e/roots.pem"),
                "{text}"
            );
        }
        assert!(server.contains("\"require_client_certificate\":true"));
    }
}
