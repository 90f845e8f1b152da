//! One connection as it is told to metrics and logs.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_core::{
    Service, SpiffeId, Workload,
    policy::{Facts, Peer},
};
use mesh_transport::{hbone::TunnelEnd, relay::End};

use super::{Decider, FlowKind};

/// The response_flags label of a connection that nothing went wrong with.
pub(super) const NO_FLAGS: &str = "-";

/// Which end of the connection this daemon stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reporter {
    /// The client's.
    Source,
    /// The server's.
    Destination,
}

impl Reporter {
    /// As a metric label and log field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// How the connection is protected between the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// mTLS: a tunnel, or a sidecar of Istio's.
    MutualTls,
    /// Nothing between two pods of one node; the kernel attests who they are, and nothing is encrypted.
    KernelAttested,
    /// Plaintext.
    None,
}

impl Security {
    /// As a log field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::KernelAttested => "kernel_attested",
            Self::None => "none",
        }
    }

    /// As Istio's label `connection_security_policy`, a closed set in which only encryption counts.
    #[must_use]
    pub const fn policy_label(self) -> &'static str {
        match self {
            Self::MutualTls => "mutual_tls",
            Self::KernelAttested | Self::None => "none",
        }
    }
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
    /// An AuthorizationPolicy, here or at the other end.
    PolicyDenied,
    /// The pod takes no plaintext (PeerAuthentication).
    PlaintextUnderStrict,
    /// A DestinationRule asks for what cannot be had.
    RuleNotMet,
    /// The pod's policies have not arrived.
    WorkloadUnknown,
}

impl Refused {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::NoOriginalDestination,
        Self::NoEndpoint,
        Self::Unreachable,
        Self::TunnelFailed,
        Self::NoCertificate,
        Self::BadTarget,
        Self::PolicyDenied,
        Self::PlaintextUnderStrict,
        Self::RuleNotMet,
        Self::WorkloadUnknown,
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
            Self::PolicyDenied => "policy_denied",
            Self::PlaintextUnderStrict => "plaintext_under_strict",
            Self::RuleNotMet => "rule_not_met",
            Self::WorkloadUnknown => "workload_unknown",
        }
    }

    /// Envoy's response flag with the same meaning, as Istio's metrics have it.
    #[must_use]
    pub const fn response_flag(self) -> &'static str {
        match self {
            Self::NoOriginalDestination | Self::BadTarget | Self::WorkloadUnknown => "NR",
            Self::NoEndpoint => "UH",
            Self::Unreachable | Self::TunnelFailed | Self::NoCertificate | Self::RuleNotMet => "UF",
            // As ztunnel writes it.
            Self::PolicyDenied | Self::PlaintextUnderStrict => "DENY",
        }
    }
}

/// Why the daemon ended a connection that was open: a closed set, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutReason {
    /// A policy that changed denies it now.
    PolicyDenied,
    /// A DestinationRule that changed asks for TLS, which the connection does not have.
    RuleNotMet,
    /// The certificate of the other end was revoked, or its root is trusted no more.
    CertificateUntrusted,
    /// The other end is no workload of the mesh any more.
    WorkloadGone,
    /// The daemon ends, and has waited for it long enough.
    DaemonEnding,
}

impl CutReason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::PolicyDenied, Self::RuleNotMet, Self::CertificateUntrusted, Self::WorkloadGone, Self::DaemonEnding];

    /// Why the connection of a tunnel was ended.
    #[must_use]
    pub const fn of(end: &TunnelEnd) -> Self {
        match end {
            TunnelEnd::Untrusted(_) => Self::CertificateUntrusted,
            TunnelEnd::WorkloadGone(_) => Self::WorkloadGone,
        }
    }

    /// As a metric label and log field.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PolicyDenied => "policy_denied",
            Self::RuleNotMet => "rule_not_met",
            Self::CertificateUntrusted => "certificate_untrusted",
            Self::WorkloadGone => "workload_gone",
            Self::DaemonEnding => "daemon_ending",
        }
    }
}

/// The daemon's own end to a connection.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Why, for metrics.
    pub reason: CutReason,
    /// Why, for people.
    pub detail: String,
}

/// How a connection ended.
#[derive(Debug)]
pub enum Ending {
    /// It was open, and ended by itself.
    Carried(End),
    /// It was open, and the daemon ended it.
    Cut(Cut),
    /// It was never open.
    Refused(Refused, String),
}

impl Ending {
    /// In a word of a closed set.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Carried(End::Closed) => "closed",
            Self::Carried(End::ResetByApp) => "reset_by_app",
            Self::Carried(End::ResetByFar) => "reset_by_far",
            Self::Cut(cut) => cut.reason.as_str(),
            Self::Refused(reason, _) => reason.as_str(),
        }
    }

    /// Envoy's response flags with the same meaning.
    pub(super) const fn response_flags(&self) -> &'static str {
        match self {
            Self::Carried(_) | Self::Cut(_) => NO_FLAGS,
            Self::Refused(reason, _) => reason.response_flag(),
        }
    }

    /// Why, for people, where there is more to say.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Carried(_) => None,
            Self::Cut(cut) => Some(&cut.detail),
            Self::Refused(_, error) => Some(error),
        }
    }

    pub(super) const fn kind(&self) -> FlowKind {
        match self {
            Self::Carried(_) => FlowKind::Closed,
            Self::Cut(_) => FlowKind::Cut,
            Self::Refused(..) => FlowKind::Refused,
        }
    }
}

/// Payload bytes of a connection, from the client's side of view.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bytes {
    /// From the client to the server.
    pub from_client: u64,
    /// From the server to the client.
    pub to_client: u64,
}

impl Bytes {
    /// What came after `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            from_client: self.from_client.saturating_sub(earlier.from_client),
            to_client: self.to_client.saturating_sub(earlier.to_client),
        }
    }
}

/// One end of a connection.
#[derive(Clone, Debug, Default)]
pub struct Party {
    /// Its address, where known.
    pub address: Option<SocketAddr>,
    /// Its workload, where known.
    pub workload: Option<Arc<Workload>>,
    /// Its identity, proven by a certificate or attested by the kernel.
    pub principal: Option<SpiffeId>,
}

/// One connection, from its acceptance to its end.
#[derive(Clone, Debug)]
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
    /// The policy that decided on it, if one did.
    pub decider: Option<Decider>,
    /// The client is a waypoint, which tells of the requests itself.
    pub by_waypoint: bool,
    started: Instant,
    ended: Option<Instant>,
}

impl Report {
    /// Begins the report of a connection that was accepted just now.
    #[must_use]
    pub fn begin(reporter: Reporter, source: Party) -> Self {
        Self::begin_at(reporter, source, Instant::now())
    }

    /// Begins the report of a connection that was accepted then.
    #[must_use]
    pub fn begin_at(reporter: Reporter, source: Party, started: Instant) -> Self {
        Self {
            reporter,
            source,
            destination: Party::default(),
            service: None,
            security: Security::None,
            original: None,
            decider: None,
            by_waypoint: false,
            started,
            ended: None,
        }
    }

    /// The same connection between parties that are not told.
    #[must_use]
    pub fn of_unknown_parties(report: &Self) -> Self {
        let mut unknown = Self::begin_at(report.reporter, Party::default(), report.started);
        unknown.security = report.security;
        unknown
    }

    /// Says when the connection ended, where that is told later.
    pub fn end_at(&mut self, ended: Instant) {
        self.ended = Some(ended);
    }

    /// What policies judge the connection by; none where an address is not known.
    #[must_use]
    pub fn facts(&self) -> Option<Facts<'_>> {
        let peer = match (self.security, &self.source.principal) {
            (Security::MutualTls, Some(identity)) => Peer::Certificate(identity),
            (Security::KernelAttested, Some(identity)) => Peer::Kernel(identity),
            (Security::None, _) | (_, None) => Peer::Unproven,
        };
        Some(Facts {
            peer,
            client: self.source.address?.ip(),
            forwarded: None,
            server: None,
            destination: self.destination.address?,
        })
    }

    /// Time since the connection was accepted, up to its end.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.ended.unwrap_or_else(Instant::now).saturating_duration_since(self.started)
    }
}
