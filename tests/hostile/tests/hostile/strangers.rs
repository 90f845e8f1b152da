//! Peers that get no further than the handshake.

use anyhow::{Context as _, Result, ensure};

use crate::siege::{Siege, expect};

/// An attack, how it sees its end, and the reason that it is counted by.
struct Case {
    attack: &'static [&'static str],
    ended: &'static str,
    reason: &'static str,
}

const fn case(attack: &'static [&'static str], ended: &'static str, reason: &'static str) -> Case {
    Case { attack, ended, reason }
}

/// In whatever way: who speaks no TLS understands no alert.
const CLOSED: &str = "";

const CASES: &[Case] = &[
    case(&["say", "http"], CLOSED, "not_tls"),
    case(&["say", "http2"], CLOSED, "not_tls"),
    case(&["say", "noise"], CLOSED, "not_tls"),
    case(&["say", "long-record"], CLOSED, "not_tls"),
    case(&["say", "empty-records"], CLOSED, "not_tls"),
    case(&["say", "half-hello"], "end", "handshake_aborted"),
    case(&["say", "close"], "closed by us", "handshake_aborted"),
    case(&["offer", "--tls12"], "alert ProtocolVersion", "tls_version"),
    case(&["offer", "--alpn", "http/1.1"], "alert NoApplicationProtocol", "alpn"),
    case(&["offer", "--alpn", ""], "end", "alpn"),
    case(&["offer", "--nameless"], "alert CertificateRequired", "certificate_missing"),
    case(&["offer", "--flaw", "trust-domain"], "alert CertificateUnknown", "trust_domain"),
    case(&["offer", "--flaw", "expired"], "alert CertificateExpired", "certificate_expired"),
    case(&["offer", "--flaw", "not-yet-valid"], "alert CertificateExpired", "certificate_not_yet_valid"),
    case(&["offer", "--flaw", "no-uri"], "alert CertificateUnknown", "uri_san_missing"),
    case(&["offer", "--flaw", "two-uris"], "alert CertificateUnknown", "uri_san_several"),
    case(&["offer", "--flaw", "uri-twice"], "alert CertificateUnknown", "uri_san_several"),
    case(&["offer", "--flaw", "not-spiffe"], "alert CertificateUnknown", "uri_san_not_spiffe"),
    case(&["offer", "--flaw", "no-account"], "alert CertificateUnknown", "uri_san_not_spiffe"),
    case(&["offer", "--flaw", "self-signed"], "alert UnknownCA", "certificate_untrusted"),
    case(&["offer", "--flaw", "wrong-root"], "alert UnknownCA", "certificate_untrusted"),
    case(&["offer", "--flaw", "signed-by-workload"], "alert CertificateUnknown", "certificate_invalid"),
    case(&["offer", "--flaw", "stolen"], "alert DecryptError", "certificate_untrusted"),
    case(&["offer", "--flaw", "server-only"], "alert UnsupportedCertificate", "certificate_invalid"),
];

#[test]
fn strangers_are_refused_by_reason_and_nobody_else_is_hurt() -> Result<()> {
    let mut siege = Siege::lay(1)?;
    // The attacker's tools are good: with nothing wrong it is let in.
    expect(&siege.run("offer", &[])?, "ended", "accepted")?;
    for Case { attack, ended, reason } in CASES {
        let before = siege.rejected()?;
        let told = || attack.join(" ");
        let report = siege.run(attack[0], &attack[1..]).with_context(told)?;
        if *ended == CLOSED {
            ensure!(report["ended"] != "open", "{}: the connection stays open", told());
        } else {
            expect(&report, "ended", *ended).with_context(told)?;
        }
        siege.wait_counted(&before, &[(reason, 1)], Siege::rejected).with_context(told)?;
        siege.old_tunnels_are_unhurt().with_context(told)?;
    }
    siege.newcomers_are_served()
}
