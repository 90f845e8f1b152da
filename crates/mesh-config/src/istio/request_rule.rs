//! What a rule of an AuthorizationPolicy asks of a request.

use mesh_core::policy::{PathPatterns, Patterns, RequestTest, request};

use super::Flaw;
use super::rule::pattern;

/// Paths: exact, by prefix or suffix, or by template.
pub(super) fn paths(values: &[String], field: &str) -> Result<PathPatterns, Flaw> {
    let (mut patterns, mut templates) = (Vec::new(), Vec::new());
    for (index, value) in values.iter().enumerate() {
        let flaw = |message: String| Flaw::value(format!("{field}[{index}]"), message);
        if value.contains(['{', '}']) {
            templates.push(request::template(value).map_err(|error| flaw(format!("{value:?}: {error}")))?);
        } else {
            patterns.push(pattern(value).map_err(flaw)?);
        }
    }
    Ok(PathPatterns::new(patterns.into_iter().collect(), templates))
}

/// The condition of a key in `when`.
pub(super) fn condition(key: &str, values: Patterns) -> Result<RequestTest, String> {
    let unknown = || format!("nothing is known of the key {key:?}");
    match key {
        "request.auth.principal" => return Ok(RequestTest::RequestPrincipal(values)),
        "request.auth.audiences" => return Ok(RequestTest::Audience(values)),
        "request.auth.presenter" => return Ok(RequestTest::Presenter(values)),
        "connection.sni" => return Ok(RequestTest::Sni(values)),
        _ => {}
    }
    if let Some(rest) = key.strip_prefix("request.headers") {
        return match bracketed(rest).as_deref() {
            Some([name]) => Ok(RequestTest::Header(name.to_ascii_lowercase().into(), values)),
            _ => Err(format!("{key:?} is not of the form request.headers[NAME]")),
        };
    }
    if let Some(rest) = key.strip_prefix("request.auth.claims") {
        let names = bracketed(rest).ok_or_else(|| format!("{key:?} is not of the form request.auth.claims[NAME]"))?;
        return Ok(RequestTest::Claim(names.into_iter().map(Into::into).collect(), values));
    }
    Err(unknown())
}

/// The names in `[a][b]`, of which there is one at least.
pub(super) fn bracketed(text: &str) -> Option<Vec<&str>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<_> = inner.split("][").collect();
    names.iter().all(|name| !name.is_empty() && !name.contains(['[', ']'])).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_brackets_one_by_one() {
        assert_eq!(bracketed("[x-token]"), Some(vec!["x-token"]));
        assert_eq!(bracketed("[realm][roles]"), Some(vec!["realm", "roles"]));
        for malformed in ["", "x", "[]", "[a", "[a][]", "[a]b[c]", "[[a]]"] {
            assert_eq!(bracketed(malformed), None, "{malformed:?}");
        }
    }
}
