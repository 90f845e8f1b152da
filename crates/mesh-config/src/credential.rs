//! Secrets of TLS: what gateways show their clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret as KubeSecret;
use mesh_core::l7::gateway::Credential;

use serde_json::Value;

use crate::finding::ObjectName;

/// A Secret, as far as gateways use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// A certificate and its key.
    Credential(Arc<Credential>),
    /// Roots alone (`ca.crt`, or `cacert` as Istio has it; DER).
    Roots(Arc<[Arc<[u8]>]>),
    /// Neither can be made of it; why.
    Unusable(String),
}

impl Secret {
    pub(crate) fn of(secret: KubeSecret, name: &ObjectName) -> Self {
        let mut data: BTreeMap<String, Vec<u8>> =
            secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
        // What is written as text comes over what is encoded (Secret, `stringData`).
        data.extend(secret.string_data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes())));
        let first = |keys: &[&str]| keys.iter().find_map(|key| data.get(*key)).map(Vec::as_slice);
        let roots = match first(&["ca.crt", "cacert"]).map(|text| certificates(text, "ca.crt")) {
            Some(Ok(roots)) => Some(Arc::from(roots)),
            Some(Err(why)) => return Self::Unusable(why),
            None => None,
        };
        let (chain, key) = match (first(&["tls.crt", "cert"]), first(&["tls.key", "key"])) {
            (Some(chain), Some(key)) => (chain, key),
            (None, None) if roots.is_some() => return Self::Roots(roots.unwrap_or_else(|| Arc::from([]))),
            (None, _) => return Self::Unusable("it has no tls.crt".to_owned()),
            (_, None) => return Self::Unusable("it has no tls.key".to_owned()),
        };
        let namespace = name.namespace.as_deref().unwrap_or_default();
        let credential = certificates(chain, "tls.crt").and_then(|chain| {
            let name = format!("{namespace}/{}", name.name).into();
            Ok(Credential { name, chain, key: private_key(key)?, roots: roots.unwrap_or_else(|| Arc::from([])) })
        });
        credential.map_or_else(Self::Unusable, |credential| Self::Credential(Arc::new(credential)))
    }
}

/// A ConfigMap with certificates of authorities (`ca.crt`; DER), or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaBundle(pub Result<Arc<[Arc<[u8]>]>, String>);

impl CaBundle {
    /// Whether a ConfigMap is one.
    pub(crate) fn is_one(value: &Value) -> bool {
        value.pointer("/data/ca.crt").is_some()
    }

    pub(crate) fn of(value: &Value) -> Self {
        let text = value.pointer("/data/ca.crt").and_then(Value::as_str).unwrap_or_default();
        let certificates = certificates(text.as_bytes(), "ca.crt").and_then(|certificates| {
            let whole = |certificate: &Arc<[u8]>| certificate.first() == Some(&0x30);
            // What is no DER at all is somebody's placeholder.
            if certificates.iter().all(whole) {
                Ok(certificates.into())
            } else {
                Err("ca.crt is no certificate".to_owned())
            }
        });
        Self(certificates)
    }
}

/// The certificates of a PEM text, in their order.
fn certificates(text: &[u8], key: &str) -> Result<Vec<Arc<[u8]>>, String> {
    let blocks = pem::parse_many(text).map_err(|error| format!("{key} is no PEM: {error}"))?;
    let certificates: Vec<Arc<[u8]>> =
        blocks.iter().filter(|block| block.tag() == "CERTIFICATE").map(|block| block.contents().into()).collect();
    if certificates.is_empty() { Err(format!("{key} has no certificate in it")) } else { Ok(certificates) }
}

fn private_key(text: &[u8]) -> Result<Arc<[u8]>, String> {
    // What an error would say of the text is nobody's to read.
    let blocks = pem::parse_many(text).map_err(|_| "tls.key is no PEM".to_owned())?;
    let key = blocks.iter().find(|block| block.tag().ends_with("PRIVATE KEY"));
    match key {
        Some(key) if key.tag() == "ENCRYPTED PRIVATE KEY" => Err("tls.key is encrypted: decrypt it".to_owned()),
        Some(key) => Ok(key.contents().into()),
        None => Err("tls.key has no private key in it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nBAUG\n-----END PRIVATE KEY-----\n";

    fn secret(texts: &[(&str, &str)]) -> Secret {
        let text = |(key, text): &(&str, &str)| ((*key).to_owned(), (*text).to_owned());
        let secret = KubeSecret { string_data: Some(texts.iter().map(text).collect()), ..KubeSecret::default() };
        let name =
            ObjectName { group: "".into(), kind: "Secret".into(), namespace: Some("shop".into()), name: "edge".into() };
        Secret::of(secret, &name)
    }

    #[test]
    fn a_secret_of_either_layout_is_a_credential() {
        for (crt, key, ca) in [("tls.crt", "tls.key", "ca.crt"), ("cert", "key", "cacert")] {
            let chain = format!("{CERTIFICATE}{CERTIFICATE}");
            let Secret::Credential(read) = secret(&[(crt, &chain), (key, KEY), (ca, CERTIFICATE)]) else {
                panic!("no credential of {crt}");
            };
            assert_eq!((read.chain.len(), &read.key[..], read.roots.len()), (2, &[4, 5, 6][..], 1));
            assert_eq!(&*read.name, "shop/edge");
        }
        assert!(matches!(secret(&[("ca.crt", CERTIFICATE)]), Secret::Roots(roots) if roots.len() == 1));
    }

    #[test]
    fn what_is_wrong_is_said_and_no_key_is() {
        let encrypted = KEY.replace("PRIVATE", "ENCRYPTED PRIVATE");
        for (texts, expected) in [
            (&[("tls.key", KEY)][..], "it has no tls.crt"),
            (&[("tls.crt", CERTIFICATE)], "it has no tls.key"),
            (&[("tls.crt", "x"), ("tls.key", KEY)], "tls.crt has no certificate in it"),
            (&[("tls.crt", CERTIFICATE), ("tls.key", "hidden")], "tls.key has no private key in it"),
            (&[("tls.crt", CERTIFICATE), ("tls.key", &encrypted)], "tls.key is encrypted: decrypt it"),
        ] {
            assert_eq!(secret(texts), Secret::Unusable(expected.to_owned()));
        }
    }
}
