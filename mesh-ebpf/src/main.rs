//! The kernel side of the data path. One hook a file; what they share is in `maps`, `sockets`, `listener`,
//! `outbound`, `direct`, `probe`, `attestation`, `signals`, `frames`, `dns` and `packet`. No policy is here: a pod is enrolled or it is not, and
//! the daemon has said of two pods that the kernel may connect them or it has not.
#![no_std]
#![no_main]

mod attestation;
mod connect4;
mod connect6;
mod direct;
mod direct_events;
mod dns;
mod drops;
mod frames;
mod getpeername4;
mod getpeername6;
mod getsockname4;
mod getsockname6;
mod listener;
mod maps;
mod outbound;
mod packet;
mod probe;
mod signals;
mod sock_create;
mod sock_ops;
mod sockets;
mod tc_egress;
mod tc_ingress;

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach this, so nothing can.
    loop {}
}

/// Some helpers are for programs under a GPL-compatible licence only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
