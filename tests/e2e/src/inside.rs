//! Work inside a pod's network namespace that no program of the lab does: packets of one's own making.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use mesh_lab::Place;
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, Socket, Type};

use crate::PATIENCE;

/// Runs `work` on a thread of this process that is in the network namespace of a pod, or of a machine.
pub fn inside<T: Send>(pod: &impl Place, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let mut guest = pod.spawn(&["sh", "-c", "echo inside; exec sleep infinity"])?;
    guest.wait_for_line("inside", PATIENCE)?;
    let path = format!("/proc/{}/ns/net", guest.id());
    let namespace = File::open(&path).with_context(|| format!("opening {path}"))?;
    let done = thread::scope(|scope| {
        let worker = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).context("entering the pod's network namespace")?;
            work()
        });
        worker.join().map_err(|_| anyhow!("the work inside the pod panicked"))?
    });
    guest.kill()?;
    done
}

/// A TCP SYN as a program with CAP_NET_RAW makes it, past every hook on connect().
#[derive(Clone, Copy, Debug)]
pub struct Syn {
    /// Where it says that it comes from.
    pub source: SocketAddr,
    /// Where it goes.
    pub destination: SocketAddr,
}

impl Syn {
    /// Sends it by a raw socket of the calling thread's network namespace.
    pub fn send(self) -> Result<()> {
        let socket = Socket::new(Domain::for_address(self.destination), Type::RAW, Some(Protocol::TCP))?;
        // A raw socket takes no port: the segment has it.
        let to = SocketAddr::new(self.destination.ip(), 0);
        socket.send_to(&self.segment(), &to.into()).context("sending a segment by a raw socket")?;
        Ok(())
    }

    /// The 20 octets of RFC 9293, section 3.1, with the checksum over the pseudo-header.
    fn segment(self) -> Vec<u8> {
        let mut segment = Vec::with_capacity(20);
        segment.extend(self.source.port().to_be_bytes());
        segment.extend(self.destination.port().to_be_bytes());
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
        let mut covered = octets(self.source.ip());
        covered.extend(octets(self.destination.ip()));
        covered.extend([0, 6, 0, 20]);
        covered.extend(&segment);
        segment[16..18].copy_from_slice(&checksum(&covered).to_be_bytes());
        segment
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    }
}

/// The Internet checksum (RFC 1071) of an even number of octets.
fn checksum(octets: &[u8]) -> u16 {
    let sum = octets.chunks_exact(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}
