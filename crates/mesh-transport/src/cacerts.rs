//! The files of Istio's `cacerts` layout: read, checked and written.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PublicKeyData};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use crate::ca::CaError;

/// The signing certificate.
pub(crate) const CA_CERT: &str = "ca-cert.pem";
/// The signing certificate's private key.
pub(crate) const CA_KEY: &str = "ca-key.pem";
/// The trust anchors.
pub(crate) const ROOT_CERT: &str = "root-cert.pem";
/// From the signing certificate up to the root.
pub(crate) const CERT_CHAIN: &str = "cert-chain.pem";

/// Revocation lists; the only file that may be missing.
pub(crate) const CA_CRL: &str = "ca-crl.pem";
/// Every file of the layout.
pub(crate) const ALL: [&str; 5] = [CA_CERT, CA_KEY, ROOT_CERT, CERT_CHAIN, CA_CRL];

/// What the files hold.
pub(crate) struct Files {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) crls: Vec<CertificateRevocationListDer<'static>>,
}

pub(crate) fn read(dir: &Path) -> Result<Files, CaError> {
    let text = |file: &'static str| {
        let path = dir.join(file);
        fs::read(&path).map_err(|source| CaError::File { action: "read", path, source })
    };
    let certificate = certificates(CA_CERT, &text(CA_CERT)?)?.swap_remove(0);
    let crls = match text(CA_CRL) {
        Ok(pem) => lists(&pem)?,
        Err(CaError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let key = String::from_utf8(text(CA_KEY)?)
        .map_err(|_| CaError::Content { file: CA_KEY, problem: "is not text".to_owned() })?;
    Ok(Files {
        certificate,
        key,
        chain: certificates(CERT_CHAIN, &text(CERT_CHAIN)?)?,
        roots: certificates(ROOT_CERT, &text(ROOT_CERT)?)?,
        crls,
    })
}

/// Reads every certificate of a PEM text.
///
/// # Errors
/// When the text has a broken block or no certificate at all.
pub(crate) fn certificates(file: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(list) if list.is_empty() => {
            Err(CaError::Content { file, problem: "holds no certificate in PEM".to_owned() })
        }
        Ok(list) => Ok(list),
        Err(e) => Err(CaError::Content { file, problem: format!("is not valid PEM: {e}") }),
    }
}

fn lists(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, CaError> {
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    match all {
        // A file that should say something and does not is a mistake; to revoke nothing, remove it.
        Ok(list) if list.is_empty() => Err(CaError::Content {
            file: CA_CRL,
            problem: "holds no X509 CRL in PEM; remove the file if nothing is revoked".to_owned(),
        }),
        Ok(list) => Ok(list),
        Err(e) => Err(CaError::Content { file: CA_CRL, problem: format!("is not valid PEM: {e}") }),
    }
}

pub(crate) fn write(dir: &Path, overwrite: bool, files: &Files) -> Result<(), CaError> {
    if !overwrite {
        for file in ALL {
            let path = dir.join(file);
            if path.symlink_metadata().is_ok() {
                return Err(CaError::Exists(path));
            }
        }
    }
    fs::create_dir_all(dir).map_err(|source| CaError::File { action: "create", path: dir.to_owned(), source })?;
    put(dir, CA_KEY, 0o600, &files.key)?;
    put(dir, CA_CERT, 0o644, &pem(std::slice::from_ref(&files.certificate)))?;
    put(dir, CERT_CHAIN, 0o644, &pem(&files.chain))?;
    write_roots(dir, &files.roots)?;
    write_crls(dir, &files.crls)
}

/// Replaces the trust anchors alone.
pub(crate) fn write_roots(dir: &Path, roots: &[CertificateDer<'_>]) -> Result<(), CaError> {
    put(dir, ROOT_CERT, 0o644, &pem(roots))
}

/// Replaces the revocation lists alone; without any, their file goes.
pub(crate) fn write_crls(dir: &Path, crls: &[CertificateRevocationListDer<'_>]) -> Result<(), CaError> {
    if crls.is_empty() {
        let path = dir.join(CA_CRL);
        return match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(CaError::File { action: "remove", path, source })
            }
            _ => Ok(()),
        };
    }
    let text: String = crls.iter().map(|crl| pem::encode(&pem::Pem::new("X509 CRL", crl.to_vec()))).collect();
    put(dir, CA_CRL, 0o644, &text)
}

fn put(dir: &Path, file: &str, mode: u32, text: &str) -> Result<(), CaError> {
    let path = dir.join(file);
    replace(&path, mode, text).map_err(|source| CaError::File { action: "write", path, source })
}

/// Writes beside the target and renames, so that a reader never sees half a file, nor the key under a looser mode.
fn replace(path: &Path, mode: u32, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("pem.new");
    if let Err(e) = fs::remove_file(&new)
        && e.kind() != std::io::ErrorKind::NotFound
    {
        return Err(e);
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Checks that the certificate may sign, and that `key` is its key. Returns when it expires.
pub(crate) fn check_signer(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<SystemTime, CaError> {
    let content = |problem: String| CaError::Content { file: CA_CERT, problem };
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate)
        .map_err(|e| content(format!("is not an X.509 certificate: {e}")))?;
    if !parsed.is_ca() {
        return Err(content("is not a CA certificate (basicConstraints CA:TRUE is missing)".to_owned()));
    }
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(content(format!("and {CA_KEY} do not belong together: the public keys differ")));
    }
    let seconds = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn pem(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|certificate| pem::encode(&pem::Pem::new("CERTIFICATE", certificate.to_vec()))).collect()
}
