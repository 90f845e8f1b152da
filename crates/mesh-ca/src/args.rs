//! The flags by which a program is told who signs its certificates.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh_core::TrustDomain;

use crate::authority::{Authority, AuthorityError, RemoteSettings};

/// Who signs, for whose trust domain, and for how long; the same for every program that has certificates.
#[derive(Clone, Debug, clap::Args)]
pub struct IdentityArgs {
    /// Directory with the certificate authority: ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem
    /// (`mesh-control ca init` makes one); it is followed. Without it, --ca-address says who signs.
    #[arg(long, value_name = "DIR", required_unless_present = "ca_address", conflicts_with = "ca_address")]
    pub ca: Option<PathBuf>,
    /// Address of the certificate authority (`mesh-control serve`, or Istio's).
    #[arg(long, value_name = "HOST:PORT", requires = "ca_root", requires = "ca_token")]
    pub ca_address: Option<String>,
    /// File with the roots that the authority's own certificate is judged by, in PEM.
    #[arg(long, value_name = "FILE")]
    pub ca_root: Option<PathBuf>,
    /// File with this node's token for the authority.
    #[arg(long, value_name = "FILE")]
    pub ca_token: Option<PathBuf>,
    /// DNS name in the authority's own certificate.
    #[arg(long, value_name = "NAME", default_value = crate::SERVER_NAME)]
    pub ca_name: String,
    /// How long certificates live; they are renewed at about half of it.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = lifetime)]
    pub certificate_lifetime: Duration,
    /// Trust domain of all identities.
    #[arg(long, value_name = "NAME", default_value = "cluster.local")]
    pub trust_domain: TrustDomain,
}

impl IdentityArgs {
    /// Who signs certificates.
    ///
    /// # Errors
    /// When the directory, or a file, is not what it should be.
    pub fn authority(&self) -> Result<Authority, AuthorityError> {
        match (&self.ca, &self.ca_address, &self.ca_root, &self.ca_token) {
            (None, Some(address), Some(root), Some(token)) => Authority::remote(&RemoteSettings {
                address: address.clone(),
                name: self.ca_name.clone(),
                root: root.clone(),
                token: token.clone(),
            }),
            // The parser has seen to it that there is one.
            (ca, ..) => Authority::local(ca.as_deref().unwrap_or(Path::new("."))),
        }
    }

    /// The flag that [`IdentityArgs::authority`] went by, for what is said of its failure.
    #[must_use]
    pub fn authority_flag(&self) -> &'static str {
        if self.ca.is_some() { "--ca" } else { "--ca-address" }
    }
}

/// A time of at least 2 s.
fn lifetime(text: &str) -> Result<Duration, String> {
    let enough = |time: &Duration| time.as_secs() >= 2;
    time(text).and_then(|time| Some(time).filter(enough).ok_or_else(|| "less than 2s".to_owned()))
}

/// A time such as 24h, 90m or 20s, as flags have it.
///
/// # Errors
/// It is none.
pub fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let seconds = match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3600),
        _ => None,
    };
    let whole = number.parse::<u32>().ok().zip(seconds).map(|(number, seconds)| u64::from(number) * seconds);
    whole.map(Duration::from_secs).ok_or_else(|| "not a time such as 24h, 90m or 20s".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        identity: IdentityArgs,
    }

    fn parse(arguments: &[&str]) -> Result<IdentityArgs, String> {
        let arguments = ["program"].iter().chain(arguments);
        Program::try_parse_from(arguments).map(|program| program.identity).map_err(|error| error.to_string())
    }

    #[test]
    fn a_program_is_told_of_one_authority_and_of_one_alone() {
        let remote = ["--ca-address", "ca:15012", "--ca-root", "root.pem", "--ca-token", "token"];
        assert_eq!(parse(&["--ca", "dir"]).expect("enough").authority_flag(), "--ca");
        assert_eq!(parse(&remote).expect("enough").authority_flag(), "--ca-address");
        for (arguments, named) in [(&[][..], "--ca"), (&remote[..4], "--ca-token"), (&["--ca-root", "r"], "--ca")] {
            let error = parse(arguments).expect_err("not enough");
            assert!(error.contains(named), "{arguments:?}: {error}");
        }
        assert!(parse(&[&["--ca", "dir"], &remote[..]].concat()).is_err(), "two authorities");
    }

    #[test]
    fn lifetimes_have_a_unit_and_are_no_shorter_than_their_renewal_takes() {
        for (text, seconds) in [("20s", 20), ("90m", 5400), ("24h", 86_400)] {
            assert_eq!(lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "s", "20", "1s", "-5m", "1d", "1.5h", "4294967296h", "5\u{df}"] {
            assert!(lifetime(text).is_err(), "{text}");
        }
    }
}
