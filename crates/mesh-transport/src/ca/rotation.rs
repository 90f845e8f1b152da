//! Replacing a root without a failed handshake, in three steps that a person takes.
//!
//! 1. [`add`]: a new root and a new signing certificate are made beside the old ones, in `DIR/next`. The new root is trusted from
//!    now on; nobody shows a certificate of it yet.
//! 2. [`switch`], when every node has the new root: the new certificate signs, and nodes renew what the old one signed.
//! 3. [`retire`], when no node shows a certificate of the old root any more: the old root is taken out of the trust bundle.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mesh_core::TrustDomain;
use rustls_pki_types::CertificateDer;

use super::{CaError, CertificateAuthority};
use crate::cacerts::{self, CA_CERT};

/// Where the next authority waits for its turn.
const NEXT: &str = "next";

/// Makes the next authority and lets its root be trusted.
///
/// # Errors
/// When one waits already, or the directory cannot be read or written.
pub fn add(dir: &Path, trust_domain: &TrustDomain, now: SystemTime) -> Result<(), CaError> {
    let files = cacerts::read(dir)?;
    let waiting = dir.join(NEXT);
    if waiting.exists() {
        let what =
            format!("{} exists: the last rotation was not finished; switch to it, or remove it", waiting.display());
        return Err(CaError::Rotation(what));
    }
    let next = CertificateAuthority::generate(trust_domain, now)?;
    next.write(&waiting, false)?;
    let mut roots = files.roots;
    roots.extend_from_slice(next.roots());
    cacerts::write_roots(dir, &roots)
}

/// Lets the next authority sign. May be repeated when it was interrupted.
///
/// # Errors
/// When none waits, its root is not in the trust bundle, or the directory cannot be read or written.
pub fn switch(dir: &Path, now: SystemTime) -> Result<(), CaError> {
    let waiting = dir.join(NEXT);
    if !waiting.exists() {
        return Err(CaError::Rotation(format!("{} does not exist: add a root first", waiting.display())));
    }
    CertificateAuthority::load(&waiting, now)?;
    let (current, mut next) = (cacerts::read(dir)?, cacerts::read(&waiting)?);
    if !next.roots.iter().all(|root| current.roots.contains(root)) {
        return Err(CaError::Rotation("the next root is not in root-cert.pem: add it and wait first".to_owned()));
    }
    next.roots = current.roots;
    next.crls = current.crls;
    cacerts::write(dir, true, &next)?;
    remove(&waiting)
}

/// Takes every root out of the trust bundle that the signing certificate does not lead to. Returns how many.
///
/// `lifetime` is how long workloads' certificates live at most: before it has passed since the switch, one of the old root may
/// still be in use, and only `at_once` retires it all the same.
///
/// # Errors
/// When it is too early, or the directory cannot be read or written.
pub fn retire(dir: &Path, lifetime: Duration, at_once: bool, now: SystemTime) -> Result<usize, CaError> {
    if dir.join(NEXT).exists() {
        return Err(CaError::Rotation("the next authority does not sign yet: switch to it first".to_owned()));
    }
    let authority = CertificateAuthority::load(dir, now)?;
    let path = dir.join(CA_CERT);
    let switched = fs::metadata(&path).and_then(|file| file.modified());
    let switched = switched.map_err(|source| CaError::File { action: "read the time of", path, source })?;
    let since = now.duration_since(switched).unwrap_or(Duration::ZERO);
    if since < lifetime && !at_once {
        return Err(CaError::Rotation(format!(
            "the switch was {} s ago, and certificates live for up to {} s: wait, or, when no node shows a certificate of \
             the old root any more (mesh-ctl certificate list), say --now",
            since.as_secs(),
            lifetime.as_secs()
        )));
    }
    let (kept, gone): (Vec<_>, Vec<_>) =
        authority.roots().iter().cloned().partition(|root| authority.leads_to(root, now));
    cacerts::write_roots(dir, &kept)?;
    Ok(gone.len())
}

impl CertificateAuthority {
    fn leads_to(&self, root: &CertificateDer<'static>, now: SystemTime) -> bool {
        self.prove(&[root.clone()].into(), now).is_ok()
    }
}

fn remove(dir: &Path) -> Result<(), CaError> {
    fs::remove_dir_all(dir).map_err(|source| CaError::File { action: "remove", path: PathBuf::from(dir), source })
}
