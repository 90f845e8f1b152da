//! The daemon on machines that lack something, and against peers that mean no good. Needs root: see `mesh_lab`.

mod admin;
mod crowds;
mod direct;
mod machine;
mod requests;
mod siege;
mod strangers;
