//! What kube-proxy does for Services, as an nftables script: one of several endpoints at random, masquerade where
//! replies would not come back, refusal where there is none.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::addresses::POD_RANGES;
use crate::service::Protocol;

/// A port of a Service's address and the ready endpoints behind it, of the address's family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frontend {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: Protocol,
    pub(crate) endpoints: Vec<SocketAddr>,
}

/// Marks packets to be masqueraded, as kube-proxy does.
const MARK: &str = "0x4000";

/// The script that replaces all rules of a node by those for `frontends`.
pub(crate) fn script(frontends: &[Frontend]) -> String {
    let (mut chains, mut choose, mut refuse) = (String::new(), String::new(), String::new());
    for (number, frontend) in frontends.iter().enumerate() {
        let matches = matching(frontend);
        if frontend.endpoints.is_empty() {
            let how = if frontend.protocol == Protocol::Tcp { "reject with tcp reset" } else { "reject" };
            line(&mut refuse, &format!("{matches} {how}"));
        } else {
            chains += &service_chains(number, frontend);
            line(&mut choose, &format!("{matches} goto service-{number}"));
        }
    }
    let rules = [chains, chain("services", &choose), chain("refuse", &refuse), hooks()].concat();
    format!("table inet services\ndelete table inet services\ntable inet services {{\n{rules}}}\n")
}

fn line(text: &mut String, rule: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "    {rule}");
}

fn chain(name: &str, rules: &str) -> String {
    format!("  chain {name} {{\n{rules}  }}\n")
}

/// The `ip` or `ip6` of an address, for matches and translation.
fn family(address: &SocketAddr) -> &'static str {
    if address.is_ipv4() { "ip" } else { "ip6" }
}

fn matching(frontend: &Frontend) -> String {
    let address = &frontend.address;
    format!("{} daddr {} {} dport {}", family(address), address.ip(), frontend.protocol.lower(), address.port())
}

fn service_chains(number: usize, frontend: &Frontend) -> String {
    let mut text = String::new();
    let family = family(&frontend.address);
    for (index, endpoint) in frontend.endpoints.iter().enumerate() {
        let mut rules = String::new();
        // A pod that reaches itself through its Service would see a packet from its own address.
        line(&mut rules, &format!("{family} saddr {} meta mark set meta mark or {MARK}", endpoint.ip()));
        line(&mut rules, &format!("meta l4proto {} dnat {family} to {endpoint}", frontend.protocol.lower()));
        text += &chain(&format!("endpoint-{number}-{index}"), &rules);
    }
    let mut rules = String::new();
    let pods = POD_RANGES[usize::from(frontend.address.is_ipv6())];
    // Replies to a machine outside must come back through the node that translated.
    line(&mut rules, &format!("{family} saddr != {pods} meta mark set meta mark or {MARK}"));
    let choices: Vec<_> =
        (0..frontend.endpoints.len()).map(|index| format!("{index} : goto endpoint-{number}-{index}")).collect();
    line(&mut rules, &format!("numgen random mod {} vmap {{ {} }}", choices.len(), choices.join(", ")));
    text + &chain(&format!("service-{number}"), &rules)
}

fn hooks() -> String {
    let hook = |name: &str, kind: &str, hook: &str, priority: &str, rule: &str| {
        chain(name, &format!("    type {kind} hook {hook} priority {priority};\n    {rule}\n"))
    };
    [
        hook("prerouting", "nat", "prerouting", "-100", "jump services"),
        hook("output", "nat", "output", "-100", "jump services"),
        hook("postrouting", "nat", "postrouting", "100", &format!("meta mark & {MARK} == {MARK} masquerade")),
        hook("forward-refuse", "filter", "forward", "0", "jump refuse"),
        hook("output-refuse", "filter", "output", "0", "jump refuse"),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontend(address: &str, endpoints: &[&str]) -> Frontend {
        Frontend {
            address: address.parse().unwrap(),
            protocol: Protocol::Tcp,
            endpoints: endpoints.iter().map(|endpoint| endpoint.parse().unwrap()).collect(),
        }
    }

    #[test]
    fn endpoints_are_translated_and_absent_ones_refused() {
        let script = script(&[
            frontend("10.96.0.10:80", &["10.244.1.2:8080", "10.244.2.2:8080"]),
            frontend("[fd00:10:96::a]:80", &[]),
        ]);
        for expected in [
            "ip daddr 10.96.0.10 tcp dport 80 goto service-0",
            "numgen random mod 2 vmap { 0 : goto endpoint-0-0, 1 : goto endpoint-0-1 }",
            "dnat ip to 10.244.2.2:8080",
            "ip6 daddr fd00:10:96::a tcp dport 80 reject with tcp reset",
        ] {
            assert!(script.contains(expected), "no {expected:?} in:\n{script}");
        }
    }
}
