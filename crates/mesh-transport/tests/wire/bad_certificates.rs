//! Certificates that prove nothing are refused on both sides, each for its own reason.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_core::TrustDomain;
use mesh_transport::{
    Carriers, CertificateAuthority, Identities, Limits, PeerVerifier, RejectReason, TlsIdentity, TrustBundle,
    WorkloadCertificate,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

use crate::world::{World, identities, identity, run};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// An authority that signs anything.
struct Forge {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// How a certificate differs from a good one.
struct Flaw {
    uris: &'static [&'static str],
    valid: (i64, i64),
    alone: bool,
}

const GOOD: Flaw = Flaw { uris: &["spiffe://cluster.local/ns/shop/sa/pay"], valid: (-1, 1), alone: false };

/// Every flaw that both sides can show, and what it is called.
const FLAWS: [(Flaw, RejectReason); 9] = [
    (Flaw { uris: &[], ..GOOD }, RejectReason::UriSanMissing),
    (
        Flaw { uris: &["spiffe://cluster.local/ns/shop/sa/pay", "spiffe://cluster.local/ns/shop/sa/cart"], ..GOOD },
        RejectReason::UriSanSeveral,
    ),
    (
        Flaw { uris: &["spiffe://cluster.local/ns/shop/sa/pay", "spiffe://cluster.local/ns/shop/sa/pay"], ..GOOD },
        RejectReason::UriSanSeveral,
    ),
    (Flaw { uris: &["https://cluster.local/ns/shop/sa/pay"], ..GOOD }, RejectReason::UriSanNotSpiffe),
    (Flaw { uris: &["spiffe://cluster.local/ns/shop/sa/pay/"], ..GOOD }, RejectReason::UriSanNotSpiffe),
    (Flaw { uris: &["spiffe://cluster.local:8080/ns/shop/sa/pay"], ..GOOD }, RejectReason::UriSanNotSpiffe),
    (Flaw { valid: (-2, -1), ..GOOD }, RejectReason::CertificateExpired),
    (Flaw { valid: (1, 2), ..GOOD }, RejectReason::CertificateNotYetValid),
    (Flaw { alone: true, ..GOOD }, RejectReason::CertificateUntrusted),
];

const FOREIGN: Flaw = Flaw { uris: &["spiffe://other.example/ns/shop/sa/pay"], ..GOOD };

impl Forge {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, "Root");
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("root") }
    }

    /// The same authority, behaving well.
    fn identities(&self, carriers: Carriers) -> Rc<Identities> {
        let dir = tempfile::tempdir().expect("dir");
        for file in ["ca-cert.pem", "root-cert.pem", "cert-chain.pem"] {
            std::fs::write(dir.path().join(file), self.issuer.pem()).expect("written");
        }
        std::fs::write(dir.path().join("ca-key.pem"), self.issuer.key().serialize_pem()).expect("written");
        identities(CertificateAuthority::load(dir.path(), SystemTime::now()).expect("loaded"), carriers)
    }

    fn certificate(&self, carriers: Carriers, flaw: &Flaw) -> TlsIdentity {
        self.certificate_trusting(carriers, flaw, self)
    }

    fn certificate_trusting(&self, carriers: Carriers, flaw: &Flaw, trusted: &Self) -> TlsIdentity {
        let now = SystemTime::now();
        let days = |count: i64| {
            let distance = DAY * u32::try_from(count.unsigned_abs()).expect("small");
            if count < 0 { now - distance } else { now + distance }
        };
        let mut params = CertificateParams::default();
        params.not_before = days(flaw.valid.0).into();
        params.not_after = days(flaw.valid.1).into();
        params.subject_alt_names =
            flaw.uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("ascii"))).collect();
        // A name of another kind never stands in for the URI.
        params.subject_alt_names.push(SanType::DnsName("pay.shop".try_into().expect("ascii")));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key");
        let leaf = if flaw.alone { params.self_signed(&key) } else { params.signed_by(&key, &self.issuer) };
        let certificate = WorkloadCertificate {
            identity: identity("pay"),
            chain: vec![leaf.expect("leaf").der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            serial: "01".to_owned(),
            not_before: days(flaw.valid.0),
            not_after: days(flaw.valid.1),
        };
        let trust = TrustBundle::of_roots([trusted.issuer.der().clone()].into());
        let peers = Arc::new(PeerVerifier::new(trust).expect("usable"));
        TlsIdentity::new(certificate, peers, &TrustDomain::default(), carriers).expect("usable")
    }
}

async fn client_is_refused(carriers: Carriers, forge: &Forge, shown: &TlsIdentity, reason: RejectReason) {
    let identities = forge.identities(carriers);
    let good = identities.fetch(&identity("pay")).await.expect("identity");
    let world = World::serving(Limits::default(), identities, good).await;
    world.tunnel_as(shown, world.key(), world.request()).await.expect_err("refused");
    assert_eq!(world.server.first_rejection().await, Some(reason));
    assert!(world.server.seen.borrow().is_empty(), "{reason:?} reached the handler");
    world.tunnel().await.expect("others are unhurt");
}

#[test]
fn a_client_with_a_flawed_certificate_is_refused_by_reason() {
    run(async |carriers| {
        let forge = Forge::new();
        for (flaw, reason) in &FLAWS {
            client_is_refused(carriers, &forge, &forge.certificate(carriers, flaw), *reason).await;
        }
        client_is_refused(carriers, &forge, &forge.certificate(carriers, &FOREIGN), RejectReason::TrustDomain).await;
    });
}

#[test]
fn a_client_of_another_authority_is_refused() {
    run(async |carriers| {
        let (forge, other) = (Forge::new(), Forge::new());
        // The client itself trusts the server, so the refusal is the server's.
        let shown = other.certificate_trusting(carriers, &GOOD, &forge);
        client_is_refused(carriers, &forge, &shown, RejectReason::CertificateUntrusted).await;
    });
}

#[test]
fn a_server_with_a_flawed_certificate_is_not_talked_to() {
    run(async |carriers| {
        let forge = Forge::new();
        for (flaw, reason) in &FLAWS {
            let shown = Arc::new(forge.certificate(carriers, flaw));
            let world = World::serving(Limits::default(), forge.identities(carriers), shown).await;
            let error = world.tunnel().await.expect_err("refused");
            assert_eq!(error.reason(), Some(*reason), "{error}");
        }
        let foreign = Arc::new(forge.certificate(carriers, &FOREIGN));
        let world = World::serving(Limits::default(), forge.identities(carriers), foreign).await;
        let error = world.tunnel().await.expect_err("refused");
        assert_eq!(error.reason(), Some(RejectReason::IdentityUnexpected), "{error}");
    });
}
