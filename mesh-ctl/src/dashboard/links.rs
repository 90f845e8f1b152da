//! Other tools that the page leads to.

use clap::Args;
use hyper::Uri;
use serde::Serialize;

/// Where other tools are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Serialize)]
pub(crate) struct Links {
    /// Where Jaeger is, such as https://jaeger.example.com: edges and errors have links to their traces.
    #[arg(long = "jaeger-url", value_name = "URL", value_parser = address)]
    pub(super) jaeger: Option<String>,
    /// Where Grafana is, with the mesh's dashboards: edges have links to those of their Service and workloads.
    #[arg(long = "grafana-url", value_name = "URL", value_parser = address)]
    pub(super) grafana: Option<String>,
}

/// A tool's address, to which paths are added. No browser is led to what is neither HTTP nor HTTPS.
fn address(text: &str) -> Result<String, String> {
    let form = "write http://HOST[:PORT][/PATH], or https";
    let uri: Uri = text.parse().map_err(|error| format!("{error}; {form}"))?;
    let is_of_web = matches!(uri.scheme_str(), Some("http" | "https"));
    let names_a_host = uri.authority().is_some_and(|authority| !authority.host().is_empty());
    if !is_of_web || !names_a_host || uri.query().is_some() || text.contains('#') {
        return Err(form.to_owned());
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("the address must not hold a password: whoever sees the page would read it".to_owned());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_http_and_holds_nothing_else() {
        for (text, expected) in [
            ("http://localhost:16686/", "http://localhost:16686"),
            ("https://example.com/jaeger//", "https://example.com/jaeger"),
            ("http://[::1]:3000", "http://[::1]:3000"),
        ] {
            assert_eq!(address(text).as_deref(), Ok(expected));
        }
        for wrong in [
            "javascript:alert(1)",
            "ftp://example.com",
            "example.com",
            "/path",
            "http://",
            "http://a?x=1",
            "http://a/#x",
            "http://user:secret@a",
            "http://a b",
        ] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
