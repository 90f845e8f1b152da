//! An issuer's public keys.

use serde::Deserialize;
use serde_json::Value;

use crate::compact::Compact;
use crate::error::TokenError;
use crate::key::{Key, RawKey};

/// Keys of a set that are looked at. Issuers publish a handful.
pub const MAX_KEYS: usize = 128;

/// Public keys, of which any may have signed a token.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// Why a text is no key set. Whoever fetched it may try again later.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// It is no JSON of that form.
    #[error("it is no JSON Web Key Set: {0}")]
    Form(#[from] serde_json::Error),
    /// It has more keys than [`MAX_KEYS`].
    #[error("it has more than {MAX_KEYS} keys")]
    TooMany,
    /// It has keys, and none of them can be used.
    #[error(
        "none of its keys verifies signatures: needed are RSA of 2048 bits and more, P-256, P-384, P-521 or Ed25519"
    )]
    NoneUsable,
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a key set. Keys that cannot be used are left out (RFC 7517, section 5).
    ///
    /// # Errors
    /// See [`KeySetError`]. A set without any keys is one.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let RawSet { keys: raw } = serde_json::from_slice(text)?;
        if raw.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let has_any = !raw.is_empty();
        let read = raw.into_iter().filter_map(|key| serde_json::from_value::<RawKey>(key).ok());
        let keys: Vec<Key> = read.filter_map(Key::of).collect();
        if has_any && keys.is_empty() {
            return Err(KeySetError::NoneUsable);
        }
        Ok(Self { keys })
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether one of the keys made the token. A key without a name may be the one that a token names.
    ///
    /// # Errors
    /// [`TokenError::NoKey`] where no key can have made it, so that newer keys may; [`TokenError::Signature`] where none did.
    pub fn verify(&self, token: &Compact<'_>) -> Result<(), TokenError> {
        let named = |key: &&Key| match (&key.name, &token.key_name) {
            (Some(name), Some(wanted)) => name == wanted,
            _ => true,
        };
        let mut candidates = self.keys.iter().filter(named).filter(|key| key.suits(token.algorithm)).peekable();
        if candidates.peek().is_none() {
            return Err(TokenError::NoKey);
        }
        match candidates.any(|key| key.made(token.algorithm, token.signed, &token.signature)) {
            true => Ok(()),
            false => Err(TokenError::Signature),
        }
    }
}
