//! Peers with a good certificate that misuse `mesh-tunnel/1`.

use anyhow::{Context as _, Result, ensure};
use mesh_lab::Place as _;

use crate::siege::{Counts, Siege, expect};

/// How the protocol is misused, what the server says first and then, and what it is counted by.
struct Case {
    how: &'static str,
    first: &'static str,
    then: &'static str,
    counted: &'static [(&'static str, u64)],
}

const VIOLATION: &[(&str, u64)] = &[("tunnel", 1)];
const MALFORMED: &[(&str, u64)] = &[("authority", 1)];

const fn case(
    how: &'static str,
    first: &'static str,
    then: &'static str,
    counted: &'static [(&'static str, u64)],
) -> Case {
    Case { how, first, then, counted }
}

const CASES: &[Case] = &[
    case("bad-tag", "end", "end", VIOLATION),
    case("long-record", "end", "end", VIOLATION),
    case("short-record", "end", "end", VIOLATION),
    case("plain-record", "end", "end", VIOLATION),
    case("half-record", "end", "end", &[]),
    case("unknown-frame", "end", "end", VIOLATION),
    case("data-first", "end", "end", VIOLATION),
    case("response", "end", "end", VIOLATION),
    case("fin-first", "end", "end", VIOLATION),
    case("no-target", "400", "200", MALFORMED),
    case("long-target", "400", "200", MALFORMED),
    case("no-text", "400", "200", MALFORMED),
    case("broken-header", "400", "200", MALFORMED),
    case("nested", "200", "reset", &[]),
    case("data-after-fin", "200", "reset", &[]),
    case("key-updates", "end", "", VIOLATION),
];

#[test]
fn misuse_of_the_direct_protocol_ends_that_connection_alone() -> Result<()> {
    let mut siege = Siege::lay(1)?;
    let target = siege.application();
    expect(&siege.run("direct", &["good", "--target", &target])?, "first", "200")?;
    for Case { how, first, then, counted } in CASES {
        let before = siege.rejected()?;
        let report = siege.run("direct", &[how, "--target", &target]).with_context(|| (*how).to_owned())?;
        expect(&report, "first", *first).with_context(|| (*how).to_owned())?;
        if !then.is_empty() {
            expect(&report, "then", *then).with_context(|| (*how).to_owned())?;
        }
        siege.wait_counted(&before, counted, Siege::rejected).with_context(|| (*how).to_owned())?;
        siege.old_tunnels_are_unhurt().with_context(|| (*how).to_owned())?;
    }
    siege.newcomers_are_served()
}

#[test]
fn direct_requests_for_anything_but_the_pods_applications_are_refused() -> Result<()> {
    let siege = Siege::lay(0)?;
    let address = siege.server.ipv4();
    for (target, status, reason) in [
        ("10.244.1.2:8080".to_owned(), "400", "bad_target"),
        ("127.0.0.1:8080".to_owned(), "400", "bad_target"),
        (format!("{address}:15006"), "400", "bad_target"),
        (format!("{address}:15008"), "400", "bad_target"),
        (format!("{address}:1"), "503", "unreachable"),
    ] {
        let before: Counts = siege.refused()?;
        let report = siege.run("direct", &["good", "--target", &target])?;
        ensure!(report["first"] == status, "{target}: {report}");
        siege.wait_counted(&before, &[(reason, 1)], Siege::refused).with_context(|| target.clone())?;
    }
    Ok(())
}
