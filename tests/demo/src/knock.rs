//! A tunnel's client with a certificate of anybody's making: `mesh-demo knock`, run from a machine outside the mesh.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use clap::Args;
use mesh_core::{SpiffeId, TrustDomain, WorkloadUid};
use mesh_lab::Place;
use mesh_transport::hbone::{Pool, PoolKey, TunnelRequest};
use mesh_transport::{Carriers, CertificateAuthority, Limits, PeerVerifier, TlsIdentity};
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, sync::watch};

use crate::stage::TRUST_DOMAIN;
use crate::wire::HBONE;

/// Whom to knock at, and as whom.
#[derive(Clone, Debug, Args)]
pub struct Knock {
    /// The directory of the authority that signs the certificate.
    #[arg(long)]
    pub signer: PathBuf,
    /// The directory of the authority whose root the client trusts.
    #[arg(long)]
    pub trusted: PathBuf,
    /// The name in the certificate.
    #[arg(long)]
    pub identity: String,
    /// Who has to be at the other end.
    #[arg(long)]
    pub expected: String,
    /// The application to be connected with.
    #[arg(long)]
    pub target: SocketAddr,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The tunnel was accepted.
    pub opened: bool,
    /// What the client was told otherwise.
    pub error: String,
    /// The client's own reason to refuse, in the words of the daemons' metrics; empty where it has none.
    pub reason: String,
}

impl Knock {
    /// Knocks from a place: this program runs there.
    pub fn from(&self, place: &impl Place) -> Result<Answer> {
        // This very program, also when its file was replaced by a newer build.
        let program = format!("/proc/{}/exe", std::process::id());
        let [signer, trusted] = [&self.signer, &self.trusted].map(|path| path.display().to_string());
        let target = self.target.to_string();
        let argv = [
            &*program,
            "knock",
            "--signer",
            &signer,
            "--trusted",
            &trusted,
            "--identity",
            &self.identity,
            "--expected",
            &self.expected,
            "--target",
            &target,
        ];
        let output = place.exec(&argv)?;
        serde_json::from_str(output.success()?).with_context(|| format!("the client's answer: {output}"))
    }

    /// Knocks from here and prints the answer as JSON.
    pub fn run(&self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = tokio::task::LocalSet::new().block_on(&runtime, self.knock())?;
        println!("{}", serde_json::to_string(&answer)?);
        Ok(())
    }

    async fn knock(&self) -> Result<Answer> {
        let (now, trust_domain) = (SystemTime::now(), TRUST_DOMAIN.parse::<TrustDomain>()?);
        let (identity, expected) = (SpiffeId::parse(&self.identity)?, SpiffeId::parse(&self.expected)?);
        let certificate =
            CertificateAuthority::load(&self.signer, now)?.issue(&identity, Duration::from_secs(3600), now)?;
        // Roots are public: whoever forges a certificate can still tell a true server.
        let trust = CertificateAuthority::load(&self.trusted, now)?.trust().clone();
        let peers = Arc::new(PeerVerifier::new(trust)?);
        let tls = TlsIdentity::new(certificate, peers.clone(), &trust_domain, Carriers::H2)?;
        let peer = SocketAddr::new(self.target.ip(), HBONE);
        let key = PoolKey { source: WorkloadUid::from("stranger"), identity, peer, expected };
        let request =
            TunnelRequest { authority: self.target.into(), forwarded: None, baggage: None, traceparent: None };
        let pool = Pool::new(Limits::default(), watch::channel(peers).1);
        Ok(match pool.connect(key, &tls, request, async || TcpStream::connect(peer).await).await {
            Ok(_tunnel) => Answer { opened: true, error: String::new(), reason: String::new() },
            Err(error) => {
                let reason = error.reason().map_or("", |reason| reason.as_str()).to_owned();
                Answer { opened: false, error: error.to_string(), reason }
            }
        })
    }
}
