//! What a node's agent sends to the CA: a request in PEM or DER, and the message around it.
#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use mesh_ca::CreateCertificateRequest;
use mesh_core::{SpiffeId, TrustDomain};
use mesh_transport::csr::CertificateRequest;
use mesh_transport::{CertificateAuthority, identity_of};
use prost::Message as _;

static AUTHORITY: LazyLock<CertificateAuthority> =
    LazyLock::new(|| CertificateAuthority::generate(&TrustDomain::default(), SystemTime::now()).expect("authority"));
static CART: LazyLock<SpiffeId> =
    LazyLock::new(|| SpiffeId::new(&TrustDomain::default(), "shop", "cart").expect("identity"));

fn sign(request: &CertificateRequest) {
    let now = SystemTime::now();
    let signed = AUTHORITY.sign(request, &CART, Duration::from_secs(60), now);
    // Whatever the request asks for, the certificate says what the authority was told.
    match (request.check_names(&CART), signed) {
        (Ok(()), Ok(signed)) => assert_eq!(identity_of(&signed.chain[0]).as_ref(), Ok(&*CART)),
        (Err(_), Ok(_)) => panic!("signed in spite of another name"),
        (_, Err(_)) => {}
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = CertificateRequest::from_der(bytes) {
        sign(&request);
    }
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(request) = CertificateRequest::from_pem(text)
    {
        sign(&request);
    }
    if let Ok(message) = CreateCertificateRequest::decode(bytes) {
        let _ = (message.impersonated().map(SpiffeId::parse), CertificateRequest::from_pem(&message.csr));
    }
});
