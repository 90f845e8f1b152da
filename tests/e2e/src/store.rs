//! A store behind a waypoint, and a gateway before the shop: requests that meet everything that a rule or a policy does.

use anyhow::Result;
use mesh_lab::{Ingress, Outside, Place as _, Pod, PodSpec, Process, ServiceSpec};

use crate::{Mesh, NODES, PATIENCE, Waypoint};

/// The store's namespace.
pub const STORE: &str = "store";

/// Where each kind of request is sent. Of the two endpoints behind `flaky`, one always fails.
const RULES: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: item, namespace: store}
spec:
  hosts: [item]
  http:
  - name: broken
    match: [{uri: {prefix: /broken}}]
    fault: {abort: {percentage: {value: 100}, httpStatus: 503}}
    route: [{destination: {host: item}}]
  - name: canary
    route:
    - {destination: {host: item, subset: v1}, weight: 75}
    - {destination: {host: item, subset: v2}, weight: 25}
    mirrors: [{destination: {host: flaky}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: item, namespace: store}
spec:
  host: item
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: flaky, namespace: store}
spec:
  hosts: [flaky]
  http:
  - retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: flaky}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: flaky, namespace: store}
spec:
  host: flaky
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 2, interval: 1s, baseEjectionTime: 1s, maxEjectionPercent: 50}
";

/// An authorizer that is not there.
const PROVIDERS: &str = "- name: judge
  envoyExtAuthzHttp: {service: nobody.store.svc.cluster.local, port: 80}
";

/// Who may ask: a token that nobody signed and the authorizer refuse, as does a policy.
const POLICIES: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: asked, namespace: store}
spec:
  targetRefs: [{group: '', kind: Service, name: item}]
  action: CUSTOM
  provider: {name: judge}
  rules: [{to: [{operation: {paths: [/asked]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: private, namespace: store}
spec:
  targetRefs: [{group: '', kind: Service, name: item}]
  action: DENY
  rules: [{to: [{operation: {paths: [/private]}}]}]
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: users, namespace: store}
spec:
  targetRefs: [{group: '', kind: Service, name: item}]
  jwtRules: [{issuer: https://login.example.com, jwksUri: 'http://127.0.0.1:9/keys'}]
";

/// A gateway that leads to the shop.
const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway, namespace: edge}
spec:
  gatewayClassName: mesh
  listeners: [{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: frontend, namespace: shop}
spec:
  parentRefs: [{name: gateway, namespace: edge}]
  hostnames: [shop.example.com]
  rules: [{backendRefs: [{name: frontend, port: 8080}]}]
";

/// The store, and who buys there without end.
pub struct Store {
    /// Its waypoint's replica.
    pub waypoint: Pod,
    /// The gateway's pod.
    pub gateway: Pod,
    _pods: Vec<Pod>,
    _outside: Outside,
    _buying: [Process; 2],
}

impl Store {
    /// Opens it in a mesh in which the shop is open; a request of each kind has been answered.
    pub fn open(mesh: &Mesh) -> Result<Self> {
        mesh.lab.label_namespace(STORE, "mesh.dev/join", "enabled")?;
        let mut pods = Vec::new();
        for (name, version, node, more) in [
            ("item-v1", "v1", NODES[0], [].as_slice()),
            ("item-v2", "v2", NODES[1], &[]),
            ("flaky-v1", "v1", NODES[0], &[]),
            ("flaky-v2", "v2", NODES[1], &["--status", "500"]),
        ] {
            pods.push(mesh.join(server(name, version, more).on(node))?);
        }
        for service in ["item", "flaky"] {
            let spec = ServiceSpec::new(STORE, service).select("app", service);
            mesh.lab.service(spec.port("http", 80, 8080))?;
        }
        let client =
            mesh.join(PodSpec::new(STORE, "buyer").on(NODES[0]).service_account("buyer").label("app", "buyer"))?;
        mesh.provide(PROVIDERS)?;
        for (file, text) in [("rules.yaml", RULES), ("policies.store.yaml", POLICIES), ("edge.yaml", GATEWAY)] {
            mesh.lab.apply(file, text)?;
        }
        let declared = Waypoint::declare_in(mesh, STORE, "waypoint")?;
        let waypoint = declared.replica(mesh, "waypoint-1", NODES[1])?;
        declared.serve_namespace(mesh)?;
        let gateway = Ingress::new("edge", "gateway").port(80).start_here(&mesh.lab, NODES[0])?;
        mesh.settle()?;
        let outside = mesh.lab.outside("customer")?;
        let mut buying = [
            client.spawn(&["sh", "-c", &forever(&requests())])?,
            outside.spawn(&["sh", "-c", &forever(&from_outside(&gateway))])?,
        ];
        for (process, statuses) in buying.iter_mut().zip([["200", "503", "403", "401", "400"].as_slice(), &["200"]]) {
            for status in statuses {
                process.wait_for_line(status, PATIENCE)?;
            }
        }
        pods.push(client);
        Ok(Self { waypoint, gateway, _pods: pods, _outside: outside, _buying: buying })
    }

    /// A proxy's name in Prometheus.
    pub fn instance(proxy: &Pod) -> String {
        format!("{}:15020", proxy.ipv4())
    }
}

fn server(name: &str, version: &str, more: &[&str]) -> PodSpec {
    let service = name.split('-').next().unwrap_or(name);
    let command = ["mesh-traffic", "http", "--listen", "[::]:8080", "--name", name];
    let spec = PodSpec::new(STORE, name).service_account(service).label("app", service).label("version", version);
    spec.port("http", 8080).command(command.into_iter().chain(more.iter().copied()))
}

/// A command's lines, again and again; each request's status is a line of the output.
fn forever(commands: &str) -> String {
    format!(
        "ask() {{ curl -s --path-as-is -m 10 -o /dev/null -w '%{{http_code}}\\n' \"$@\"; }}\nwhile :; do\n{commands}sleep 0.1\ndone"
    )
}

fn requests() -> String {
    let mut text = String::new();
    for of in ["/", "/broken", "/private", "/asked", "/%zz"] {
        text += &format!("ask http://item.{STORE}{of}\n");
    }
    text += &format!("ask -H 'authorization: Bearer e30.e30.e30' http://item.{STORE}/\n");
    text + &format!("ask http://flaky.{STORE}/\n")
}

fn from_outside(gateway: &Pod) -> String {
    let frontend = "http://shop.example.com/checkout?user=eve&item=book&card=4000-0000&marker=o";
    format!("ask --connect-to '::{}:' '{frontend}'\n", gateway.ipv4())
}
