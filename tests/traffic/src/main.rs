//! mesh-traffic
fn main() {}
