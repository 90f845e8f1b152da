//! One connection as it is told to metrics and logs.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::{Service, SpiffeId, Workload};
use mesh_transport::relay::{End, Outcome};

use super::{Metrics, access_log};

/// Which end of the connection this daemon stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporter {
    /// The client's.
    Source,
    /// The server's.
    Destination,
}

/// How the connection is protected between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// HBONE over mTLS.
    MutualTls,
    /// Plaintext.
    None,
}

/// Why a connection was refused: a closed set, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The kernel has no record of where the connection wanted to go.
    NoOriginalDestination,
    /// The Service has no endpoint, or not this port.
    NoEndpoint,
    /// The other end cannot be reached or refuses.
    Unreachable,
    /// The tunnel's handshake failed: certificate, identity or protocol.
    TunnelFailed,
    /// No certificate for the source's identity.
    NoCertificate,
    /// The target is not this pod's, or is one of the mesh's own ports.
    BadTarget,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::NoOriginalDestination,
        Self::NoEndpoint,
        Self::Unreachable,
        Self::TunnelFailed,
        Self::NoCertificate,
        Self::BadTarget,
    ];

    /// As a metric label and log field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoOriginalDestination => "no_original_destination",
            Self::NoEndpoint => "no_endpoint",
            Self::Unreachable => "unreachable",
            Self::TunnelFailed => "tunnel_failed",
            Self::NoCertificate => "no_certificate",
            Self::BadTarget => "bad_target",
        }
    }

    /// Envoy's response flag with the same meaning, as Istio's metrics have it.
    #[must_use]
    pub const fn response_flag(self) -> &'static str {
        match self {
            Self::NoOriginalDestination | Self::BadTarget => "NR",
            Self::NoEndpoint => "UH",
            Self::Unreachable | Self::TunnelFailed | Self::NoCertificate => "UF",
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ending {
    /// Bytes flowed.
    Carried(Outcome),
    /// None did.
    Refused(Refused, String),
}

/// One end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Party {
    /// Its address, where known.
    pub address: Option<SocketAddr>,
    /// Its workload, where known.
    pub workload: Option<Arc<Workload>>,
    /// Its identity, proven by a certificate.
    pub principal: Option<SpiffeId>,
}

/// One connection, from its acceptance to its end.
#[derive(Debug)]
pub struct Report {
    /// Which end this daemon stands for.
    pub reporter: Reporter,
    /// The client.
    pub source: Party,
    /// The server.
    pub destination: Party,
    /// The Service that was asked for.
    pub service: Option<Arc<Service>>,
    /// How it is protected.
    pub security: Security,
    /// What the client asked for, where it differs from the destination's address.
    pub original: Option<SocketAddr>,
    started: Instant,
}

impl Report {
    /// Begins the report of a connection that was accepted just now.
    #[must_use]
    pub fn begin(reporter: Reporter, source: Party) -> Self {
        Self {
            reporter,
            source,
            destination: Party::default(),
            service: None,
            security: Security::None,
            original: None,
            started: Instant::now(),
        }
    }

    /// Both ends are connected.
    pub fn opened(&self, metrics: &Metrics) {
        metrics.connection_opened(self);
    }

    /// The one terminal event of the connection: metrics and a log line.
    pub fn finish(self, metrics: &Metrics, ending: &Ending) {
        match ending {
            Ending::Carried(outcome) => metrics.connection_closed(&self, outcome),
            Ending::Refused(reason, _) => metrics.connection_refused(&self, *reason),
        }
        access_log::write(&self, ending);
    }

    /// Time since the connection was accepted.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }
}

/// How a carried connection ended, for logs.
pub(super) const fn end_name(end: End) -> &'static str {
    match end {
        End::Closed => "closed",
        End::ResetByApp => "reset_by_app",
        End::ResetByFar => "reset_by_far",
    }
}
