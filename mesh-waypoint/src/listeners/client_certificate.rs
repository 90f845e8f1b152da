//! What servers are told of the certificate that a client has shown (`x-forwarded-client-cert`), in Envoy's form: keys and values,
//! `Hash`, `Cert`, `Subject`, `URI` and `DNS`, which are those that Istio's gateways set.

use std::{fmt::Write as _, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{
    AttributeTypeAndValue, FromDer as _, GeneralName, X509Certificate, X509Name, oid_registry::OidRegistry,
};

/// Octets of a certificate that is shown whole; of a larger one its digest says enough.
const MAX_SHOWN: usize = 8 << 10;
/// Names that are told of one certificate.
const MAX_NAMES: usize = 64;

/// A certificate that a client has shown, and that was verified.
pub(crate) struct Shown {
    /// One element of the field.
    pub(crate) told: HeaderValue,
    /// The URIs that it names, joined by commas; those with a comma of their own are left out, since they would be taken for several.
    pub(crate) uris: Arc<str>,
}

/// What is told of a certificate; none where it cannot be read, which TLS would not have taken.
pub(super) fn describe(certificate: &CertificateDer<'_>) -> Option<Shown> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut told = String::from("Hash=");
    for octet in digest(&SHA256, certificate).as_ref() {
        let _ = write!(told, "{octet:02x}");
    }
    if certificate.len() <= MAX_SHOWN {
        told.push_str(";Cert=\"");
        form_urlencoded::byte_serialize(pem(certificate).as_bytes()).for_each(|part| match part {
            // A space is `%20` in it, and a plus is none.
            "+" => told.push_str("%20"),
            part => told.push_str(part),
        });
        told.push('"');
    }
    let _ = write!(told, ";Subject=\"{}\"", subject(parsed.subject()));
    let names = parsed.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|extension| &extension.value.general_names);
    let mut uris = Vec::new();
    for (key, name) in names.filter_map(told_name).take(MAX_NAMES) {
        let _ = write!(told, ";{key}={}", value(name));
        if key == "URI" && !name.contains(',') {
            uris.push(name);
        }
    }
    Some(Shown { told: HeaderValue::try_from(told).ok()?, uris: uris.join(",").into() })
}

fn told_name<'a>(name: &'a GeneralName<'_>) -> Option<(&'static str, &'a str)> {
    let (key, name) = match name {
        GeneralName::URI(name) => ("URI", *name),
        GeneralName::DNSName(name) => ("DNS", *name),
        _ => return None,
    };
    // Of others nobody knows what a server makes.
    name.bytes().all(|octet| octet.is_ascii_graphic()).then_some((key, name))
}

/// In quotes where it could be taken for more than one value.
fn value(name: &str) -> String {
    if name.contains([',', ';', '=', '"', '\\']) {
        format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        name.to_owned()
    }
}

/// RFC 7468.
fn pem(certificate: &[u8]) -> String {
    const LINE: usize = 64;
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, certificate);
    for line in encoded.as_bytes().chunks(LINE) {
        text.extend(line.iter().map(|octet| char::from(*octet)));
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

/// A name as RFC 2253 writes it, the last part first.
fn subject(name: &X509Name<'_>) -> String {
    let registry = OidRegistry::default().with_x509();
    let parts: Vec<_> = name.iter_rdn().collect();
    let parts = parts.into_iter().rev().map(|part| {
        let attributes: Vec<_> = part.iter().map(|attribute| written(attribute, &registry)).collect();
        attributes.join("+")
    });
    parts.collect::<Vec<_>>().join(",")
}

fn written(attribute: &AttributeTypeAndValue<'_>, registry: &OidRegistry<'_>) -> String {
    let kind = match registry.get(attribute.attr_type()) {
        Some(known) => short(known.sn()).to_owned(),
        None => attribute.attr_type().to_id_string(),
    };
    match attribute.as_str() {
        Ok(text) => format!("{kind}={}", escaped(text)),
        Err(_) => {
            let octets = attribute.as_slice().iter().map(|octet| format!("{octet:02X}"));
            format!("{kind}=#{}", octets.collect::<String>())
        }
    }
}

/// The registry's name as RFC 2253 has it.
fn short(name: &str) -> &str {
    match name {
        "commonName" => "CN",
        "countryName" => "C",
        "localityName" => "L",
        "stateOrProvinceName" => "ST",
        "organizationName" => "O",
        "organizationalUnitName" => "OU",
        other => other,
    }
}

/// Section 2.4, and as OpenSSL does: what is no printable ASCII as the octets' numbers.
fn escaped(text: &str) -> String {
    let (mut escaped, last) = (String::new(), text.len().saturating_sub(1));
    for (at, octet) in text.bytes().enumerate() {
        let at_edge = octet == b' ' && (at == 0 || at == last) || octet == b'#' && at == 0;
        match octet {
            _ if at_edge => escaped.extend(['\\', char::from(octet)]),
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => escaped.extend(['\\', char::from(octet)]),
            b' '..=b'~' => escaped.push(char::from(octet)),
            _ => escaped.push_str(&format!("\\{octet:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn shown(names: &[SanType], subject: &[(DnType, &str)]) -> (String, Arc<str>) {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = names.to_vec();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            parameters.distinguished_name.push(kind.clone(), *value);
        }
        let certificate = parameters.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let shown = describe(certificate.der()).unwrap();
        (shown.told.to_str().unwrap().to_owned(), shown.uris)
    }

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    #[test]
    fn a_certificate_is_told_of_in_envoys_form() {
        let names = [uri("spiffe://a/b"), SanType::DnsName("a.example".try_into().unwrap()), uri("urn:c")];
        let (told, uris) = shown(&names, &[(DnType::OrganizationName, "Shop"), (DnType::CommonName, "client")]);
        let parts: Vec<&str> = told.split(';').collect();
        let [hash, certificate, subject, names @ ..] = &parts[..] else { panic!("{told}") };
        assert!(hash.strip_prefix("Hash=").is_some_and(|hash| hash.len() == 64), "{told}");
        assert!(certificate.starts_with("Cert=\"-----BEGIN%20CERTIFICATE-----%0A"), "{told}");
        assert!(certificate.ends_with("-----END%20CERTIFICATE-----%0A\""), "{told}");
        assert_eq!(*subject, "Subject=\"CN=client,O=Shop\"");
        assert_eq!(names, ["URI=spiffe://a/b", "DNS=a.example", "URI=urn:c"]);
        assert_eq!(&*uris, "spiffe://a/b,urn:c");
    }

    /// Servers take the field apart at commas and semicolons; no certificate may add to it.
    #[test]
    fn no_name_reaches_beyond_its_value() {
        let (told, uris) =
            shown(&[uri("urn:a;URI=spiffe://admin,By=x")], &[(DnType::CommonName, "a\",URI=b;\n\u{e9} ")]);
        assert_eq!(&*uris, "");
        let (_, rest) = told.split_once(";Subject=").unwrap();
        assert_eq!(rest, "\"CN=a\\\"\\,URI=b\\;\\0A\\C3\\A9\\ \";URI=\"urn:a;URI=spiffe://admin,By=x\"");
    }
}
