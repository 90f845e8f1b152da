//! Captures on the wire and in pods.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;

use crate::lab::Lab;
use crate::netns::Netns;
use crate::packet::Packet;
use crate::pcap;
use crate::place::{Context, Place};
use crate::pod::Pod;
use crate::process::Process;
use crate::stream::{self, Stream};
use crate::tls::{self, TlsSession};
use crate::wait::{PATIENCE, wait_until};
use crate::{addresses, cgroup};

/// Begins the datagram that marks the end of a capture; the capture's number follows.
const MARKER: &str = "end of the lab's capture";

/// `-Z root`: tcpdump would otherwise give up root and be unable to write its file. Immediate mode: else it shows packets up to a
/// second late.
const TCPDUMP: [&str; 8] = ["tcpdump", "-n", "-U", "-Z", "root", "--immediate-mode", "-B", "32768"];

/// Where to capture.
#[derive(Clone, Copy, Debug)]
pub enum Tap<'a> {
    /// The node's link to the other nodes, seen from the wire.
    Wire(&'a str),
    /// The pod's `eth0`, seen from inside.
    Pod(&'a Pod),
}

impl<'a> From<&'a str> for Tap<'a> {
    fn from(node: &'a str) -> Self {
        Self::Wire(node)
    }
}

impl<'a> From<&'a Pod> for Tap<'a> {
    fn from(pod: &'a Pod) -> Self {
        Self::Pod(pod)
    }
}

/// A running tcpdump.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    file: PathBuf,
    marker: String,
    /// From where, from which address, to which the marker goes, so that it passes the tap.
    /// None: from this machine itself.
    sender: Option<Netns>,
    route: (IpAddr, SocketAddr),
}

impl Lab {
    /// Captures every packet that passes the tap from now on: a node's name, or a pod.
    pub fn capture<'a>(&self, tap: impl Into<Tap<'a>>) -> Result<Capture> {
        let shared = &self.shared;
        let number = shared.next_number();
        let cgroup = shared.cgroup.join("captures");
        cgroup::create(&cgroup)?;
        let discard = |address: IpAddr| SocketAddr::new(address, 9);
        let (netns, interface, sender, route) = match tap.into() {
            Tap::Wire(node) => {
                let node = &shared.nodes[shared.node_index(node)?];
                let own = IpAddr::from(addresses::wire().v4);
                (
                    shared.wire.path(),
                    node.port.clone(),
                    shared.wire.clone(),
                    (own, discard(addresses::node(node.number).v4.into())),
                )
            }
            Tap::Pod(pod) => {
                let node = &shared.nodes[shared.node_index(&pod.node()?)?];
                let own = IpAddr::from(addresses::pod(node.number, 1).v4);
                (pod.context()?.netns, "eth0".into(), node.netns.clone(), (own, discard(pod.ipv4())))
            }
        };
        let name = format!("capture.{number}");
        let context =
            Context { netns, mounts: None, cgroup, env: Vec::new(), logs: shared.logs(), name, outlives_owner: false };
        let file = shared.directory("captures")?.join(format!("{number}.pcap"));
        let path = file.display().to_string();
        let tcpdump = context.start(&[&TCPDUMP[..], &["-i", &interface, "-w", &path]].concat())?;
        Capture { tcpdump, file, marker: format!("{MARKER} {number};"), sender: Some(sender), route }.begun()
    }
}

impl Capture {
    /// Captures every packet that passes an interface of this machine from now on, outside any lab. The files are in `directory`; a
    /// datagram from the first address of `route`, which is this machine's, to the second has to pass the interface.
    ///
    /// # Errors
    /// When tcpdump cannot be started.
    pub fn on_machine(directory: &Path, interface: &str, route: (IpAddr, SocketAddr)) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
        let number = fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?.count();
        let file = directory.join(format!("{number}.pcap"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).args(TCPDUMP).args(["-i", interface, "-w"]).arg(&file);
        let log = directory.join(format!("{number}.tcpdump"));
        let tcpdump = Process::start(format!("tcpdump -i {interface}"), command, &log, false)?;
        Self { tcpdump, file, marker: format!("{MARKER} {interface} {number};"), sender: None, route }.begun()
    }

    fn begun(mut self) -> Result<Self> {
        self.tcpdump.wait_for_line("listening on", PATIENCE)?;
        Ok(self)
    }

    /// Ends the capture, with every packet in it that passed the tap before this call.
    pub fn stop(mut self) -> Result<Packets> {
        let (from, to) = self.route;
        let mark = || {
            let socket = UdpSocket::bind((from, 0)).with_context(|| format!("binding to {from}"))?;
            socket
                .send_to(self.marker.as_bytes(), to)
                .with_context(|| format!("sending the capture's end mark to {to}"))?;
            Ok(())
        };
        match &self.sender {
            Some(sender) => sender.run(mark)?,
            None => mark()?,
        }
        let mut searched = 0;
        let frames = wait_until("the capture to show its end mark", PATIENCE, || {
            let bytes = fs::read(&self.file).with_context(|| format!("reading {}", self.file.display()))?;
            let fresh = &bytes[searched..];
            let found = stream::contains(fresh, self.marker.as_bytes());
            searched = bytes.len().saturating_sub(self.marker.len());
            Ok(found.then_some(bytes))
        })?;
        self.tcpdump.signal(Signal::SIGINT)?;
        let output = self.tcpdump.wait(PATIENCE)?;
        output.success()?;
        let lost =
            output.stderr.lines().find_map(|line| line.strip_suffix(" packets dropped by kernel")?.trim().parse().ok());
        Packets::read(&frames, lost.unwrap_or(0))
    }

    /// The file that tcpdump writes, for a person to look at while the lab is up.
    pub fn file(&self) -> &std::path::Path {
        &self.file
    }
}

/// What a capture holds.
#[derive(Clone, Debug)]
pub struct Packets {
    packets: Vec<Packet>,
    streams: Vec<Stream>,
    lost: u64,
}

impl Packets {
    fn read(file: &[u8], lost: u64) -> Result<Self> {
        let packets: Vec<_> = pcap::read(file)?
            .into_iter()
            .filter_map(Packet::parse)
            .filter(|packet| !stream::contains(&packet.payload, MARKER.as_bytes()))
            .collect();
        let streams = stream::streams(&packets);
        Ok(Self { packets, streams, lost })
    }

    /// The IP packets in order of time.
    pub fn packets(&self) -> &[Packet] {
        &self.packets
    }

    /// How many packets the kernel dropped because tcpdump was too slow: with any, absence proves nothing.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The TCP streams, a direction each.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// Whether the needle is in a packet's payload or in a TCP stream.
    pub fn contains_plaintext(&self, needle: impl AsRef<[u8]>) -> bool {
        let needle = needle.as_ref();
        self.streams.iter().any(|stream| stream.contains(needle))
            || self.packets.iter().any(|packet| stream::contains(&packet.payload, needle))
    }

    /// The TLS sessions that began in the capture.
    pub fn tls_sessions(&self) -> Vec<TlsSession> {
        tls::sessions(&self.streams)
    }

    /// The packets to or from a port.
    pub fn at_port(&self, port: u16) -> impl Iterator<Item = &Packet> {
        self.packets.iter().filter(move |packet| packet.source.port() == port || packet.destination.port() == port)
    }
}
