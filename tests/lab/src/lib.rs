//! mesh-lab
