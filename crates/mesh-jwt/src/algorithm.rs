//! The algorithms of signatures (RFC 7518, section 3; RFC 8037, section 3.1) that a public key verifies.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, EcdsaVerificationAlgorithm,
    EdDSAParameters, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
};

/// An algorithm. `none` and those with a shared secret (HS256 and its like) are not among them: with a key that everybody
/// knows, everybody could sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// The same with SHA-384.
    Rs384,
    /// The same with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// The same with SHA-384.
    Ps384,
    /// The same with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// Ed25519.
    EdDsa,
}

/// What an algorithm needs, by its kind of key.
pub(crate) enum Needs {
    Rsa(&'static RsaParameters),
    Ecdsa(&'static EcdsaVerificationAlgorithm),
    Ed25519(&'static EdDSAParameters),
}

impl Algorithm {
    /// By its name in `alg`.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            // RFC 9864 gives EdDSA on this curve a name of its own.
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    pub(crate) const fn needs(self) -> Needs {
        match self {
            Self::Rs256 => Needs::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            Self::Rs384 => Needs::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            Self::Rs512 => Needs::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            Self::Ps256 => Needs::Rsa(&RSA_PSS_2048_8192_SHA256),
            Self::Ps384 => Needs::Rsa(&RSA_PSS_2048_8192_SHA384),
            Self::Ps512 => Needs::Rsa(&RSA_PSS_2048_8192_SHA512),
            Self::Es256 => Needs::Ecdsa(&ECDSA_P256_SHA256_FIXED),
            Self::Es384 => Needs::Ecdsa(&ECDSA_P384_SHA384_FIXED),
            Self::Es512 => Needs::Ecdsa(&ECDSA_P521_SHA512_FIXED),
            Self::EdDsa => Needs::Ed25519(&ED25519),
        }
    }
}
