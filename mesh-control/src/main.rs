//! mesh-control
fn main() {}
