//! JSON Web Tokens (RFC 7519) in their compact form, and the key sets (RFC 7517) that they are verified with.
//!
//! Pure: keys are texts that somebody else fetched, and the time is passed in. Nothing of a token is believed before
//! [`KeySet::verify`] has said so; signatures are aws-lc-rs's business.
#![forbid(unsafe_code)]

mod algorithm;
mod assumed;
mod claims;
mod compact;
mod error;
mod key;
mod key_set;

pub use algorithm::Algorithm;
pub use assumed::{AssumedClaims, settled};
pub use claims::{Claims, Moment};
pub use compact::{Compact, MAX_TOKEN};
pub use error::TokenError;
pub use key_set::{KeySet, KeySetError, MAX_KEYS};
