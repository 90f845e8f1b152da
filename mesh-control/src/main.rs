//! The control plane's program. So far: making the certificate authority that nodes are given in directory mode.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::{Parser, Subcommand};
use mesh_core::TrustDomain;
use mesh_transport::CertificateAuthority;

/// Certificate authority and configuration for the mesh.
#[derive(Debug, Parser)]
#[command(name = "mesh-control", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The certificate authority.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
enum CaCommand {
    /// Make a root and a signing certificate in Istio's cacerts layout: ca-cert.pem, ca-key.pem, root-cert.pem, cert-chain.pem.
    Init {
        /// The directory to write; created when missing.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// The trust domain that stands in the certificates' names.
        #[arg(long, value_name = "NAME", default_value = "cluster.local")]
        trust_domain: TrustDomain,
        /// Overwrite an authority that is there. Certificates of the old one stop being trusted.
        #[arg(long)]
        force: bool,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Ca(CaCommand::Init { out, trust_domain, force }) => init(out, trust_domain, *force),
        Command::Version => {
            println!("mesh-control {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

fn init(out: &Path, trust_domain: &TrustDomain, force: bool) -> anyhow::Result<()> {
    let now = SystemTime::now();
    CertificateAuthority::generate(trust_domain, now)
        .and_then(|authority| authority.write(out, force))
        .context("no certificate authority was made")?;
    // Reads back what nodes will read.
    CertificateAuthority::load(out, now).context("the authority just written cannot be used")?;
    println!("certificate authority for {trust_domain} in {}", out.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca_init(out: &Path, extra: &[&str]) -> anyhow::Result<()> {
        let out = out.to_str().expect("path is text");
        let line = [&["mesh-control", "ca", "init", "--out", out][..], extra].concat();
        run(&Arguments::try_parse_from(line)?.command)
    }

    #[test]
    fn an_authority_is_made_once_and_replaced_only_by_force() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let out = dir.path().join("ca");
        ca_init(&out, &[]).expect("first");
        let first = std::fs::read(out.join("ca-key.pem")).expect("key");
        let refusal = format!("{:#}", ca_init(&out, &[]).expect_err("second"));
        assert!(refusal.contains("exists already"), "{refusal}");
        assert_eq!(std::fs::read(out.join("ca-key.pem")).expect("key"), first);
        ca_init(&out, &["--force"]).expect("forced");
        assert_ne!(std::fs::read(out.join("ca-key.pem")).expect("key"), first);
    }

    #[test]
    fn a_bad_trust_domain_is_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let out = dir.path().join("ca");
        ca_init(&out, &["--trust-domain", "Not/One"]).expect_err("refused");
        assert!(!out.exists());
    }
}
