//! Who a certificate speaks for, whether its chain verifies, and what revokes it.
#![no_main]

use std::sync::LazyLock;
use std::time::SystemTime;

use libfuzzer_sys::fuzz_target;
use mesh_core::TrustDomain;
use mesh_transport::{CertificateAuthority, PeerVerifier, Role, TrustBundle, identity_of};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

static TRUST: LazyLock<TrustBundle> = LazyLock::new(|| {
    let authority = CertificateAuthority::generate(&TrustDomain::default(), SystemTime::now());
    authority.expect("authority").trust().clone()
});
static JUDGE: LazyLock<PeerVerifier> = LazyLock::new(|| PeerVerifier::new(TRUST.clone()).expect("roots"));

fuzz_target!(|der: &[u8]| {
    let leaf = CertificateDer::from(der);
    let _ = identity_of(&leaf);
    let intermediates = [leaf.clone()];
    for role in [Role::Client, Role::Server] {
        let verified = JUDGE.verify_chain(role, &leaf, &intermediates, SystemTime::now());
        assert!(verified.is_err(), "nobody has the key of these roots");
    }
    // The same bytes as a root, and as a revocation list.
    let _ = PeerVerifier::new(TrustBundle::of_roots([leaf.into_owned()].into()));
    let list = CertificateRevocationListDer::from(der.to_vec());
    let _ = PeerVerifier::new(TrustBundle { crls: [list].into(), ..TRUST.clone() });
});
