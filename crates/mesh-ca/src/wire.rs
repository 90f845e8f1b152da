//! Between messages and what they mean.

use bytes::Bytes;
use mesh_transport::{Fingerprint, SignedCertificate, TrustBundle};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::proto::{CreateCertificateResponse, TrustBundleMessage};

/// The most certificates that an answer is read with.
const MAX_CERTIFICATES: usize = 64;

/// An answer: the chain a certificate each, then all roots in one.
pub(crate) fn response(signed: &SignedCertificate, trust: &TrustBundle) -> CreateCertificateResponse {
    let text = |certificate: &CertificateDer<'_>| pem::encode(&pem::Pem::new("CERTIFICATE", certificate.to_vec()));
    let roots = trust.roots.iter().map(text).collect();
    CreateCertificateResponse { cert_chain: signed.chain.iter().map(text).chain([roots]).collect() }
}

/// Reads an answer: the chain, and the roots. What follows from it is not verified here.
pub(crate) fn read(
    response: &CreateCertificateResponse,
) -> Result<(SignedCertificate, Vec<CertificateDer<'static>>), String> {
    let (roots, chain) = response.cert_chain.split_last().ok_or("its answer has no certificate")?;
    let roots = certificates(roots)?;
    let mut all = Vec::new();
    for text in chain {
        all.extend(certificates(text)?);
        if all.len() > MAX_CERTIFICATES {
            return Err(format!("its answer has more than {MAX_CERTIFICATES} certificates"));
        }
    }
    if all.is_empty() {
        return Err("its answer has a root and no certificate".to_owned());
    }
    // A root that travels in the chain as well need not be shown to peers.
    all.retain(|certificate| !roots.contains(certificate));
    Ok((SignedCertificate { chain: all }, roots))
}

/// Reads every certificate of a PEM text.
pub(crate) fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).take(MAX_CERTIFICATES).collect();
    match all {
        Ok(all) if all.is_empty() => Err("there is no certificate in PEM".to_owned()),
        Ok(all) => Ok(all),
        Err(error) => Err(format!("there is no valid PEM: {error}")),
    }
}

pub(crate) fn message(trust: &TrustBundle) -> TrustBundleMessage {
    TrustBundleMessage {
        roots: trust.roots.iter().map(|root| Bytes::copy_from_slice(root)).collect(),
        crls: trust.crls.iter().map(|list| Bytes::copy_from_slice(list)).collect(),
        signer: trust.signer.map_or_else(Bytes::new, |signer| Bytes::copy_from_slice(signer.as_bytes())),
    }
}

pub(crate) fn bundle(message: &TrustBundleMessage) -> TrustBundle {
    TrustBundle {
        roots: message.roots.iter().map(|root| CertificateDer::from(root.to_vec())).collect(),
        crls: message.crls.iter().map(|list| CertificateRevocationListDer::from(list.to_vec())).collect(),
        signer: Fingerprint::from_bytes(&message.signer),
    }
}
