//! mesh-ctl
fn main() {}
