//! mesh-waypoint
fn main() {}
