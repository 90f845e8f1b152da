//! `mesh-ctl route` says of a request what the request then gets: a table of them, by manifests, by the client's node and by who
//! reads them.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use mesh_e2e::{Mesh, NAMESPACE, PATIENCE, Verdict, Waypoint, client, ctl, ctl_json};
use mesh_lab::{Ingress, Place, Pod, PodSpec, ServiceSpec, wait_until};
use serde_json::Value;

const MANIFESTS: &str = include_str!("../fixtures/requests.yaml");
/// Tokens of the issuer that the manifests believe: of an administrator, and for somebody else.
const ADMINISTRATOR: &str = "eyJhbGciOiAiUlMyNTYiLCAia2lkIjogImUyZSJ9.eyJpc3MiOiAiZTJlIiwgInN1YiI6ICJhbm4iLCAiYXVkIjogInNob3AiLCAiZ3JvdXBzIjogWyJhZG1pbnMiXSwgImV4cCI6IDk5OTk5OTk5OTl9.azpowPjHuo5b_at2924lTMGC8UgLVAYhuWY0PnXjfNKSPK-XbRfdmk6UOUyZ50lDCGQ219R9DBWySoCxOy1uch7RSBOHz7mKUZXtnDZB87GXr6CTcJvqzqLDODS6oxt1gbz7XV4Cy2Zl8oomiSFQQM-1m4l9rfzgzpv-meBfNV07wPEiMUQA9QaBAxn-nLgB_bvitIKruhTur7fupXEO-8JfJavceGDGSzyM7plEJIgUnuOzB04GjEmGs_Ghy1Ic6CCKiKypz5bw3IEU0PZK0csrdlsr1GeZFRd7lFvJY40W4KhW4l-8sqUH5l4lSiWWmWmys0ipRny77RvSs9WQhg";
const FOR_THE_BANK: &str = "eyJhbGciOiAiUlMyNTYiLCAia2lkIjogImUyZSJ9.eyJpc3MiOiAiZTJlIiwgInN1YiI6ICJhbm4iLCAiYXVkIjogImJhbmsiLCAiZXhwIjogOTk5OTk5OTk5OX0.bRwFlYDKQ8cAvGdTdYjHFsV8mGE2rWvpFnc_7mC9c-vyHwfWljV7I1E8SMsOkLHzPNFOOmD-N4OEHcHlDwNJEIyeHtw9pc9Llyj7GA6D0VUo9_o3RscPRc247jCm8zIzlzNC3eNqzqbiDDjkBvuO8N4UtOCWPrL_BDYLvZ3GW7ZYGCNLLk42y5_IiO_G8zTqnIB7H4R_3wwnZD20iv2m2U_C2WjkKDi9PHKti1PJRY-UsIywWsNdJoJZk4z7Ynp7rUtgSH6l-HWlljyG0gj4szNMmUoPZ0w7oSFUrMctiRwo1m9v0GuSJXlbjvvb9DqYqrXgkokTlGP1b12vVbX0HQ";

/// A pod that serves HTTP and says who it is.
fn application(namespace: &str, name: &str, app: &str, version: &str) -> PodSpec {
    let command = ["mesh-traffic", "http", "--listen", "[::]:8080", "--name", name];
    let spec = PodSpec::new(namespace, name).on("node-b").service_account(app).label("app", app);
    spec.label("version", version).command(command).port("http", 8080)
}

/// Services of a namespace with a waypoint, one of a namespace without, and three clients.
struct Scene {
    mesh: Mesh,
    waypoint: Waypoint,
    clients: [Pod; 3],
}

impl Scene {
    fn set() -> Result<Self> {
        let mesh = Mesh::start()?;
        mesh.lab.label_namespace("plain", "mesh.dev/join", "enabled")?;
        for (namespace, app, version) in
            [(NAMESPACE, "cart", "v1"), (NAMESPACE, "cart", "v2"), ("plain", "bare", "v1"), (NAMESPACE, "closed", "v1")]
        {
            mesh.join(application(namespace, &format!("{app}-{version}"), app, version))?;
        }
        let clients = [
            mesh.join(client("client", "node-a"))?,
            mesh.join(client("other", "node-a"))?,
            mesh.lab.deploy(PodSpec::new("elsewhere", "stranger").on("node-a"))?,
        ];
        for (namespace, app) in [(NAMESPACE, "cart"), ("plain", "bare"), (NAMESPACE, "closed")] {
            mesh.lab.service(ServiceSpec::new(namespace, app).select("app", app).port("http", 80, 8080))?;
        }
        mesh.lab.apply("requests.yaml", MANIFESTS)?;
        let waypoint = Waypoint::declare_in(&mesh, NAMESPACE, "waypoint")?;
        waypoint.serve_namespace(&mesh)?;
        // It is ready once it has read all of that.
        waypoint.replica(&mesh, "waypoint-1", "node-b")?;
        mesh.settle()?;
        Ok(Self { mesh, waypoint, clients })
    }

    fn client(&self, name: &str) -> Result<&Pod> {
        self.clients.iter().find(|pod| pod.name() == name).context("no such client")
    }
}

/// The status, and the server where one answered; "none" where nobody did.
fn sent(from: &impl Place, more: &[&str], request: &Request) -> Result<String> {
    let format = "%{http_code} %header{x-served-by}";
    let usual = ["curl", "--silent", "--path-as-is", "--insecure", "--max-time", "30", "--output", "/dev/null"];
    let mut argv = [&usual[..], &["--write-out", format, "--request", request.method], more].concat();
    request.fields.iter().for_each(|field| argv.extend(["--header", field]));
    let token = request.token.map(|token| format!("Authorization: Bearer {token}"));
    token.iter().for_each(|token| argv.extend(["--header", token]));
    argv.push(request.url);
    let output = from.exec_within(PATIENCE, &argv)?;
    let said = output.stdout.trim();
    Ok(if said.starts_with("000") { "none".to_owned() } else { said.to_owned() })
}

/// The answers that a request may get, as `mesh-ctl route` says.
fn foretold(answer: &Value) -> BTreeSet<String> {
    if let Some(status) = answer["status"].as_u64() {
        return BTreeSet::from([status.to_string()]);
    }
    let shares = answer["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_share = |share: &Value| match share["status"].as_u64() {
        Some(status) => vec![status.to_string()],
        None => share["servers"].as_array().into_iter().flatten().filter_map(served_by).collect(),
    };
    let ways = answer["connection"]["ways"].as_array().into_iter().flatten();
    let direct = ways.filter(|way| way["path"] != "waypoint" && way["allowed"] == true);
    let direct = direct.filter_map(|way| Some(format!("200 {}", way["destination"]["pod"].as_str()?)));
    let found: BTreeSet<String> = match shares {
        [] => direct.collect(),
        shares => shares.iter().filter(|share| share["percent"] != 0.0).flat_map(of_share).collect(),
    };
    if found.is_empty() { BTreeSet::from(["none".to_owned()]) } else { found }
}

fn served_by(server: &Value) -> Option<String> {
    let pod = server["pod"].as_str()?.rsplit('/').next()?;
    Some(format!("200 {pod}"))
}

/// A request, and the answers that it may get.
struct Request {
    method: &'static str,
    url: &'static str,
    fields: &'static [&'static str],
    token: Option<&'static str>,
    expected: &'static [&'static str],
}

/// A request for a path of the Service.
const fn get(url: &'static str, expected: &'static [&'static str]) -> Request {
    Request { method: "GET", url, fields: &[], token: None, expected }
}

impl Request {
    const fn by(self, method: &'static str) -> Self {
        Self { method, ..self }
    }

    const fn with(self, fields: &'static [&'static str]) -> Self {
        Self { fields, ..self }
    }

    const fn token(self, token: &'static str) -> Self {
        Self { token: Some(token), ..self }
    }

    /// The arguments of `mesh-ctl route`.
    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = [&["route", "-X", self.method, self.url], more].concat();
        self.fields.iter().for_each(|field| arguments.extend(["-H", field]));
        self.token.iter().for_each(|token| arguments.extend(["--claims", token]));
        arguments
    }

    /// What is foretold, the same by each of those who are asked.
    fn asked(&self, mesh: &Mesh, more: &[&str], others: &[[&str; 2]]) -> Result<Value> {
        let served = |expected: &&str| expected.starts_with('2') || expected.starts_with('3');
        let code = i32::from(!self.expected.iter().any(served));
        let answer = ctl_json(mesh, "node-a", &self.arguments(more), code)?;
        for other in others {
            let mut said = ctl_json(mesh, "node-a", &self.arguments(&[more, other].concat()), code)?;
            // Whoever reads it says so besides, and has ejected nobody.
            said.as_object_mut().and_then(|said| said.remove("asked"));
            assert_eq!(said, answer, "{other:?}");
        }
        Ok(answer)
    }

    fn expected(&self) -> BTreeSet<String> {
        self.expected.iter().map(|answer| (*answer).to_owned()).collect()
    }
}

#[test]
fn a_request_gets_what_was_said_of_it_before() -> Verdict {
    let scene = Scene::set()?;
    let (mesh, v1) = (&scene.mesh, &["200 cart-v1"][..]);
    let manifests = mesh.lab.config_dir().display().to_string();
    let socket = scene.waypoint.admin_socket(mesh, "waypoint-1").display().to_string();
    let others = [["--config", &*manifests], ["--waypoint", &*socket]];
    let cases = [
        ("client", get("http://cart.app.svc.cluster.local/", v1)),
        ("client", get("http://cart.app.svc.cluster.local/items?x=1", v1).by("POST")),
        ("client", get("http://cart.app.svc.cluster.local/items", &["200 cart-v2"]).with(&["X-Beta: 1"])),
        ("client", get("http://cart.app.svc.cluster.local/split", &["200 cart-v1", "200 cart-v2"])),
        ("client", get("http://cart.app.svc.cluster.local/items", &["404"]).by("DELETE")),
        ("client", get("http://cart.app.svc.cluster.local/items", &["403"]).by("PUT")),
        ("client", get("http://cart.app.svc.cluster.local/old/page", &["308"])),
        ("client", get("http://cart.app.svc.cluster.local/teapot", &["418"])),
        ("client", get("http://cart.app.svc.cluster.local/broken", &["503"])),
        ("client", get("http://cart.app.svc.cluster.local/absent", &["503"])),
        ("client", get("http://cart.app.svc.cluster.local/closed", &["503"])),
        ("client", get("http://cart.app.svc.cluster.local/direct", &["202"])),
        ("client", get("http://cart.app.svc.cluster.local/bare/x", &["200 bare-v1"])),
        ("client", get("http://cart.app.svc.cluster.local/secret", &["403"])),
        ("client", get("http://cart.app.svc.cluster.local//secret", &["403"])),
        ("client", get("http://cart.app.svc.cluster.local/x/%2e%2e/%73ecret", &["403"])),
        ("client", get("http://cart.app.svc.cluster.local/%zz", &["400"])),
        ("client", get("http://cart.app.svc.cluster.local/admin/x", &["403"])),
        ("client", get("http://cart.app.svc.cluster.local/admin/x", v1).token(ADMINISTRATOR)),
        ("client", get("http://cart.app.svc.cluster.local/items", &["403"]).token(FOR_THE_BANK)),
        ("other", get("http://cart.app.svc.cluster.local/", &["403"])),
        ("other", get("http://cart.app.svc.cluster.local/admin/x", v1).token(ADMINISTRATOR)),
        ("other", get("http://bare.plain.svc.cluster.local/", &["200 bare-v1"])),
        ("client", get("http://closed.app.svc.cluster.local/", &["503"])),
        ("stranger", get("http://cart.app.svc.cluster.local/", &["none"])),
        ("stranger", get("http://bare.plain.svc.cluster.local/", &["200 bare-v1"])),
    ];
    for (from, request) in &cases {
        let pod = scene.client(from)?;
        let source = format!("{}/{from}", pod.namespace());
        let answer = request.asked(mesh, &["--from", &source], &others)?;
        let what = format!("{} {} from {from}: {answer:#}", request.method, request.url);
        assert_eq!(foretold(&answer), request.expected(), "{what}");
        let mut got = BTreeSet::new();
        // Of two servers with an even chance each is met within 64 requests, but once in a lifetime.
        for _ in 0..if request.expected.len() > 1 { 64 } else { 1 } {
            got.insert(sent(pod, &[], request)?);
        }
        assert_eq!(got, request.expected(), "{what}");
    }
    Ok(())
}

#[test]
fn a_limit_that_is_named_is_the_one_that_refuses() -> Verdict {
    let scene = Scene::set()?;
    let request = get("http://cart.app.svc.cluster.local/limited", &["200 cart-v1"]);
    let answer = request.asked(&scene.mesh, &["--from", "app/client"], &[])?;
    assert_eq!(answer["limits"][0]["limit"], "RateLimitPolicy app/seldom limit 0", "{answer}");
    let client = scene.client("client")?;
    assert_eq!(sent(client, &[], &request)?, "200 cart-v1");
    assert_eq!(Some(sent(client, &[], &request)?), answer["limits"][0]["status"].as_u64().map(|it| it.to_string()));
    let other = get("http://cart.app.svc.cluster.local/limited/not", &["200 cart-v1"]);
    assert_eq!(other.asked(&scene.mesh, &["--from", "app/client"], &[])?["limits"], Value::Null);
    Ok(())
}

#[test]
fn people_are_told_who_reads_it_and_which_policy_refuses() -> Verdict {
    let scene = Scene::set()?;
    let asked = |arguments: &[&str]| ctl(&scene.mesh, "node-a", arguments);
    let output = asked(&["why", "app/other", "http://cart.app/secret"])?;
    assert_eq!(output.code, Some(1), "{output}");
    for line in [
        "waypoint   app/waypoint",
        "ALLOW app/clients",
        "rules[0].from[0].source.principals: found cluster.local/ns/app/sa/other",
        "rules[1].from[0].source.requestPrincipals: found no token is verified",
        "DENY app/never (target): rules[0] matches",
        "request    answered with 403: AuthorizationPolicy app/never denies it",
    ] {
        assert!(output.stdout.contains(line), "{line} in {output}");
    }
    let output = asked(&["authz", "check", "app/client", "http://cart.app/"])?;
    assert_eq!((output.code, output.stdout.trim()), (Some(0), "AuthorizationPolicy app/clients allows it"), "{output}");
    let output = asked(&["route", "--from", "app/client", "http://cart.app/admin/x", "--claims", r#"{"iss":1}"#])?;
    assert_eq!(output.code, Some(2), "{output}");
    assert!(output.stderr.contains("[iss] field is not a string"), "{output}");
    Ok(())
}

/// A Gateway with listeners by http and https, and a route from one host.
const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gateway, namespace: edge}
spec:
  gatewayClassName: mesh
  listeners:
  - {name: http, port: 8000, protocol: HTTP, hostname: '*.example.com', allowedRoutes: {namespaces: {from: All}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bare, namespace: app}
spec:
  parentRefs: [{name: gateway, namespace: edge}]
  hostnames: [shop.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /to-the-shop}}]
    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /}}}]
  - matches: [{path: {type: PathPrefix, value: /items}}]
    backendRefs: [{name: bare, port: 80}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: edge, namespace: edge}
spec:
  action: DENY
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gateway}]
  rules: [{to: [{operation: {methods: [DELETE]}}]}]
";

#[test]
fn what_comes_in_at_a_gateway_gets_what_was_said_of_it() -> Verdict {
    let mesh = Mesh::start()?;
    mesh.join(application(NAMESPACE, "bare-v1", "bare", "v1"))?;
    mesh.lab.service(ServiceSpec::new(NAMESPACE, "bare").select("app", "bare").port("http", 80, 8080))?;
    mesh.lab.apply("gateway.yaml", GATEWAY)?;
    let gateway = Ingress::new("edge", "gateway").port(8000).start_here(&mesh.lab, "node-a")?;
    let outside = mesh.lab.outside("outside")?;
    mesh.settle()?;
    let connect = format!("::{}:", gateway.ipv4());
    let manifests = mesh.lab.config_dir().display().to_string();
    let socket = mesh.lab.waypoint_socket("edge", gateway.name()).display().to_string();
    let others = [["--config", &*manifests], ["--waypoint", &*socket]];
    let cases = [
        get("http://shop.example.com:8000/items/1", &["200 bare-v1"]),
        get("http://shop.example.com:8000/items/1", &["403"]).by("DELETE"),
        get("http://shop.example.com:8000/to-the-shop", &["302"]),
        get("http://shop.example.com:8000/", &["404"]),
        get("http://other.example.com:8000/items", &["404"]),
        get("http://example.org:8000/items", &["404"]),
        get("http://example.org:8000/items", &["200 bare-v1"]).with(&["Host: shop.example.com"]),
    ];
    wait_until("the gateway to have its route", PATIENCE, || {
        Ok((sent(&outside, &["--connect-to", &connect], &cases[0])? == "200 bare-v1").then_some(()))
    })?;
    for request in &cases {
        let answer = request.asked(&mesh, &["--gateway", "edge/gateway"], &others)?;
        assert_eq!(foretold(&answer), request.expected(), "{} {}: {answer:#}", request.method, request.url);
        let got = sent(&outside, &["--connect-to", &connect], request)?;
        assert_eq!(BTreeSet::from([got]), request.expected(), "{} {}: {answer:#}", request.method, request.url);
    }
    let closed =
        get("http://shop.example.com:8001/", &["none"]).asked(&mesh, &["--gateway", "edge/gateway"], &others)?;
    assert_eq!(
        closed["outcome"], "not connected: the gateway does not listen at port 8001; its ports: 8000",
        "{closed}"
    );
    Ok(())
}
