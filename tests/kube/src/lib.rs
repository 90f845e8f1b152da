//! A real Kubernetes on one machine: etcd, API server, controllers, and nodes with kubelet, containerd and kube-proxy.
//!
//! Nothing of it is a stand-in. The control plane runs in a network namespace; a node is a network namespace with mount, uts,
//! pid and cgroup namespaces of its own, so that its programs find what they would on a machine. Everything runs in one cgroup
//! and lies in one directory, by which [`Cluster::down`] removes it, also after a start that failed half way.
#![forbid(unsafe_code)]

mod addresses;
pub mod apps;
pub mod balancer;
mod certificates;
mod cgroups;
mod cluster;
mod control;
pub mod ctl;
mod dns;
mod home;
mod kubeconfig;
mod kubectl;
pub mod mesh;
mod network;
pub mod node;
mod programs;

pub use cluster::Cluster;
pub use home::Home;
pub use kubectl::Kubectl;
pub use programs::Programs;
