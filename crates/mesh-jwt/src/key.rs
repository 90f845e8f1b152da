//! One public key of a set (RFC 7517, section 4; RFC 7518, section 6; RFC 8037, section 2).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, EcdsaVerificationAlgorithm,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::algorithm::{Algorithm, Needs};

/// A key as a set has it; members that say nothing to us are left out.
#[derive(Debug, Deserialize)]
pub(crate) struct RawKey {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// A key that verifies signatures.
#[derive(Debug)]
pub(crate) struct Key {
    /// Its name, by which tokens may choose it.
    pub(crate) name: Option<String>,
    /// The only algorithm that it is for, if it says one.
    algorithm: Option<Algorithm>,
    public: Public,
}

#[derive(Debug)]
enum Public {
    /// Modulus and exponent, without leading zeros.
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// A point on the curve of that algorithm, uncompressed.
    Ecdsa(&'static EcdsaVerificationAlgorithm, Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// The key, if it is one that verifies signatures and can be used.
    pub(crate) fn of(raw: RawKey) -> Option<Self> {
        let is_for_signatures = raw.usage.as_deref().is_none_or(|usage| usage == "sig")
            && raw.key_ops.as_ref().is_none_or(|uses| uses.iter().any(|usage| usage == "verify"));
        if !is_for_signatures {
            return None;
        }
        let algorithm = match raw.alg.as_deref() {
            // What is for an algorithm that we do not know is for no other.
            Some(name) => Some(Algorithm::named(name)?),
            None => None,
        };
        let public = match (raw.kty.as_str(), raw.crv.as_deref()) {
            ("RSA", _) => rsa(raw.n?, raw.e?)?,
            ("EC", Some("P-256")) => point(&ECDSA_P256_SHA256_FIXED, raw.x?, raw.y?, 32)?,
            ("EC", Some("P-384")) => point(&ECDSA_P384_SHA384_FIXED, raw.x?, raw.y?, 48)?,
            ("EC", Some("P-521")) => point(&ECDSA_P521_SHA512_FIXED, raw.x?, raw.y?, 66)?,
            ("OKP", Some("Ed25519")) => {
                let key = octets(&raw.x?)?;
                UnparsedPublicKey::new(&ED25519, &key).parse().ok()?;
                Public::Ed25519(key)
            }
            _ => return None,
        };
        Some(Self { name: raw.kid, algorithm, public })
    }

    /// Whether it can have made a signature by that algorithm.
    pub(crate) fn suits(&self, algorithm: Algorithm) -> bool {
        let suits = match (&self.public, algorithm.needs()) {
            (Public::Rsa(_), Needs::Rsa(_)) | (Public::Ed25519(_), Needs::Ed25519(_)) => true,
            (Public::Ecdsa(curve, _), Needs::Ecdsa(needed)) => *curve == needed,
            _ => false,
        };
        suits && self.algorithm.is_none_or(|only| only == algorithm)
    }

    /// Whether it made that signature.
    pub(crate) fn made(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let verified = match (&self.public, algorithm.needs()) {
            (Public::Rsa(key), Needs::Rsa(parameters)) => key.verify(parameters, signed, signature),
            (Public::Ecdsa(curve, point), Needs::Ecdsa(_)) => {
                UnparsedPublicKey::new(*curve, point).verify(signed, signature)
            }
            (Public::Ed25519(key), Needs::Ed25519(parameters)) => {
                UnparsedPublicKey::new(parameters, key).verify(signed, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}

/// RSA keys of 2,048 to 8,192 bits; shorter ones prove nothing today.
fn rsa(modulus: String, exponent: String) -> Option<Public> {
    let without_zeros = |text: String| {
        let octets = octets(&text)?;
        let first = octets.iter().position(|octet| *octet != 0)?;
        Some(octets[first..].to_vec())
    };
    let key = RsaPublicKeyComponents { n: without_zeros(modulus)?, e: without_zeros(exponent)? };
    let leading = key.n.first()?.leading_zeros() as usize;
    let bits = key.n.len() * 8 - leading;
    ((2048..=8192).contains(&bits) && key.e.len() <= 8).then_some(Public::Rsa(key))
}

/// A point on a curve whose coordinates are so many octets long.
fn point(curve: &'static EcdsaVerificationAlgorithm, x: String, y: String, length: usize) -> Option<Public> {
    let (x, y) = (octets(&x)?, octets(&y)?);
    if x.len() != length || y.len() != length {
        return None;
    }
    let point = [&[4], &x[..], &y[..]].concat();
    UnparsedPublicKey::new(curve, &point).parse().ok()?;
    Some(Public::Ecdsa(curve, point))
}

fn octets(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}
