//! Secrets in what was read: left out by what they look like, and by what the field is called.

use serde_json::Value;

/// What stands in a secret's place.
const LEFT_OUT: &str = "(left out)";
/// Words by which a field's value is a secret, in names of any case and with any signs between them.
const NAMES: [&str; 12] = [
    "password",
    "passwd",
    "secret",
    "token",
    "authorization",
    "cookie",
    "apikey",
    "privatekey",
    "credential",
    "accesskey",
    "session",
    "signature",
];
/// Those of them that are nothing else in a text either.
const STRONG: [&str; 5] = ["password", "passwd", "authorization", "apikey", "api-key"];
/// Fields with such a word in their names that hold names, places and times.
const HARMLESS: [&str; 9] = [
    "secretname",
    "secretnames",
    "credentialname",
    "credentials",
    "serviceaccounttoken",
    "sessionaffinity",
    "tokenlocation",
    "sessions",
    "fromcookies",
];

/// Leaves secrets out of a value: by the names of fields, and by what their texts look like.
pub(super) fn value(found: &mut Value) {
    match found {
        Value::String(words) => *words = text(words),
        Value::Array(all) => all.iter_mut().for_each(value),
        Value::Object(fields) => {
            let is_named = |field: &Value| field.as_str().is_some_and(is_secret);
            let is_pair = fields.get("name").or_else(|| fields.get("key")).is_some_and(is_named);
            for (name, inner) in fields.iter_mut() {
                let is_a_pairs_value = is_pair && name == "value";
                match inner {
                    Value::String(words) if is_secret(name) || is_a_pairs_value => *words = LEFT_OUT.to_owned(),
                    // `exact`, `prefix` and `regex` of a header field.
                    Value::Object(matched) if is_secret(name) => {
                        let texts = matched.values_mut().filter(|inner| inner.is_string());
                        texts.for_each(|inner| *inner = LEFT_OUT.into());
                        value(inner);
                    }
                    inner => value(inner),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_secret(name: &str) -> bool {
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    !HARMLESS.contains(&&*plain) && NAMES.iter().any(|word| plain.contains(word))
}

/// Leaves out of a text what looks like a secret, wherever it stands.
pub(super) fn text(found: &str) -> String {
    let without_keys = without_private_keys(found);
    let mut kept = String::with_capacity(without_keys.len());
    for line in without_keys.split_inclusive('\n') {
        kept.push_str(&without_tokens(line));
    }
    kept
}

/// PEM blocks of private keys, whatever they are called; one without an end goes up to the end of the text.
fn without_private_keys(mut rest: &str) -> String {
    const BEGIN: &str = "-----BEGIN ";
    const END: &str = "-----END ";
    let mut kept = String::with_capacity(rest.len());
    while let Some(at) = rest.find(BEGIN) {
        let (before, block) = rest.split_at(at);
        let title = block[BEGIN.len()..].split("-----").next().unwrap_or_default();
        if !title.ends_with("PRIVATE KEY") {
            kept.push_str(&rest[..at + BEGIN.len()]);
            rest = &rest[at + BEGIN.len()..];
            continue;
        }
        kept.extend([before, LEFT_OUT]);
        let after_end = block.find(END).map(|end| &block[end + END.len()..]);
        rest = after_end.and_then(|after| after.split_once("-----")).map_or("", |(_, after)| after);
    }
    kept + rest
}

/// JSON Web Tokens, what follows `Bearer` or `Basic`, and values of query parameters and assignments that are called like secrets.
fn without_tokens(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut rest = line;
    let (mut before, mut joint) = ("", "");
    while !rest.is_empty() {
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let gap = after.find(is_word).unwrap_or(after.len());
        let (between, next) = after.split_at(gap);
        let follows_scheme = ["bearer", "basic"].contains(&before.to_ascii_lowercase().as_str());
        let is_assigned = match joint.trim_matches(['"', '\'', ' ']) {
            "=" => is_secret(before),
            // `token: expired` says something that is worth knowing.
            ":" => STRONG.iter().any(|strong| before.to_ascii_lowercase().ends_with(strong)),
            _ => false,
        };
        if !word.is_empty() && (is_token(word) || (follows_scheme && word.len() >= 8) || is_assigned) {
            kept.push_str(LEFT_OUT);
        } else {
            kept.push_str(word);
        }
        kept.push_str(between);
        if !word.is_empty() {
            before = word;
        }
        joint = between;
        rest = next;
    }
    kept
}

/// Of what tokens are made: base64 of both alphabets, and the points between a token's parts.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '/')
}

/// Three parts, of which the first two are JSON in base64.
fn is_token(word: &str) -> bool {
    // A path may stand before it.
    let word = word.rsplit('/').next().unwrap_or(word);
    let mut parts = word.split('.');
    let is_json = |part: Option<&str>| part.is_some_and(|part| part.starts_with("eyJ") || part.starts_with("eyI"));
    is_json(parts.next()) && is_json(parts.next())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl";

    #[test]
    fn keys_and_tokens_are_left_out_of_texts_and_all_else_stays() {
        let key = "a\n-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\nb\n-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let kept = text(key);
        assert!(
            !kept.contains("MHcCAQEE") && kept.starts_with("a\n(left out)\nb\n") && kept.contains("MIIB"),
            "{kept}"
        );
        assert_eq!(text("-----BEGIN PRIVATE KEY-----\nMHcC"), "(left out)");
        for (said, expected) in [
            (format!("GET /x?a=1&access_token={TOKEN}&b=2"), "GET /x?a=1&access_token=(left out)&b=2"),
            (format!("authorization: Bearer {TOKEN}"), "authorization: (left out) (left out)"),
            ("header Bearer 0123456789abcdef.".to_owned(), "header Bearer (left out)"),
            ("{\"password\":\"hunter2\"}, token: expired".to_owned(), "{\"password\":\"(left out)\"}, token: expired"),
            ("password=hunter2 user=ada".to_owned(), "password=(left out) user=ada"),
            ("{\"path\":\"/v1\",\"status\":200}".to_owned(), "{\"path\":\"/v1\",\"status\":200}"),
            ("spiffe://cluster.local/ns/shop/sa/cart".to_owned(), "spiffe://cluster.local/ns/shop/sa/cart"),
        ] {
            assert_eq!(text(&said), expected);
        }
    }

    #[test]
    fn fields_that_are_called_like_secrets_lose_their_values() {
        let mut found = json!({
            "env": [{"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "PORT", "value": "80"}],
            "headers": {"set": {"Authorization": "Basic abc", "x-user": "ada"}},
            "match": {"headers": {"cookie": {"exact": "id=1"}}},
            "secretName": "cert", "sessionAffinity": "None", "tokens": [TOKEN],
        });
        value(&mut found);
        assert_eq!(
            found,
            json!({
                "env": [{"name": "DB_PASSWORD", "value": "(left out)"}, {"name": "PORT", "value": "80"}],
                "headers": {"set": {"Authorization": "(left out)", "x-user": "ada"}},
                "match": {"headers": {"cookie": {"exact": "(left out)"}}},
                "secretName": "cert", "sessionAffinity": "None", "tokens": ["(left out)"],
            })
        );
    }
}
