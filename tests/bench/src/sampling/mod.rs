//! What the machine is asked while something runs on it.

pub(crate) mod cpu;
pub(crate) mod hooks;
pub(crate) mod idle;
pub(crate) mod memory;
