//! Tokens and key sets, as a client and an issuer may send them: nothing panics, and no key verifies what nobody signed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use mesh_core::policy::TokenRule;
use mesh_jwt::{Compact, KeySet, Moment};

/// Somebody's public keys, of each kind (RFC 7515, appendix A.3; RFC 8037, appendix A.2).
const KEYS: &[u8] = br#"{"keys": [
    {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
]}"#;

static SET: LazyLock<KeySet> = LazyLock::new(|| KeySet::parse(KEYS).expect("keys"));

fuzz_target!(|input: (&str, &[u8])| {
    let (text, set) = input;
    let set = KeySet::parse(set);
    let Ok(token) = Compact::parse(text) else { return };
    assert!(SET.verify(&token).is_err(), "a signature by nobody");
    if let Ok(set) = &set {
        // Whoever writes the set may sign by it.
        let _ = set.verify(&token);
    }
    let rule = TokenRule { audiences: ["a".into()].into(), spaced_claims: ["scope".into()].into(), ..TokenRule::of_nobody() };
    assert!(token.claims().check(&rule, Moment(0.0)).is_err(), "a rule of nobody's believes nobody");
    let seen = token.claims().token(&rule);
    for name in seen.claims.keys() {
        token.claims().shown(&[name.as_str().into()]);
    }
});
