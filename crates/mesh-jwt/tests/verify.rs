//! Tokens and key sets as issuers make them, and as somebody makes them who is none.
#![allow(clippy::unwrap_used)]

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
    RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mesh_core::policy::TokenRule;
use mesh_core::policy::request::Claim;
use mesh_jwt::{Compact, KeySet, MAX_TOKEN, Moment, TokenError};
use serde_json::{Value, json};

fn b64(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

fn token(header: &Value, claims: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", b64(signature))
}

fn verify(set: &Value, token: &str) -> Result<(), TokenError> {
    KeySet::parse(set.to_string().as_bytes()).unwrap().verify(&Compact::parse(token)?)
}

/// The key's DER (RFC 8017, A.1.1) is of a fixed form: a header of 8 octets, a zero and 256 octets of modulus, and an exponent
/// of 3 behind its header of 2.
fn rsa_key(pair: &RsaKeyPair) -> Value {
    let der = pair.public_key().as_ref();
    assert_eq!(der.len(), 270);
    json!({"kty": "RSA", "kid": "r", "n": b64(&der[8..265]), "e": b64(&der[267..])})
}

fn rsa_sign(pair: &RsaKeyPair, encoding: &'static dyn RsaEncoding, signed: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(encoding, &SystemRandom::new(), signed, &mut signature).unwrap();
    signature
}

#[test]
fn every_algorithm_with_a_public_key_is_verified() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let encodings: [(&str, &'static dyn RsaEncoding); 6] = [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
    ];
    let claims = json!({"iss": "i"});
    let set = json!({"keys": [rsa_key(&rsa)]});
    for (name, encoding) in encodings {
        let good = token(&json!({"alg": name, "kid": "r"}), &claims, |signed| rsa_sign(&rsa, encoding, signed));
        assert_eq!(verify(&set, &good), Ok(()), "{name}");
        let other = good.replace(&b64(claims.to_string()), &b64(json!({"iss": "j"}).to_string()));
        assert_eq!(verify(&set, &other), Err(TokenError::Signature), "{name}");
    }
    let curves: [(&str, &str, &'static EcdsaSigningAlgorithm); 3] = [
        ("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
        ("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
        ("ES512", "P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
    ];
    for (name, curve, algorithm) in curves {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
        let set = json!({"keys": [{"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)}]});
        let sign = |signed: &[u8]| pair.sign(&SystemRandom::new(), signed).unwrap().as_ref().to_vec();
        assert_eq!(verify(&set, &token(&json!({"alg": name}), &claims, sign)), Ok(()), "{name}");
        assert_eq!(verify(&set, &token(&json!({"alg": name}), &claims, |_| vec![0; 64])), Err(TokenError::Signature));
    }
    let pair = Ed25519KeyPair::generate().unwrap();
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key())}]});
    let good = token(&json!({"alg": "EdDSA"}), &claims, |signed| pair.sign(signed).as_ref().to_vec());
    assert_eq!(verify(&set, &good), Ok(()));
}

#[test]
fn nobody_signs_with_what_everybody_knows() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let set = json!({"keys": [rsa_key(&rsa)]});
    let public = rsa.public_key().as_ref().to_vec();
    let by_secret = |signed: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &public), signed).as_ref().to_vec();
    for name in ["HS256", "none", "None", "RS1", ""] {
        let forged = token(&json!({"alg": name, "kid": "r"}), &json!({"iss": "i"}), by_secret);
        assert_eq!(verify(&set, &forged), Err(TokenError::Algorithm), "{name}");
    }
    let unsigned = token(&json!({"alg": "none"}), &json!({"iss": "i"}), |_| Vec::new());
    assert_eq!(verify(&set, &unsigned), Err(TokenError::Algorithm));
    // A key of another kind, whatever its name.
    let point = token(&json!({"alg": "ES256", "kid": "r"}), &json!({"iss": "i"}), |_| vec![1; 64]);
    assert_eq!(verify(&set, &point), Err(TokenError::NoKey));
}

#[test]
fn a_key_is_for_what_it_says_and_no_more() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let sign = |signed: &[u8]| rsa_sign(&rsa, &RSA_PKCS1_SHA256, signed);
    let good = token(&json!({"alg": "RS256", "kid": "r"}), &json!({"iss": "i"}), sign);
    let with = |member: &str, value: Value| {
        let mut key = rsa_key(&rsa);
        key[member] = value;
        json!({"keys": [key]})
    };
    assert_eq!(verify(&with("use", json!("sig")), &good), Ok(()));
    assert_eq!(verify(&with("alg", json!("RS256")), &good), Ok(()));
    assert_eq!(verify(&with("alg", json!("RS512")), &good), Err(TokenError::NoKey));
    assert_eq!(verify(&with("kid", json!("other")), &good), Err(TokenError::NoKey));
    assert_eq!(verify(&with("kid", json!(null)), &good), Ok(()), "a key without a name may be any");
    for unusable in [
        with("use", json!("enc")),
        with("key_ops", json!(["encrypt"])),
        with("alg", json!("HS256")),
        with("kty", json!("oct")),
        with("n", json!("AQAB")),
        with("n", json!("not base64!")),
        json!({"keys": [{"kty": "EC", "crv": "P-256", "x": b64([1; 32]), "y": b64([1; 32])}]}),
        json!({"keys": [7]}),
    ] {
        assert!(KeySet::parse(unusable.to_string().as_bytes()).is_err(), "{unusable}");
    }
    assert!(KeySet::parse(br#"{"keys": []}"#).unwrap().is_empty());
    for text in ["", "[]", "{}", r#"{"keys": {}}"#] {
        assert!(KeySet::parse(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn what_is_no_token_is_named() {
    let header = b64(r#"{"alg":"RS256"}"#);
    let claims = b64("{}");
    for (text, expected) in [
        (String::new(), TokenError::Form),
        ("garbage".to_owned(), TokenError::Form),
        (format!("{header}.{claims}"), TokenError::Form),
        (format!("{header}.{claims}.x.y"), TokenError::Form),
        (format!("{header}=.{claims}.AA"), TokenError::HeaderEncoding),
        (format!("{}.{claims}.AA", b64("7")), TokenError::HeaderJson),
        (format!("{}.{claims}.AA", b64("{}")), TokenError::NoAlgorithm),
        (format!("{}.{claims}.AA", b64(r#"{"alg":7}"#)), TokenError::NoAlgorithm),
        (format!("{}.{claims}.AA", b64(r#"{"alg":"RS256","kid":7}"#)), TokenError::KeyName),
        (format!("{}.{claims}.AA", b64(r#"{"alg":"RS256","crit":["b64"]}"#)), TokenError::Critical),
        (format!("{header}.!.AA"), TokenError::PayloadEncoding),
        (format!("{header}.{}.AA", b64("[]")), TokenError::PayloadJson),
        (format!("{header}.{}.AA", b64("[".repeat(5000))), TokenError::PayloadJson),
        (format!("{header}.{}.AA", b64(r#"{"iss":1}"#)), TokenError::IssuerForm),
        (format!("{header}.{}.AA", b64(r#"{"sub":1}"#)), TokenError::SubjectForm),
        (format!("{header}.{}.AA", b64(r#"{"aud":[1]}"#)), TokenError::AudienceForm),
        (format!("{header}.{}.AA", b64(r#"{"exp":"1"}"#)), TokenError::ExpiryForm),
        (format!("{header}.{}.AA", b64(r#"{"nbf":-1}"#)), TokenError::BeginningForm),
        (format!("{header}.{claims}.!"), TokenError::SignatureEncoding),
        ("a".repeat(MAX_TOKEN + 1), TokenError::TooLong),
    ] {
        assert_eq!(Compact::parse(&text).map(|_| ()), Err(expected), "{}", &text[..text.len().min(80)]);
    }
}

fn rule(audiences: &[&str]) -> TokenRule {
    let audiences = audiences.iter().map(|audience| (*audience).into()).collect();
    TokenRule {
        issuer: "https://issuer".into(),
        audiences,
        spaced_claims: ["scope".into()].into(),
        ..TokenRule::of_nobody()
    }
}

fn checked(rule: &TokenRule, claims: &Value, now: f64) -> Result<(), TokenError> {
    let text = token(&json!({"alg": "ES256"}), claims, |_| digest::digest(&digest::SHA256, b"").as_ref().to_vec());
    Compact::parse(&text)?.claims().check(rule, Moment(now))
}

#[test]
fn a_rule_is_about_its_issuer_its_audiences_and_now() {
    let claims = json!({"iss": "https://issuer", "aud": ["a", "https://b/"], "exp": 1000, "nbf": 500});
    let cases = [
        (rule(&[]), 700.0, Ok(())),
        (rule(&["a"]), 700.0, Ok(())),
        (rule(&["x", "b"]), 700.0, Ok(())),
        (rule(&["x"]), 700.0, Err(TokenError::Audience)),
        (rule(&[]), 440.0, Ok(())),
        (rule(&[]), 439.0, Err(TokenError::NotYetValid)),
        (rule(&[]), 1060.0, Ok(())),
        (rule(&[]), 1061.0, Err(TokenError::Expired)),
        (TokenRule { issuer: "https://other".into(), ..rule(&[]) }, 700.0, Err(TokenError::Issuer)),
    ];
    for (rule, now, expected) in cases {
        assert_eq!(checked(&rule, &claims, now), expected, "{:?} at {now}", rule.audiences);
    }
    assert_eq!(checked(&TokenRule::of_nobody(), &json!({"iss": ""}), 0.0), Err(TokenError::Issuer));
    assert_eq!(checked(&rule(&["a"]), &json!({"iss": "https://issuer"}), 0.0), Err(TokenError::Audience));
    assert_eq!(checked(&rule(&[]), &json!({"iss": "https://issuer"}), 1e12), Ok(()), "without an end it has none");
}

#[test]
fn policies_see_texts_and_lists_of_them() {
    let claims = json!({
        "iss": "https://issuer", "sub": "alice", "aud": "shop", "azp": "web", "scope": "read  write", "level": 5,
        "groups": ["a", 7, "b"], "realm": {"roles": ["admin"]}, "ok": true, "list": [1, 2]
    });
    let text = token(&json!({"alg": "ES256"}), &claims, |_| Vec::new());
    let compact = Compact::parse(&text).unwrap();
    let token = compact.claims().token(&rule(&[]));
    assert_eq!(token.principal.as_deref(), Some("https://issuer/alice"));
    assert_eq!((token.audiences, token.presenter.as_deref()), (vec!["shop".to_owned()], Some("web")));
    assert_eq!(token.claims["scope"], Claim::Texts(vec!["read".into(), "write".into()]));
    assert_eq!(token.claims["groups"], Claim::Texts(vec!["a".into(), "b".into()]));
    assert!(matches!(&token.claims["realm"], Claim::Nested(inner) if inner.contains_key("roles")));
    assert!(!token.claims.contains_key("level"));
    let shown = |names: &[&str]| compact.claims().shown(&names.iter().map(|name| (*name).into()).collect::<Vec<_>>());
    assert_eq!(shown(&["level"]).as_deref(), Some("5"));
    assert_eq!(shown(&["ok"]).as_deref(), Some("true"));
    assert_eq!(shown(&["list"]).as_deref(), Some("WzEsMl0="));
    assert_eq!(shown(&["realm", "roles"]).as_deref(), Some("WyJhZG1pbiJd"));
    assert_eq!(shown(&["realm", "none"]), None);
    let nobody = principal(&json!({"iss": "https://issuer"}));
    assert_eq!(nobody, None, "a token without a subject is no principal");
}

fn principal(claims: &Value) -> Option<String> {
    let text = token(&json!({"alg": "ES256"}), claims, |_| Vec::new());
    Compact::parse(&text).unwrap().claims().token(&rule(&[])).principal
}
