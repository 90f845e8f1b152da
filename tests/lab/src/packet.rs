//! Ethernet, IPv4, IPv6, TCP and UDP headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::pcap::Frame;

/// The TCP header's fields that tests look at (RFC 9293, section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSegment {
    /// Sequence number of the first octet of payload, or of the SYN.
    pub sequence: u32,
    /// The flags' octet: FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32.
    pub flags: u8,
}

impl TcpSegment {
    /// The SYN flag.
    pub fn syn(&self) -> bool {
        self.flags & 2 != 0
    }

    /// The FIN flag.
    pub fn fin(&self) -> bool {
        self.flags & 1 != 0
    }

    /// The RST flag.
    pub fn rst(&self) -> bool {
        self.flags & 4 != 0
    }
}

/// What an IP packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp(TcpSegment),
    /// UDP.
    Udp,
    /// Another protocol, by its number; the ports are 0.
    Other(u8),
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// When it was captured, after the epoch.
    pub time: Duration,
    /// Source address and port.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// The transport header.
    pub transport: Transport,
    /// What follows the transport header.
    pub payload: Vec<u8>,
}

impl Packet {
    /// Reads an Ethernet frame; none when it holds no whole IP packet.
    pub(crate) fn parse(frame: Frame<'_>) -> Option<Self> {
        let kind = u16::from_be_bytes(*frame.bytes.get(12..)?.first_chunk()?);
        let bytes = frame.bytes.get(14..)?;
        match kind {
            0x0800 => Self::ipv4(frame.time, bytes),
            0x86dd => Self::ipv6(frame.time, bytes),
            _ => None,
        }
    }

    fn ipv4(time: Duration, bytes: &[u8]) -> Option<Self> {
        let header_length = usize::from(bytes.first()? & 0x0f) * 4;
        let total = usize::from(u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?));
        let source = Ipv4Addr::from(*bytes.get(12..)?.first_chunk::<4>()?);
        let destination = Ipv4Addr::from(*bytes.get(16..)?.first_chunk::<4>()?);
        let payload = bytes.get(header_length..total)?;
        Self::transport(time, source.into(), destination.into(), *bytes.get(9)?, payload)
    }

    fn ipv6(time: Duration, bytes: &[u8]) -> Option<Self> {
        let length = usize::from(u16::from_be_bytes(*bytes.get(4..)?.first_chunk()?));
        let source = Ipv6Addr::from(*bytes.get(8..)?.first_chunk::<16>()?);
        let destination = Ipv6Addr::from(*bytes.get(24..)?.first_chunk::<16>()?);
        let payload = bytes.get(40..)?.get(..length)?;
        Self::transport(time, source.into(), destination.into(), *bytes.get(6)?, payload)
    }

    fn transport(time: Duration, source: IpAddr, destination: IpAddr, protocol: u8, bytes: &[u8]) -> Option<Self> {
        let port = |at: usize| Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let (transport, header_length) = match protocol {
            6 => {
                let sequence = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
                (Transport::Tcp(TcpSegment { sequence, flags: *bytes.get(13)? }), usize::from(bytes.get(12)? >> 4) * 4)
            }
            17 => (Transport::Udp, 8),
            other => (Transport::Other(other), 0),
        };
        let has_ports = !matches!(transport, Transport::Other(_));
        let ports = if has_ports { (port(0)?, port(2)?) } else { (0, 0) };
        Some(Self {
            time,
            source: SocketAddr::new(source, ports.0),
            destination: SocketAddr::new(destination, ports.1),
            transport,
            payload: bytes.get(header_length..)?.to_vec(),
        })
    }

    /// The TCP header, if it is a TCP segment.
    pub fn tcp(&self) -> Option<TcpSegment> {
        match self.transport {
            Transport::Tcp(segment) => Some(segment),
            _ => None,
        }
    }
}
