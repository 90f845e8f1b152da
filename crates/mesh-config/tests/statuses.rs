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
