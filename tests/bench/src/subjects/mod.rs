//! What is compared: nothing between the pods, the mesh, and Envoy.

pub(crate) mod envoy;
mod envoy_config;
pub(crate) mod mesh;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What carries the pods' connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "kebab-case")]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Subject {
    /// The kernel alone.
    Raw,
    /// Our daemons and eBPF programs.
    Mesh,
    /// The same with HTTP/2 tunnels alone, as ztunnel has them; not measured unless asked for.
    MeshH2,
    /// The mesh, with a waypoint between that has nothing to do: no route, no policy.
    Waypoint,
    /// Envoy beside each pod: TCP over mTLS, a TLS connection for each connection.
    Envoy,
    /// The same with HTTP/2 CONNECT inside, as the mesh's own wire format has it; not measured unless asked for.
    EnvoyHbone,
}

impl Subject {
    pub(crate) const ALL: [Self; 6] =
        [Self::Raw, Self::Mesh, Self::MeshH2, Self::Waypoint, Self::Envoy, Self::EnvoyHbone];
    /// What is measured unless something else is asked for.
    pub(crate) const USUAL: [Self; 4] = [Self::Raw, Self::Mesh, Self::Waypoint, Self::Envoy];

    /// As people and results name it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mesh => "mesh",
            Self::MeshH2 => "mesh-h2",
            Self::Waypoint => "waypoint",
            Self::Envoy => "envoy",
            Self::EnvoyHbone => "envoy-hbone",
        }
    }

    /// Whether our daemons carry the connections.
    pub(crate) const fn is_mesh(self) -> bool {
        matches!(self, Self::Mesh | Self::MeshH2 | Self::Waypoint)
    }

    /// Whether it needs Envoy's program.
    pub(crate) const fn is_envoy(self) -> bool {
        matches!(self, Self::Envoy | Self::EnvoyHbone)
    }
}
