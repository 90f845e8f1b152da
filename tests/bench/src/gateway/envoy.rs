//! Envoy's configuration as a gateway, with the routes that the mesh's has.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::stage::{ENVOYS, GRPC, GRPC_SERVER, MANY, ONE, ROUTES, SERVER};

const TYPES: &str = "type.googleapis.com/envoy.extensions";
/// Connections and requests that Envoy allows; its own default is 1024.
const NO_LIMIT: u32 = 1_000_000;

/// The configuration, for a server at that address.
pub(super) fn render(server: IpAddr, log: &str) -> String {
    let all = json!({"match": {"prefix": "/"}, "route": {"cluster": "server"}});
    let many = (0..ROUTES)
        .map(|number| json!({"match": {"path": format!("/route/{number}")}, "route": {"cluster": "server"}}));
    let calls = json!({"match": {"prefix": "/"}, "route": {"cluster": "grpc"}});
    let listeners = [
        listener(ONE + ENVOYS, vec![all.clone()], log),
        listener(MANY + ENVOYS, many.chain([all]).collect(), log),
        listener(GRPC + ENVOYS, vec![calls], log),
    ];
    let mut grpc = cluster("grpc", server, GRPC_SERVER);
    grpc["typed_extension_protocol_options"] = json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": format!("{TYPES}.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": {"http2_protocol_options": {}},
    }});
    let clusters = [cluster("server", server, SERVER), grpc];
    json!({"static_resources": {"listeners": listeners, "clusters": clusters}}).to_string()
}

fn cluster(name: &str, server: IpAddr, port: u16) -> Value {
    let endpoint = json!({"endpoint": {"address": {"socket_address": {"address": server, "port_value": port}}}});
    let thresholds = json!([{"max_connections": NO_LIMIT, "max_pending_requests": NO_LIMIT, "max_requests": NO_LIMIT}]);
    json!({
        "name": name, "type": "STATIC", "connect_timeout": "10s", "circuit_breakers": {"thresholds": thresholds},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}

fn listener(port: u16, routes: Vec<Value>, log: &str) -> Value {
    let manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "gateway",
        "codec_type": "AUTO",
        "use_remote_address": true,
        "access_log": [access_log(log)],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": format!("{TYPES}.filters.http.router.v3.Router")},
        }],
    });
    json!({
        "name": format!("port-{port}"),
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}],
        "tcp_backlog_size": 4096,
    })
}

/// One line of JSON for each request, with about as much in it as the mesh's.
fn access_log(path: &str) -> Value {
    json!({"name": "envoy.access_loggers.file", "typed_config": {
        "@type": format!("{TYPES}.access_loggers.file.v3.FileAccessLog"),
        "path": path,
        "log_format": {"json_format": {
            "time": "%START_TIME%", "client": "%DOWNSTREAM_REMOTE_ADDRESS%", "method": "%REQ(:METHOD)%", "path": "%REQ(:PATH)%",
            "status": "%RESPONSE_CODE%", "flags": "%RESPONSE_FLAGS%", "route": "%ROUTE_NAME%", "upstream": "%UPSTREAM_HOST%",
            "received": "%BYTES_RECEIVED%", "sent": "%BYTES_SENT%", "duration": "%DURATION%",
        }},
    }})
}
