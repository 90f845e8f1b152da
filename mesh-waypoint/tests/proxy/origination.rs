//! TLS that the waypoint begins to hosts outside.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::server::{Answer, Client, serve_tls};
use crate::world::{OUTSIDE, World, run_with};

const HOST: &str = "api.example.com";

/// An authority, and what it signed.
pub(crate) struct Pki {
    authority: rcgen::Certificate,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Pki {
    pub(crate) fn new() -> Self {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = parameters.self_signed(&key).expect("authority");
        Self { authority, issuer: rcgen::Issuer::new(parameters, key) }
    }

    /// The authority's certificate, in PEM.
    pub(crate) fn pem(&self) -> String {
        self.authority.pem()
    }

    /// A certificate for a host; with names after it, for these URIs as well.
    fn sign(&self, names: &str) -> (rcgen::Certificate, rcgen::KeyPair) {
        let key = rcgen::KeyPair::generate().expect("key");
        let mut names = names.split(' ');
        let host = names.next().expect("a host").to_owned();
        let mut parameters = rcgen::CertificateParams::new(vec![host]).expect("parameters");
        let uris = names.map(|uri| rcgen::SanType::URI(uri.try_into().expect("text")));
        parameters.subject_alt_names.extend(uris);
        (parameters.signed_by(&key, &self.issuer).expect("certificate"), key)
    }

    /// A server's configuration with a certificate for a host; it may ask for a client's.
    pub(crate) fn server(&self, host: &str, asks: bool) -> Arc<rustls::ServerConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let builder = if asks {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.der().clone()).expect("a root");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("verifier"))
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = self.sign(host);
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("key");
        let mut config = builder.with_single_cert(chain, key).expect("certificate");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// A client's certificate with its key, as a Secret of that name.
    pub(crate) fn secret(&self, name: &str) -> String {
        let (certificate, key) = self.sign("gateway.example.com");
        let indent = |text: String| text.trim_end().replace('\n', "\n    ");
        format!(
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: {name}, namespace: shop}}\nstringData:\n  \
             tls.crt: |\n    {}\n  tls.key: |\n    {}\n---\n",
            indent(certificate.pem()),
            indent(key.serialize_pem())
        )
    }

    /// Writes the authority's certificate and a client's with its key.
    fn write(&self, at: &Path) {
        let (certificate, key) = self.sign("waypoint.example.com");
        for (name, text) in
            [("ca.pem", self.authority.pem()), ("client.pem", certificate.pem()), ("client.key", key.serialize_pem())]
        {
            std::fs::write(at.join(name), text).expect("a file");
        }
    }
}

/// A Secret of the waypoint's namespace: authorities, and a certificate with its key.
fn secret(name: &str, authority: &Pki, shown: Option<&Pki>) -> String {
    let indented = |text: String| text.trim_end().replace('\n', "\n    ");
    let shown = shown.map(|pki| pki.sign("waypoint.example.com")).map(|(certificate, key)| {
        let (certificate, key) = (indented(certificate.pem()), indented(key.serialize_pem()));
        format!("  tls.crt: |\n    {certificate}\n  tls.key: |\n    {key}\n")
    });
    format!(
        "\n---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: shop}}\nstringData:\n  ca.crt: |\n    {}\n{}",
        indented(authority.pem()),
        shown.unwrap_or_default()
    )
}

fn manifests(policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api, namespace: shop}}\nspec:\n\
         \x20 hosts: [{HOST}]\n  addresses: [240.240.0.1]\n  resolution: STATIC\n  endpoints: [{{address: {OUTSIDE}}}]\n\
         \x20 ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 8443}}]\n\
         ---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api, namespace: shop}}\n\
         spec:\n  host: {HOST}\n{policy}\n"
    )
}

async fn get(world: &World) -> Answer {
    let mut client = Client::http1(world.tunnel("240.240.0.1:80").await.expect("tunnel")).await;
    let request = Request::get("/").header("host", HOST).body(Full::<Bytes>::default());
    client.ask(request.expect("valid")).await
}

/// The answer once the manifests have come into force: told by the status that they are to bring.
async fn status_becomes(world: &World, policy: &str, status: u16) -> Answer {
    world.configure(&manifests(policy));
    loop {
        let answer = get(world).await;
        if answer.status == status {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[test]
fn a_server_is_believed_by_its_authority_and_its_name_and_by_nothing_else() {
    run_with(&manifests(""), async |world| {
        let pki = Pki::new();
        pki.write(world.home());
        let backend = serve_tls(OUTSIDE, 8443, pki.server(HOST, false)).await;
        let at = world.home().display();
        let simple =
            |more: &str| format!("  trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: {at}/ca.pem{more}}}}}");
        let answer = status_becomes(&world, &simple(""), 200).await;
        assert_eq!(answer.body, OUTSIDE);
        assert_eq!(backend.seen.borrow().last().expect("a request").version, http::Version::HTTP_11);
        // Another name in the handshake, another in the certificate, an authority that nobody knows.
        status_becomes(&world, &simple(", sni: other.example.com"), 503).await;
        status_becomes(
            &world,
            &simple(&format!(", sni: other.example.com, subjectAltNames: [x.example.com, {HOST}]")),
            200,
        )
        .await;
        status_becomes(&world, &simple(", subjectAltNames: [x.example.com]"), 503).await;
        status_becomes(&world, "  trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}", 200).await;
        status_becomes(&world, "  trafficPolicy: {tls: {mode: SIMPLE}}", 503).await;
        let of_port = format!(
            "  trafficPolicy: {{portLevelSettings: [{{port: {{number: 80}}, tls: {{mode: SIMPLE, caCertificates: {at}/ca.pem}}, \
             connectionPool: {{http: {{h2UpgradePolicy: UPGRADE}}}}}}]}}"
        );
        status_becomes(&world, &of_port, 200).await;
        assert_eq!(backend.seen.borrow().last().expect("a request").version, http::Version::HTTP_2, "by ALPN");
        // With what is not there nothing is sent at all.
        status_becomes(&world, "  trafficPolicy: {tls: {mode: MUTUAL}}", 503).await;
        let before = backend.connections.get();
        let answer = get(&world).await;
        assert!(String::from_utf8_lossy(&answer.body).contains("not originated"), "{:?}", answer.body);
        assert_eq!(backend.connections.get(), before);
    });
}

#[test]
fn a_certificate_is_shown_where_that_is_asked_for_and_subsets_have_their_own_say() {
    run_with(&manifests(""), async |world| {
        let pki = Pki::new();
        pki.write(world.home());
        serve_tls(OUTSIDE, 8443, pki.server(HOST, true)).await;
        let at = world.home().display();
        let roots = format!("caCertificates: {at}/ca.pem");
        status_becomes(&world, &format!("  trafficPolicy: {{tls: {{mode: SIMPLE, {roots}}}}}"), 503).await;
        let mutual =
            format!("tls: {{mode: MUTUAL, {roots}, clientCertificate: {at}/client.pem, privateKey: {at}/client.key}}");
        status_becomes(&world, &format!("  trafficPolicy: {{{mutual}}}"), 200).await;
        let of_subset = format!(
            "  trafficPolicy: {{tls: {{mode: DISABLE}}}}\n  subsets: [{{name: safe, trafficPolicy: {{{mutual}}}}}]\n\
             ---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: api, namespace: shop}}\n\
             spec: {{hosts: [{HOST}], http: [{{route: [{{destination: {{host: {HOST}, subset: safe}}}}]}}]}}"
        );
        status_becomes(&world, &of_subset, 200).await;
    });
}

#[test]
fn a_secret_of_the_proxys_namespace_stands_for_files() {
    let policy = |mode: &str| {
        let pool = "connectionPool: {http: {maxRequestsPerConnection: 1}}";
        format!("  trafficPolicy: {{{pool}, tls: {{mode: {mode}, credentialName: outside}}}}")
    };
    run_with(&manifests(&policy("MUTUAL")), async move |world| {
        let (pki, others) = (Pki::new(), Pki::new());
        let backend = serve_tls(OUTSIDE, 8443, pki.server(HOST, true)).await;
        // Without it nothing is begun, and nobody connected.
        assert_eq!((get(&world).await.status, backend.connections.get()), (503, 0));
        let whole = secret("outside", &pki, Some(&pki));
        status_becomes(&world, &(policy("MUTUAL") + &whole), 200).await;
        for (what, wrong) in [
            ("it shows nothing", policy("SIMPLE") + &whole),
            ("there is nothing to show", policy("MUTUAL") + &secret("outside", &pki, None)),
            ("it believes somebody else", policy("MUTUAL") + &secret("outside", &others, Some(&pki))),
            ("it shows another's", policy("MUTUAL") + &secret("outside", &pki, Some(&others))),
        ] {
            let answer = status_becomes(&world, &wrong, 503).await;
            assert_eq!(answer.status, 503, "{what}");
            status_becomes(&world, &(policy("MUTUAL") + &whole), 200).await;
        }
        // Authorities may be in a Secret of their own.
        let apart = secret("outside", &others, Some(&pki)) + &secret("outside-cacert", &pki, None);
        status_becomes(&world, &policy("MUTUAL"), 503).await;
        status_becomes(&world, &(policy("MUTUAL") + &apart), 200).await;
    });
}
