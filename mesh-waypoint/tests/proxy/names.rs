//! DNS of a test's own: a server for A records, and a resolver's configuration that leads to it and to no other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::process::Command;
use std::rc::Rc;

use tokio::net::UdpSocket;
use tokio::task::spawn_local;

/// What DNS says, by name. Of what is not there it says that there is no such name.
pub(crate) type Zone = Rc<RefCell<HashMap<String, Vec<Ipv4Addr>>>>;

/// Makes the server at 127.0.0.1 the resolver of this thread's mount namespace, and of programs that it starts. What is
/// returned has to be kept as long.
pub(crate) fn own_resolver() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("directory");
    let file = dir.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").expect("resolver's configuration");
    let mount = |arguments: &[&str]| {
        let status = Command::new("mount").args(arguments).status().expect("mount");
        assert!(status.success(), "mount {}", arguments.join(" "));
    };
    mount(&["--make-rprivate", "/"]);
    mount(&["--bind", file.to_str().expect("a path"), "/etc/resolv.conf"]);
    dir
}

/// Answers at port 53, for ever.
pub(crate) async fn serve() -> Zone {
    let zone = Zone::default();
    let socket = UdpSocket::bind("127.0.0.1:53").await.expect("the port of DNS");
    let known = zone.clone();
    spawn_local(async move {
        let mut packet = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut packet).await {
            let answer = answer(&packet[..length], &known.borrow());
            if let Some(answer) = answer {
                let _ = socket.send_to(&answer, peer).await;
            }
        }
    });
    zone
}

/// The answer to a question (RFC 1035, section 4.1).
fn answer(question: &[u8], zone: &HashMap<String, Vec<Ipv4Addr>>) -> Option<Vec<u8>> {
    const A: u16 = 1;
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*question.get(at)?, *question.get(at + 1)?]);
    let known = zone.get(&labels.join("."));
    let addresses: &[Ipv4Addr] = if kind == A { known.map_or(&[], Vec::as_slice) } else { &[] };
    let no_such_name = if known.is_none() { 3 } else { 0 };
    let mut answer = question.get(..2)?.to_vec();
    answer.extend([0x81, 0x80 | no_such_name, 0, 1]);
    answer.extend(u16::try_from(addresses.len()).ok()?.to_be_bytes());
    answer.extend([0; 4]);
    answer.extend(question.get(12..at + 4)?);
    for address in addresses {
        // The name of the question, class IN, no time to live.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}
