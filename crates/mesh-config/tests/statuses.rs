//! What is said in objects' status, in the words of the Gateway API's conditions.

use mesh_config::{Config, Credentials, ListenerStatus, Options, load};

/// What is said of manifests; who says it reads what Gateways name.
fn said(manifests: &str) -> Config {
    let dir = tempfile::tempdir().expect("directory");
    std::fs::write(dir.path().join("cluster.yaml"), manifests).expect("manifests");
    let options = Options { statuses: true, credentials: Credentials::Everybodys, ..Options::default() };
    load(dir.path(), &options).expect("a directory")
}

fn reasons(listener: &ListenerStatus) -> [Option<&'static str>; 2] {
    [&listener.refused, &listener.unresolved].map(|refusal| refusal.as_ref().map(|refusal| refusal.reason))
}

/// An authority's certificate is not looked into before it is used.
const ROOTS: &str = "
---
apiVersion: v1
kind: ConfigMap
metadata: {name: roots, namespace: NAMESPACE}
data: {ca.crt: \"-----BEGIN CERTIFICATE-----\\nMAMCAQE=\\n-----END CERTIFICATE-----\\n\"}
";

#[test]
fn listeners_say_which_roots_of_their_clients_cannot_be_had() {
    let one = |kind: &str, name: &str, more: &str| format!("{{group: '', kind: {kind}, name: {name}{more}}}");
    let (good, absent) = (one("ConfigMap", "roots", ""), one("ConfigMap", "absent", ""));
    let elsewhere = one("ConfigMap", "roots", ", namespace: other");
    let none = Some("NoValidCACertificate");
    for (references, refused, unresolved) in [
        (good.clone(), None, None),
        (absent.clone(), none, Some("InvalidCACertificateRef")),
        (format!("{good}, {absent}"), None, Some("InvalidCACertificateRef")),
        (one("Service", "roots", ""), none, Some("InvalidCACertificateKind")),
        (elsewhere, none, Some("RefNotPermitted")),
    ] {
        let gateway = format!(
            "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop}}
spec:
  gatewayClassName: mesh
  tls: {{frontend: {{default: {{validation: {{caCertificateRefs: [{references}]}}}}}}}}
  listeners:
  - {{name: http, port: 80, protocol: HTTP}}
  - {{name: https, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: cert}}]}}}}
"
        );
        let roots = ["shop", "other"].map(|namespace| ROOTS.replace("NAMESPACE", namespace)).concat();
        let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: cert, namespace: shop}\nstringData:\n  \
                      tls.crt: \"-----BEGIN CERTIFICATE-----\\nAQID\\n-----END CERTIFICATE-----\\n\"\n  \
                      tls.key: \"-----BEGIN PRIVATE KEY-----\\nBAUG\\n-----END PRIVATE KEY-----\\n\"\n";
        let config = said(&format!("{gateway}{roots}{secret}"));
        let status = &config.statuses.gateways[&("shop".into(), "edge".into())];
        let [http, https] = &status.listeners[..] else { panic!("{status:?}") };
        assert_eq!(reasons(http), [None, None], "{references}");
        assert_eq!(reasons(https), [refused, unresolved], "{references}");
        let told = config
            .findings
            .iter()
            .any(|finding| finding.field.as_deref() == Some("spec.tls.frontend.default.validation.caCertificateRefs"));
        assert_eq!(told, unresolved.is_some(), "{:?}", config.findings);
    }
}

/// A Gateway that takes ListenerSets so, and a set of `team` with these listeners.
fn with_set(allowed: &str, listeners: &str) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: team}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: edge, namespace: shop, generation: 3}}
spec:
  gatewayClassName: mesh
  {allowed}
  listeners: [{{name: http, port: 80, protocol: HTTP, hostname: a.example}}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {{name: more, namespace: team, generation: 4}}
spec: {{parentRef: {{name: edge, namespace: shop}}, listeners: [{listeners}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: of-set, namespace: team}}
spec: {{parentRefs: [{{kind: ListenerSet, name: more}}]}}
"
    )
}

#[test]
fn a_listener_set_says_whether_its_gateway_takes_it() {
    let all = "allowedListeners: {namespaces: {from: All}}";
    let free = "{name: free, port: 80, protocol: HTTP, hostname: b.example}";
    let taken = "{name: taken, port: 80, protocol: HTTP, hostname: a.example}";
    let tcp = "{name: tcp, port: 80, protocol: TCP}";
    let (same, kind) = (Some("HostnameConflict"), Some("ProtocolConflict"));
    for (allowed, listeners, refused, conflicts, accepted) in [
        (all, free.to_owned(), None, vec![None], true),
        (all, format!("{taken}, {free}"), None, vec![same, None], true),
        (all, format!("{taken}, {tcp}"), None, vec![same, kind], false),
        ("", free.to_owned(), Some("NotAllowed"), vec![], false),
        ("allowedListeners: {namespaces: {}}", free.to_owned(), Some("NotAllowed"), vec![], false),
        ("allowedListeners: {namespaces: {from: Same}}", free.to_owned(), Some("NotAllowed"), vec![], false),
    ] {
        let config = said(&with_set(allowed, &listeners));
        let status = &config.statuses.listener_sets[&("team".into(), "more".into())];
        assert_eq!((status.generation, &*status.class), (Some(4), "mesh"));
        assert_eq!(status.refused.as_ref().map(|refusal| refusal.reason), refused, "{allowed}");
        let found: Vec<_> =
            status.listeners.iter().map(|it| it.conflict.as_ref().map(|refusal| refusal.reason)).collect();
        assert_eq!((found, status.is_accepted()), (conflicts, accepted), "{allowed} {listeners}");
        let own = &config.statuses.gateways[&("shop".into(), "edge".into())].listeners;
        assert!(own[0].conflict.is_none() && own[0].attached == 0, "a set's route is not the Gateway's: {own:?}");
        let route = &config.statuses.routes[&("HTTPRoute", ("team".into(), "of-set".into()))].parents[&0];
        let expected = refused.map(|_| "NoMatchingParent");
        assert_eq!(route.refused.as_ref().map(|refusal| refusal.reason), expected, "{allowed}");
        let told = config.findings.iter().any(|finding| finding.code == mesh_config::Code::ListenersNotTaken);
        assert_eq!(told, refused.is_some(), "{:?}", config.findings);
    }
}

#[test]
fn a_gateway_says_whether_it_can_show_its_certificate_to_backends() {
    let one = |more: &str| format!("{{name: cert{more}}}");
    for (reference, reason) in [
        (one(""), Some("InvalidClientCertificateRef")),
        (one(", kind: ConfigMap, group: ''"), Some("InvalidClientCertificateRef")),
        (one(", namespace: team"), Some("RefNotPermitted")),
    ] {
        let tls = format!("tls: {{backend: {{clientCertificateRef: {reference}}}}}");
        let config = said(&with_set(&tls, "{name: free, port: 81, protocol: HTTP}"));
        let status = &config.statuses.gateways[&("shop".into(), "edge".into())];
        assert_eq!(status.unresolved.as_ref().map(|refusal| refusal.reason), reason, "{reference}");
        let field = Some("spec.tls.backend.clientCertificateRef");
        assert!(config.findings.iter().any(|finding| finding.field.as_deref() == field), "{:?}", config.findings);
    }
}

#[test]
fn a_gateway_says_that_it_lets_in_whom_nobody_vouches_for() {
    let roots = "validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: roots}]";
    for (default, of_port, expected) in
        [("", "", false), ("", ", mode: AllowInsecureFallback", true), (", mode: AllowInsecureFallback", "", true)]
    {
        let tls = format!(
            "tls: {{frontend: {{default: {{{roots}{default}}}}}, perPort: [{{port: 8443, tls: {{{roots}{of_port}}}}}}}]}}}}"
        );
        let config = said(&with_set(&tls, "{name: free, port: 81, protocol: HTTP}"));
        assert_eq!(config.statuses.gateways[&("shop".into(), "edge".into())].lets_others_in, expected, "{tls}");
    }
}
