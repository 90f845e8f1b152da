//! Certificates as an attacker might show them: one good, the others each with one flaw.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// Who the attacker is, where its certificate is good.
const IDENTITY: &str = "spiffe://cluster.local/ns/app/sa/client";

/// What is wrong with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Flaw {
    /// Nothing
    None,
    /// Another trust domain's name, signed by the right root
    TrustDomain,
    /// Its time is over
    Expired,
    /// Its time has not begun
    NotYetValid,
    /// A DNS name and no URI
    NoUri,
    /// Two identities
    TwoUris,
    /// One identity twice
    UriTwice,
    /// A URI that is no SPIFFE id
    NotSpiffe,
    /// A SPIFFE id that names no service account
    NoAccount,
    /// Signed by its own key
    SelfSigned,
    /// The right name, signed by another root
    WrongRoot,
    /// Signed by a workload's certificate, which is no CA
    SignedByWorkload,
    /// Somebody else's certificate without its key
    Stolen,
    /// Good for servers only
    ServerOnly,
}

struct Leaf {
    uris: &'static [&'static str],
    days: (i64, i64),
    usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Leaf {
    fn with(flaw: Flaw) -> Self {
        let uris: &[_] = match flaw {
            Flaw::TrustDomain => &["spiffe://evil.test/ns/app/sa/client"],
            Flaw::NoUri => &[],
            Flaw::TwoUris => &[IDENTITY, "spiffe://cluster.local/ns/app/sa/server"],
            Flaw::UriTwice => &[IDENTITY, IDENTITY],
            Flaw::NotSpiffe => &["https://cluster.local/ns/app/sa/client"],
            Flaw::NoAccount => &["spiffe://cluster.local/ns/app"],
            _ => &[IDENTITY],
        };
        let days = match flaw {
            Flaw::Expired => (-2, -1),
            Flaw::NotYetValid => (1, 2),
            _ => (-1, 1),
        };
        let mut usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        if flaw != Flaw::ServerOnly {
            usages.push(ExtendedKeyUsagePurpose::ClientAuth);
        }
        Self { uris, days, usages }
    }

    fn params(self) -> Result<CertificateParams> {
        let mut params = CertificateParams::default();
        let now = OffsetDateTime::now_utc();
        params.not_before = now + Duration::days(self.days.0);
        params.not_after = now + Duration::days(self.days.1);
        for uri in self.uris {
            params.subject_alt_names.push(SanType::URI((*uri).try_into()?));
        }
        // A name of another kind must not stand in for the URI.
        params.subject_alt_names.push(SanType::DnsName("client.app".try_into()?));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = self.usages;
        Ok(params)
    }
}

/// An authority that signs anything.
pub(crate) struct Forge {
    issuer: Issuer<'static, KeyPair>,
    chain: Vec<CertificateDer<'static>>,
}

impl Forge {
    /// With the key of a CA directory (ca-cert.pem, ca-key.pem, cert-chain.pem).
    pub(crate) fn of(ca: &Path) -> Result<Self> {
        let read = |file| {
            let path = ca.join(file);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        let key = KeyPair::from_pem(&read("ca-key.pem")?)?;
        let issuer = Issuer::from_ca_cert_pem(&read("ca-cert.pem")?, key)?;
        let chain = CertificateDer::pem_slice_iter(read("cert-chain.pem")?.as_bytes()).collect::<Result<_, _>>()?;
        Ok(Self { issuer, chain })
    }

    /// Another root, which looks the same.
    fn another() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = new_key()?;
        let root = params.self_signed(&key)?;
        Ok(Self { chain: vec![root.der().clone()], issuer: Issuer::new(params, key) })
    }

    /// A workload that signs others with its own certificate's key.
    fn workload(&self) -> Result<Self> {
        let params = Leaf::with(Flaw::None).params()?;
        let key = new_key()?;
        let leaf = params.signed_by(&key, &self.issuer)?;
        let chain = std::iter::once(leaf.der().clone()).chain(self.chain.clone()).collect();
        Ok(Self { issuer: Issuer::new(params, key), chain })
    }

    /// A certificate with one flaw, and a key.
    pub(crate) fn certificate(&self, flaw: Flaw) -> Result<Arc<CertifiedKey>> {
        match flaw {
            Flaw::WrongRoot => return Self::another()?.certificate(Flaw::None),
            Flaw::SignedByWorkload => return self.workload()?.certificate(Flaw::None),
            _ => {}
        }
        let key = new_key()?;
        let params = Leaf::with(flaw).params()?;
        let leaf =
            if flaw == Flaw::SelfSigned { params.self_signed(&key)? } else { params.signed_by(&key, &self.issuer)? };
        let chain = std::iter::once(leaf.der().clone()).chain(self.chain.clone()).collect();
        let key = if flaw == Flaw::Stolen { new_key()? } else { key };
        let key = any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())))?;
        // Not checked against the certificate: a thief's does not match.
        Ok(Arc::new(CertifiedKey::new(chain, key)))
    }
}

fn new_key() -> Result<KeyPair> {
    Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
}
