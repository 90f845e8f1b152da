//! `mesh-control ca`: makes an authority, rotates its root, revokes certificates, gives nodes tokens.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use clap::Subcommand;
use mesh_core::TrustDomain;
use mesh_transport::CertificateAuthority;
use mesh_transport::ca::rotation;

use crate::node_tokens;

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
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
    /// Replace the root in three steps, without a failed handshake: add, switch, retire.
    #[command(subcommand)]
    Rotate(Step),
    /// Revoke certificates by their serial numbers (`mesh-ctl certificate list -o json` shows them): tunnels of theirs end at once.
    Revoke {
        /// The authority's directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Serial numbers, as hexadecimal digits.
        #[arg(required = true, value_name = "SERIAL")]
        serials: Vec<String>,
    },
    /// Make a token for a node's agent, or replace it: DIR/NODE, for `mesh-control serve --node-tokens DIR` and `mesh-node --ca-token`.
    Token {
        /// The directory of all nodes' tokens; created when missing.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The node's name.
        #[arg(value_name = "NODE")]
        node: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Step {
    /// First: make the next root and signing certificate in DIR/next, and let the root be trusted.
    Add {
        /// The authority's directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The trust domain that stands in the certificates' names.
        #[arg(long, value_name = "NAME", default_value = "cluster.local")]
        trust_domain: TrustDomain,
    },
    /// Second, when every node trusts the next root: sign with it. Nodes renew what the old one signed.
    Switch {
        /// The authority's directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Third, when no node shows a certificate of the old root: trust it no more.
    Retire {
        /// The authority's directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Do not wait until certificates of the old root have expired. Tunnels of those that are left end.
        #[arg(long)]
        now: bool,
        /// How long certificates live at most, in hours.
        #[arg(long, value_name = "HOURS", default_value_t = 24)]
        longest_life: u64,
    },
}

pub(crate) fn run(command: &CaCommand) -> anyhow::Result<()> {
    let now = SystemTime::now();
    match command {
        CaCommand::Init { out, trust_domain, force } => init(out, trust_domain, *force),
        CaCommand::Rotate(step) => rotate(step, now),
        CaCommand::Revoke { dir, serials } => {
            let authority = CertificateAuthority::load(dir, now)?;
            authority.revoke(dir, serials, now).context("nothing was revoked")?;
            println!("{} revoked in {}", serials.len(), dir.join("ca-crl.pem").display());
            Ok(())
        }
        CaCommand::Token { dir, node } => {
            let path = node_tokens::make(dir, node)?;
            println!("token for {node} in {}", path.display());
            Ok(())
        }
    }
}

fn rotate(step: &Step, now: SystemTime) -> anyhow::Result<()> {
    match step {
        Step::Add { dir, trust_domain } => {
            rotation::add(dir, trust_domain, now).context("no root was added")?;
            println!(
                "next: wait until every node trusts two roots (mesh-ctl certificate list -o json), then `rotate switch`"
            );
        }
        Step::Switch { dir } => {
            rotation::switch(dir, now).context("the old certificate goes on signing")?;
            println!("next: wait until every node shows certificates of the new root only, then `rotate retire`");
        }
        Step::Retire { dir, now: at_once, longest_life } => {
            let longest = Duration::from_secs(longest_life.saturating_mul(3600));
            let gone = rotation::retire(dir, longest, *at_once, now).context("no root was retired")?;
            println!("{gone} root(s) retired");
        }
    }
    Ok(())
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
    use clap::Parser as _;

    use super::*;
    use crate::Arguments;

    fn mesh_control(line: &[&str]) -> anyhow::Result<()> {
        let line = [&["mesh-control"], line].concat();
        crate::run(Arguments::try_parse_from(line)?.command)
    }

    fn ca_init(out: &Path, extra: &[&str]) -> anyhow::Result<()> {
        let out = out.to_str().expect("path is text");
        mesh_control(&[&["ca", "init", "--out", out][..], extra].concat())
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

    #[test]
    fn a_rotation_goes_by_its_steps_and_no_other() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let out = dir.path().join("ca");
        ca_init(&out, &[]).expect("made");
        let path = out.to_str().expect("path is text");
        let step =
            |step: &str, more: &[&str]| mesh_control(&[&["ca", "rotate", step, "--dir", path][..], more].concat());
        let roots = || CertificateAuthority::load(&out, SystemTime::now()).expect("whole").roots().len();
        let first = CertificateAuthority::load(&out, SystemTime::now()).expect("whole").signer();
        step("switch", &[]).expect_err("nothing was added");
        step("add", &[]).expect("added");
        step("add", &[]).expect_err("one waits already");
        step("retire", &["--now"]).expect_err("the new one does not sign");
        assert_eq!(roots(), 2);
        step("switch", &[]).expect("switched");
        assert_ne!(CertificateAuthority::load(&out, SystemTime::now()).expect("whole").signer(), first);
        let early = format!("{:#}", step("retire", &[]).expect_err("certificates of the old root live"));
        assert!(early.contains("--now"), "{early}");
        assert_eq!(roots(), 2);
        step("retire", &["--now"]).expect("retired");
        assert_eq!(roots(), 1);
    }

    #[test]
    fn revoked_numbers_add_up_and_what_is_none_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let out = dir.path().join("ca");
        ca_init(&out, &[]).expect("made");
        let path = out.to_str().expect("path is text");
        let revoke = |serial: &str| mesh_control(&["ca", "revoke", "--dir", path, serial]);
        revoke("xyz").expect_err("no number");
        assert!(!out.join("ca-crl.pem").exists());
        revoke("4a01").expect("revoked");
        revoke("4b:02").expect("revoked");
        let authority = CertificateAuthority::load(&out, SystemTime::now()).expect("whole");
        assert_eq!(authority.trust().crls.len(), 1, "one list for one issuer");
    }
}
