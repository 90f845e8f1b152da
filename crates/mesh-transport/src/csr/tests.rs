use mesh_core::TrustDomain;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CustomExtension, IsCa};

use super::*;

fn cart() -> SpiffeId {
    SpiffeId::new(&TrustDomain::default(), "shop", "cart").expect("valid")
}

fn request(key: &KeyPair, change: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    change(&mut params);
    params.serialize_request(key).expect("made").pem().expect("PEM")
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("key")
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("ascii"))
}

#[test]
fn our_own_request_is_read_and_names_its_identity() {
    let new = NewKey::generate(&cart()).expect("made");
    let request = CertificateRequest::from_pem(&new.request).expect("read");
    request.check_names(&cart()).expect("its own name");
    let other = SpiffeId::new(&TrustDomain::default(), "shop", "pay").expect("valid");
    assert!(matches!(request.check_names(&other), Err(CsrError::Name { .. })));
}

#[test]
fn requests_of_other_agents_are_read() {
    let keys = [
        KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).expect("key"),
        KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).expect("key"),
    ];
    for key in keys {
        let text = request(&key, |params| params.distinguished_name.push(rcgen::DnType::OrganizationName, "Istio"));
        let read = CertificateRequest::from_pem(&text).expect("read");
        assert_eq!(read.key().subject_public_key_info(), key.subject_public_key_info());
        read.check_names(&cart()).expect("it names nobody");
    }
}

#[test]
fn a_name_beside_the_identity_is_found() {
    let own = cart().to_string();
    let extras = [
        uri("spiffe://cluster.local/ns/shop/sa/pay"),
        SanType::DnsName("cart.shop".try_into().expect("ascii")),
        SanType::IpAddress("10.0.0.1".parse().expect("valid")),
        SanType::Rfc822Name("a@b".try_into().expect("ascii")),
    ];
    for extra in extras {
        for names in [vec![extra.clone()], vec![uri(&own), extra.clone()], vec![extra, uri(&own)]] {
            let text = request(&key(), |params| params.subject_alt_names = names);
            let error = CertificateRequest::from_pem(&text).expect("read").check_names(&cart()).unwrap_err();
            assert!(error.to_string().contains(&own), "{error}");
        }
    }
}

/// A second SAN extension in a request would go unseen by a reader that takes the first.
#[test]
fn a_second_extension_of_names_is_seen_as_well() {
    let hidden = {
        // SEQUENCE { [6] "spiffe://x/ns/a/sa/b" }
        let name = b"spiffe://x/ns/a/sa/b";
        let mut der = vec![0x30, name.len() as u8 + 2, 0x86, name.len() as u8];
        der.extend(name);
        CustomExtension::from_oid_content(&[2, 5, 29, 17], der)
    };
    let text = request(&key(), |params| {
        params.subject_alt_names = vec![uri(cart().as_str())];
        params.custom_extensions = vec![hidden];
    });
    let refused = CertificateRequest::from_pem(&text).and_then(|request| request.check_names(&cart()));
    assert!(refused.is_err());
}

#[test]
fn asking_to_be_an_authority_changes_nothing() {
    let text = request(&key(), |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    CertificateRequest::from_pem(&text).expect("read").check_names(&cart()).expect("only the key is taken");
}

#[test]
fn keys_that_are_not_signed_are_named() {
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("key");
    let error = CertificateRequest::from_pem(&request(&ed25519, |_| {})).unwrap_err();
    assert!(matches!(error, CsrError::Key(_)), "{error}");
    // `openssl req -newkey rsa:1024`: no library here makes such a key.
    let error = CertificateRequest::from_pem(include_str!("rsa1024.pem")).unwrap_err();
    assert!(error.to_string().contains("RSA of 1024 bits"), "{error}");
}

#[test]
fn what_is_no_request_is_refused_with_the_reason() {
    let good = request(&key(), |_| {});
    let relabelled = good.replace("CERTIFICATE REQUEST", "CERTIFICATE");
    let cases = [
        (String::new(), "0 blocks"),
        ("nothing".to_owned(), "0 blocks"),
        (good.repeat(2), "1 blocks"),
        (relabelled, "\"CERTIFICATE\""),
        (good.replacen("M", "!", 1), "PEM"),
        ("x".repeat(MAX_REQUEST + 1), "no more than"),
    ];
    for (text, expected) in cases {
        let error = CertificateRequest::from_pem(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, text: String) {
        let _ = CertificateRequest::from_der(&bytes);
        let _ = CertificateRequest::from_pem(&text);
    }

    /// The signature covers names and key: no changed request passes with another meaning.
    #[test]
    fn a_changed_request_is_refused_or_means_the_same(at: prop::sample::Index, flip in 1_u8..) {
        let pair = key();
        let text = request(&pair, |params| params.subject_alt_names = vec![uri(cart().as_str())]);
        let mut der = pem::parse(&text).expect("PEM").into_contents();
        let at = at.index(der.len());
        der[at] ^= flip;
        if let Ok(read) = CertificateRequest::from_der(&der) {
            prop_assert_eq!(read.key().subject_public_key_info(), pair.subject_public_key_info());
            prop_assert_eq!(read.check_names(&cart()), Ok(()));
        }
    }
}
