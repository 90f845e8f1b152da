//! Tunnels over loopback TCP with real TLS, in every mode that carries them.

mod bad_certificates;
mod bad_clients;
mod bad_direct;
mod bytes;
mod endings;
mod pooling;
mod sidecars;
mod sidecars_in;
mod streams;
mod trust;
mod world;
