//! Who a certificate speaks for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_transport::identity_of;
use rustls_pki_types::CertificateDer;

fuzz_target!(|der: &[u8]| {
    let _ = identity_of(&CertificateDer::from(der));
});
