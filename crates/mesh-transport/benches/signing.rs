//! Signatures a second of the certificate authority on one core: a request in PEM in, a certificate out.
//!
//!     cargo bench -p mesh-transport --bench signing
#![allow(missing_docs)]

use std::time::{Duration, Instant, SystemTime};

use mesh_core::{SpiffeId, TrustDomain};
use mesh_transport::CertificateAuthority;
use mesh_transport::csr::{CertificateRequest, NewKey};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(1);

fn main() {
    let now = SystemTime::now();
    let domain = TrustDomain::default();
    let authority = CertificateAuthority::generate(&domain, now).expect("authority");
    let identity = SpiffeId::new(&domain, "shop", "cart").expect("identity");
    let request = NewKey::generate(&identity).expect("key").request;
    // What the authority does for a request: reads it, verifies that the sender has the key, signs.
    let sign = || {
        let csr = CertificateRequest::from_pem(&request).expect("request");
        authority.sign(&csr, &identity, Duration::from_secs(24 * 3600), SystemTime::now()).expect("signed")
    };
    // The same with a new key and request each, as a node with an embedded authority has it.
    let issue = || authority.issue(&identity, Duration::from_secs(24 * 3600), SystemTime::now()).expect("issued");
    println!("request to certificate: {:.0} a second (median of {ROUNDS})", median(|| drop(sign())));
    println!("key, request and certificate: {:.0} a second (median of {ROUNDS})", median(|| drop(issue())));
}

fn median(work: impl Fn()) -> f64 {
    let mut rates: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let (started, mut count) = (Instant::now(), 0_u32);
            while started.elapsed() < ROUND {
                work();
                count += 1;
            }
            f64::from(count) / started.elapsed().as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    rates[ROUNDS / 2]
}
