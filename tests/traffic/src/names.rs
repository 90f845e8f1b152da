//! `dns` and `ask`: a resolver that has the same addresses for every name, and a question that shows who answers it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::client::Target;
use crate::outcome::{self, Failure, Outcome};
use crate::{report, socket};

/// Octets before the question (RFC 1035, section 4.1.1).
const HEADER: usize = 12;
const A: u16 = 1;
const AAAA: u16 = 28;
const OPT: u16 = 41;
/// An OPT record of a client that takes 1232 octets, up to the length of its options (RFC 6891).
const EDNS: [u8; 10] = [0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0];
/// A cookie of a client that has seen the server's (RFC 7873): its kind, its length and the two parts.
const COOKIE: [u8; 20] = [0, 10, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

#[derive(Debug, Args)]
pub(crate) struct Resolver {
    /// Address and port
    #[arg(long)]
    listen: SocketAddr,
    /// What every name has
    #[arg(long)]
    v4: Ipv4Addr,
    /// What every name has
    #[arg(long)]
    v6: Ipv6Addr,
}

impl Resolver {
    /// Answers until the process is killed; prints `asked NAME KIND` for each question.
    pub(crate) async fn run(self) -> Result<()> {
        let socket = socket::datagrams(self.listen).with_context(|| format!("binding to {}", self.listen))?;
        report::print(&format!("listening {}", socket.local_addr()?));
        let mut buffer = vec![0; 4096];
        loop {
            let (count, from) = socket.recv_from(&mut buffer).await?;
            let Some((name, kind, end)) = question(&buffer[..count]) else { continue };
            report::print(&format!("asked {name} {kind}"));
            let address: Option<IpAddr> = match kind {
                A => Some(self.v4.into()),
                AAAA => Some(self.v6.into()),
                _ => None,
            };
            let mut answer = buffer[..end].to_vec();
            answer[2] |= 0x80;
            answer[3] = 0x80;
            answer[6..HEADER].copy_from_slice(&[0, u8::from(address.is_some()), 0, 0, 0, 0]);
            if let Some(address) = address {
                answer.extend([0xc0, 0x0c]);
                answer.extend(kind.to_be_bytes());
                answer.extend([0, 1, 0, 0, 0, 0]);
                match address {
                    IpAddr::V4(address) => answer.extend([&[0, 4], &address.octets()[..]].concat()),
                    IpAddr::V6(address) => answer.extend([&[0, 16], &address.octets()[..]].concat()),
                }
            }
            socket.send_to(&answer, from).await?;
        }
    }
}

/// The name, the kind and the end of a message's question.
fn question(message: &[u8]) -> Option<(String, u16, usize)> {
    let (mut labels, mut place) = (Vec::new(), HEADER);
    loop {
        let length = usize::from(*message.get(place)?);
        place += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(message.get(place..place + length)?).into_owned());
        place += length;
    }
    let kind = u16::from_be_bytes(message.get(place..place + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, place + 4))
}

#[derive(Debug, Args)]
pub(crate) struct Ask {
    #[command(flatten)]
    target: Target,
    /// The name
    #[arg(long)]
    name: String,
    /// The kind of record, by its number
    #[arg(long, default_value_t = A)]
    kind: u16,
    /// Say that EDNS is known
    #[arg(long)]
    edns: bool,
    /// Show a cookie that the server is said to have given
    #[arg(long, requires = "edns")]
    cookie: bool,
}

impl Ask {
    /// Asks from a socket that is not connected, so that the answer's sender is seen.
    pub(crate) async fn run(self) -> (Outcome, Value) {
        let result = timeout(self.target.limit(), self.exchange()).await.unwrap_or(Err(Failure::Timeout));
        let error = result.as_ref().err().map(ToString::to_string);
        let outcome = outcome::of(&result);
        let mut report = json!({"operation": "ask", "outcome": outcome, "error": error});
        if let Ok(answer) = &result {
            report::merge(&mut report, answer);
        }
        (outcome, report)
    }

    async fn exchange(&self) -> Result<Value, Failure> {
        let to = self.target.to();
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket: UdpSocket = socket::datagrams((any, 0).into())?;
        let asked = self.message();
        socket.send_to(&asked, to).await?;
        let mut buffer = vec![0; 4096];
        let (count, from) = socket.recv_from(&mut buffer).await?;
        let answer = &buffer[..count];
        let same = count >= HEADER && answer[..2] == asked[..2];
        let Some((name, kind, end)) = question(answer).filter(|_| same) else { return Err(Failure::Mismatch(0)) };
        let (addresses, options) = records(answer, end);
        Ok(json!({
            "from": from.to_string(),
            "name": name,
            "kind": kind,
            "code": answer[3] & 0xf,
            "addresses": addresses,
            "edns": options.is_some(),
            "cookie": options.as_deref() == Some(&COOKIE),
        }))
    }

    fn message(&self) -> Vec<u8> {
        let id = (std::process::id() as u16).to_be_bytes();
        let mut message = [&id[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(self.edns)]].concat();
        for label in self.name.split('.') {
            message.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            message.extend(label.as_bytes());
        }
        message.push(0);
        message.extend(self.kind.to_be_bytes());
        message.extend([0, 1]);
        if self.edns {
            let options: &[u8] = if self.cookie { &COOKIE } else { &[] };
            message.extend(EDNS.iter().chain(&[options.len() as u8]).chain(options));
        }
        message
    }
}

/// Where the name ends that begins there: with the root's length, or a pointer (RFC 1035, section 4.1.4).
fn end_of_name(message: &[u8], mut place: usize) -> Option<usize> {
    loop {
        match usize::from(*message.get(place)?) {
            0 => return Some(place + 1),
            length @ 1..64 => place += 1 + length,
            _ => return Some(place + 2),
        }
    }
}

/// The addresses of the records after a question, and the options of the one that is OPT.
fn records(message: &[u8], mut place: usize) -> (Vec<String>, Option<Vec<u8>>) {
    let (mut addresses, mut options) = (Vec::new(), None);
    while let Some(end) = end_of_name(message, place) {
        place = end;
        let Some(fixed) = message.get(place..place + 10) else { break };
        let (kind, length) = (u16::from_be_bytes([fixed[0], fixed[1]]), u16::from_be_bytes([fixed[8], fixed[9]]));
        let Some(data) = message.get(place + 10..place + 10 + usize::from(length)) else { break };
        match kind {
            A => addresses.extend(<[u8; 4]>::try_from(data).ok().map(|octets| Ipv4Addr::from(octets).to_string())),
            AAAA => addresses.extend(<[u8; 16]>::try_from(data).ok().map(|octets| Ipv6Addr::from(octets).to_string())),
            OPT => options = Some(data.to_vec()),
            _ => {}
        }
        place += 10 + usize::from(length);
    }
    (addresses, options)
}
