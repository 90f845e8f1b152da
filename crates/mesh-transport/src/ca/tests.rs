use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::verify::identity_of;

fn cart() -> SpiffeId {
    SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/cart").expect("valid")
}

fn authority(now: SystemTime) -> CertificateAuthority {
    CertificateAuthority::generate(&TrustDomain::default(), now).expect("authority")
}

#[test]
fn a_written_authority_is_read_back_and_signs_what_its_roots_verify() {
    let (dir, now) = (tempfile::tempdir().expect("dir"), SystemTime::now());
    authority(now).write(dir.path(), false).expect("written");
    let loaded = CertificateAuthority::load(dir.path(), now).expect("loaded");
    let issued = loaded.issue(&cart(), Duration::from_secs(3600), now).expect("issued");
    let verifier = PeerVerifier::new(loaded.trust().clone()).expect("verifier");
    verifier.verify_chain(Role::Client, &issued.chain[0], &issued.chain[1..], now).expect("verifies");
    assert_eq!(identity_of(&issued.chain[0]).expect("identity"), cart());
    assert_eq!(issued.chain.len(), 2, "leaf and intermediate, no root");
}

#[test]
fn only_the_owner_may_read_the_key() {
    let dir = tempfile::tempdir().expect("dir");
    authority(SystemTime::now()).write(dir.path(), false).expect("written");
    let mode = |file| std::fs::metadata(dir.path().join(file)).expect("file").permissions().mode() & 0o777;
    assert_eq!(mode("ca-key.pem"), 0o600);
    assert_eq!(mode("ca-cert.pem"), 0o644);
}

#[test]
fn the_san_is_the_only_name_and_critical() {
    let issued =
        authority(SystemTime::now()).issue(&cart(), Duration::from_secs(60), SystemTime::now()).expect("issued");
    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).expect("parsed");
    assert_eq!(leaf.subject().iter().count(), 0);
    let san = leaf.subject_alternative_name().expect("readable").expect("present");
    assert!(san.critical);
    assert_eq!(san.value.general_names.len(), 1);
}

#[test]
fn a_certificate_never_outlives_its_signer() {
    let now = SystemTime::now();
    let authority = authority(now);
    let late = now + AUTHORITY_LIFETIME - Duration::from_secs(60);
    let issued = authority.issue(&cart(), Duration::from_secs(3600), late).expect("issued");
    let beyond = issued.not_after.duration_since(authority.not_after()).unwrap_or_default();
    assert!(beyond.is_zero() && issued.not_after > late, "{issued:?}");
    let after = now + AUTHORITY_LIFETIME;
    assert!(matches!(authority.issue(&cart(), Duration::from_secs(60), after), Err(CaError::Expired)));
}

#[test]
fn several_roots_are_all_trusted() {
    let (dir, now) = (tempfile::tempdir().expect("dir"), SystemTime::now());
    authority(now).write(dir.path(), false).expect("written");
    let old = authority(now);
    let path = dir.path().join(ROOT_CERT);
    let mut roots = std::fs::read_to_string(&path).expect("roots");
    roots.push_str(&pem::encode(&pem::Pem::new("CERTIFICATE", old.roots()[0].to_vec())));
    std::fs::write(&path, roots).expect("written");
    let loaded = CertificateAuthority::load(dir.path(), now).expect("loaded");
    let verifier = PeerVerifier::new(loaded.trust().clone()).expect("verifier");
    let issued = old.issue(&cart(), Duration::from_secs(60), now).expect("issued");
    verifier.verify_chain(Role::Server, &issued.chain[0], &issued.chain[1..], now).expect("the old root still counts");
}

/// Each broken layout is refused with a message that names the file at fault.
#[test]
fn broken_layouts_are_refused_by_name() {
    let now = SystemTime::now();
    let other = tempfile::tempdir().expect("dir");
    authority(now).write(other.path(), false).expect("written");
    let foreign = |file: &str| std::fs::read(other.path().join(file)).expect("file");
    let cases: [(&str, Option<Vec<u8>>, &str); 7] = [
        (CA_CERT, None, "ca-cert.pem"),
        (CA_CERT, Some(b"nothing".to_vec()), "ca-cert.pem holds no certificate"),
        (CA_CERT, Some(foreign(CA_CERT)), "do not belong together"),
        (cacerts::CA_KEY, Some(b"nothing".to_vec()), "ca-key.pem is not a private key"),
        (cacerts::CA_KEY, Some(foreign(cacerts::CA_KEY)), "do not belong together"),
        (ROOT_CERT, Some(foreign(ROOT_CERT)), "to root-cert.pem"),
        (CERT_CHAIN, Some(Vec::new()), "cert-chain.pem holds no certificate"),
    ];
    for (file, content, expected) in cases {
        let dir = tempfile::tempdir().expect("dir");
        authority(now).write(dir.path(), false).expect("written");
        match content {
            Some(bytes) => std::fs::write(dir.path().join(file), bytes).expect("written"),
            None => std::fs::remove_file(dir.path().join(file)).expect("removed"),
        }
        let error = CertificateAuthority::load(dir.path(), now).expect_err(expected).to_string();
        assert!(error.contains(expected), "{file}: {error}");
    }
}

#[test]
fn the_key_is_never_printed() {
    let authority = authority(SystemTime::now());
    let issued = authority.issue(&cart(), Duration::from_secs(60), SystemTime::now()).expect("issued");
    let printed = format!("{authority:?} {issued:?}");
    assert!(!printed.to_lowercase().contains("key"), "{printed}");
}
