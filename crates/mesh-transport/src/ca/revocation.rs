//! Revocation lists: checked when they are read, and lengthened.

use std::path::Path;
use std::time::SystemTime;

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber};
use rustls_pki_types::CertificateRevocationListDer;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::{CaError, CertificateAuthority};
use crate::cacerts::{self, CA_CRL};
use crate::trust::{Fingerprint, PeerVerifier};

impl CertificateAuthority {
    /// Whether verifiers can use the lists, and whether each is its issuer's, as far as the issuer is known here: a list with a
    /// wrong signature would make every certificate of that issuer fail.
    pub(super) fn check_lists(&self) -> Result<(), CaError> {
        if self.trust.crls.is_empty() {
            return Ok(());
        }
        let content = |problem: String| CaError::Content { file: CA_CRL, problem };
        PeerVerifier::new(self.trust.clone()).map_err(CaError::Chain)?;
        for der in self.trust.crls.iter() {
            let list = parse(der).map_err(content)?;
            let known = self.chain.iter().chain(self.trust.roots.iter());
            let issuers: Vec<_> = known
                .filter_map(|known| x509_parser::parse_x509_certificate(known).ok())
                .map(|(_, issuer)| issuer)
                .filter(|issuer| issuer.subject().as_raw() == list.issuer().as_raw())
                .collect();
            let signed = |issuer: &x509_parser::certificate::X509Certificate<'_>| {
                list.verify_signature(issuer.public_key()).is_ok()
            };
            // All of one name: a verifier asks any of them about any list of that name.
            if !issuers.iter().all(signed) {
                return Err(content(format!("is not signed by {} in whose name it is", list.issuer())));
            }
        }
        Ok(())
    }

    /// Adds serial numbers (hexadecimal digits) to the list of the signing certificate, and writes it to `dir`. Whoever follows
    /// the directory ends the tunnels of these certificates.
    ///
    /// # Errors
    /// When a number is none, or the list cannot be signed or written.
    pub fn revoke(&self, dir: &Path, serials: &[String], now: SystemTime) -> Result<(), CaError> {
        let content = |problem: String| CaError::Content { file: CA_CRL, problem };
        let mut revoked = Vec::new();
        let mut others = Vec::new();
        let mut number: u64 = 0;
        let (_, own) = x509_parser::parse_x509_certificate(&self.certificate)
            .map_err(|e| content(format!("has an issuer that cannot be read: {e}")))?;
        for der in self.trust.crls.iter() {
            let list = parse(der).map_err(content)?;
            if list.issuer().as_raw() != own.subject().as_raw() {
                others.push(der.clone());
                continue;
            }
            number = list.crl_number().and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
            revoked.extend(list.iter_revoked_certificates().map(|entry| entry.raw_serial().to_vec()));
        }
        for serial in serials {
            revoked.push(digits(serial).ok_or_else(|| content(format!("cannot take {serial:?}: not hexadecimal")))?);
        }
        revoked.sort();
        revoked.dedup();
        let entry = |serial: Vec<u8>| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: now.into(),
            // Nobody signs lists by the clock here: the next one comes with the next revocation.
            next_update: self.not_after.into(),
            crl_number: SerialNumber::from(number + 1),
            issuing_distribution_point: None,
            revoked_certs: revoked.into_iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).map_err(|e| CaError::Sign("sign the revocation list", e))?;
        others.push(list.into());
        cacerts::write_crls(dir, &others)
    }

    /// Which certificate signs now.
    #[must_use]
    pub fn signer(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }
}

fn parse<'a>(der: &'a CertificateRevocationListDer<'_>) -> Result<CertificateRevocationList<'a>, String> {
    let (rest, list) =
        CertificateRevocationList::from_der(der).map_err(|e| format!("holds a list that cannot be read: {e}"))?;
    if rest.is_empty() { Ok(list) } else { Err("holds a list with bytes behind it".to_owned()) }
}

fn digits(text: &str) -> Option<Vec<u8>> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let whole = !digits.is_empty() && digits.len().is_multiple_of(2) && digits.len() <= 40 && digits.is_ascii();
    let octet = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).ok();
    if whole { (0..digits.len()).step_by(2).map(octet).collect() } else { None }
}
