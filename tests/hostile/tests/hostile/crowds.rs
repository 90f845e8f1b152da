//! Peers that come in numbers.
