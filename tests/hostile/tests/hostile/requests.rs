//! Peers with a good certificate that ask for what they shall not have.

use anyhow::{Context as _, Result, ensure};
use mesh_lab::Place as _;

use crate::siege::{Siege, expect};

#[test]
fn requests_for_anything_but_the_pods_applications_are_refused_by_status_and_reason() -> Result<()> {
    let mut siege = Siege::lay(1)?;
    let (v4, v6) = (siege.server.ipv4(), siege.server.ipv6());
    for good in [format!("{v4}:8080"), format!("[{v6}]:8080"), format!("[::ffff:{v4}]:8080")] {
        expect(&siege.run("ask", &["--authority", &good])?, "status", 200).with_context(|| good.clone())?;
    }
    let node = siege.daemon.node().ipv4();
    for (authority, status, reason) in [
        ("10.244.1.2:8080".to_owned(), 400, "bad_target"),
        (format!("{node}:15020"), 400, "bad_target"),
        ("127.0.0.1:8080".to_owned(), 400, "bad_target"),
        ("[::1]:8080".to_owned(), 400, "bad_target"),
        ("0.0.0.0:8080".to_owned(), 400, "bad_target"),
        (format!("{v4}:15001"), 400, "bad_target"),
        (format!("{v4}:15006"), 400, "bad_target"),
        (format!("{v4}:15008"), 400, "bad_target"),
        (format!("[::ffff:{v4}]:15008"), 400, "bad_target"),
        (format!("{v4}:1"), 503, "unreachable"),
    ] {
        let before = siege.refused()?;
        let report = siege.run("ask", &["--authority", &authority]).with_context(|| authority.clone())?;
        expect(&report, "status", status).with_context(|| authority.clone())?;
        siege.wait_counted(&before, &[(reason, 1)], Siege::refused).with_context(|| authority.clone())?;
    }
    let own = siege.application();
    for (method, authority, status, reason) in [
        ("GET", own.as_str(), 405, "method"),
        ("POST", own.as_str(), 405, "method"),
        ("CONNECT", "server.app:8080", 400, "authority"),
        ("CONNECT", "10.244.2.2", 400, "authority"),
        ("CONNECT", "10.244.2.2:0", 400, "authority"),
        ("CONNECT", "10.244.2.2:99999", 400, "authority"),
        ("CONNECT", "user@10.244.2.2:80", 400, "authority"),
        ("CONNECT", &format!("{}:80", "a".repeat(4000)), 400, "authority"),
    ] {
        let before = siege.rejected()?;
        let report = siege.run("ask", &["--method", method, "--authority", authority])?;
        expect(&report, "status", status).with_context(|| format!("{method} {authority}"))?;
        siege
            .wait_counted(&before, &[(reason, 1)], Siege::rejected)
            .with_context(|| format!("{method} {authority}"))?;
    }
    siege.others_are_unhurt()
}

#[test]
fn the_meshs_own_ports_are_closed_to_strangers() -> Result<()> {
    let mut siege = Siege::lay(0)?;
    for address in [siege.server.ipv4(), siege.server.ipv6()] {
        for port in [15001, 15006] {
            let before = siege.refused()?;
            let to = std::net::SocketAddr::new(address, port).to_string();
            let report = siege.outside.exec(&["mesh-traffic", "connect", "--to", &to])?.json()?;
            ensure!(report["outcome"] == "reset" || report["outcome"] == "refused", "{to}: {report}");
            siege.wait_counted(&before, &[("bad_target", 1)], Siege::refused).context(to)?;
        }
    }
    siege.old_tunnels_are_unhurt()
}

/// A way to misuse HTTP/2, and how often it is counted: once where it ends the connection.
const FLOODS: [(&str, &str, bool); 9] = [
    ("continuation", "100000", true),
    ("empty-continuation", "1000", true),
    ("huge-headers", "20", true),
    ("rapid-reset", "1000", true),
    ("ping", "100", false),
    ("settings", "100", false),
    ("empty-data", "1000", true),
    ("garbage", "1", true),
    ("window-overflow", "10", true),
];

#[test]
fn misuse_of_http2_ends_that_connection_alone_within_bounded_memory() -> Result<()> {
    let mut siege = Siege::lay(FLOODS.len())?;
    let target = siege.application();
    let idle = siege.memory()?;
    for (how, rounds, ends) in FLOODS {
        let before = siege.rejected()?;
        let report =
            siege.run("flood", &[how, "--rounds", rounds, "--target", &target]).with_context(|| how.to_owned())?;
        expect(&report, "alive", !ends).with_context(|| how.to_owned())?;
        let counted: &[_] = if ends { &[("http2", 1)] } else { &[] };
        siege.wait_counted(&before, counted, Siege::rejected).with_context(|| how.to_owned())?;
        siege.others_are_unhurt().with_context(|| how.to_owned())?;
    }
    let grown = siege.memory()?.saturating_sub(idle);
    ensure!(grown < 32, "the floods made the daemon {grown} MiB larger");
    Ok(())
}
