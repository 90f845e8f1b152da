//! A plugin of a container runtime by NRI, the Node Resource Interface (github.com/containerd/nri, api.proto v1alpha1): asked
//! before a pod's containers run, whether they may.
//!
//! A runtime listens at a Unix socket. A plugin connects, registers, says which events it wants, and is then asked about each of
//! them; the runtime waits for the answer. What crosses the socket are frames of two connections in one, each of which carries ttrpc
//! (github.com/containerd/ttrpc, PROTOCOL.md): requests and responses of protobuf.
#![forbid(unsafe_code)]

mod plugin;
mod proto;
mod wire;

pub use plugin::{Admission, Event, NriError, Plugin, Pod, Refusal, Runtime};

/// Where runtimes listen unless they are told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/nri/nri.sock";
