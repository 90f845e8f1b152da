//! mesh-abi
