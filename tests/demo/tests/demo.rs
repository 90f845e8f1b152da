//! The demonstration as a person runs it. Needs root, as everything of the lab.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const DEMO: &str = env!("CARGO_BIN_EXE_mesh-demo");

fn demo(arguments: &[&str]) -> Output {
    Command::new(DEMO).args(arguments).env("LC_ALL", "C").output().unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What is left of labs whose names begin so.
fn left_of(lab: &str) -> String {
    let script = format!("ls -d /run/netns/{lab}* /run/meshlab/{lab}* /sys/fs/cgroup/{lab}* /sys/fs/cgroup/*/{lab}*");
    text(&Command::new("sh").args(["-c", &script]).stderr(Stdio::null()).output().unwrap())
}

/// Removes what was kept also when the test fails.
struct Kept;

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = demo(&["--down"]);
    }
}

/// The line of the closing table for a step.
fn closing(text: &str, number: usize) -> Option<&str> {
    let start = format!("ok  {number} ");
    text.lines().map(str::trim).find(|line| line.starts_with(&start))
}

#[test]
fn every_step_holds_and_nothing_stays() {
    let output = demo(&[]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for number in 1..=6 {
        let line = closing(&text, number).unwrap_or_else(|| panic!("step {number} is not in the table: {text}"));
        assert!(line.ends_with(" s"), "without its time: {line}");
    }
    assert!(text.contains("All 6 steps held") && text.contains("Nothing was left behind"), "{text}");
    assert!(!text.contains('\x1b'), "colour where nobody can see it: {text}");
}

#[test]
fn the_shop_behind_a_waypoint_holds_and_nothing_stays() {
    let text = text(&demo(&["shop"]));
    assert!(text.contains("All 8 steps held") && text.contains("Nothing was left behind"), "{text}");
}

#[test]
fn a_kept_demonstration_can_be_tried_and_removed() {
    let _kept = Kept;
    let output = demo(&["--keep"]);
    let kept = text(&output);
    assert_eq!(output.status.code(), Some(0), "{kept}");
    let hint = |what: &str| {
        let mut lines = kept.lines().map(str::trim).skip_while(|line| !line.starts_with(&format!("# {what}")));
        let command = lines.nth(1).unwrap_or_else(|| panic!("no hint for {what}: {kept}"));
        let mut shell = Command::new("sh");
        // Tests run as root, where there need be no sudo.
        shell.args(["-c", &command.replace("sudo ", "")]);
        shell
    };
    let checkout = "a checkout, from the shopper's pod";
    assert!(hint("a daemon away").status().unwrap().success());
    assert!(!hint(checkout).output().unwrap().status.success(), "served without the daemon");
    let mut daemon = hint("and back").stdout(Stdio::null()).spawn().unwrap();
    let served = || Ok(hint(checkout).output()?.status.success().then_some(()));
    mesh_lab::wait_until("a checkout after the daemon's return", Duration::from_secs(20), served).unwrap();
    for (what, expected) in [
        (checkout, "\"hops\""),
        ("the same from a machine outside", "\"hops\""),
        ("who talked to whom", "istio_tcp_connections_opened_total{"),
        ("the manifests", "namespace.shop.yaml"),
        ("how a node's daemon is", "pods         "),
        ("where a connection goes", "\nallowed: "),
        ("the shop's pods", "enrolled"),
        ("connections that are open now", ""),
        ("the namespace out of the mesh", ""),
        ("and in again", ""),
    ] {
        let tried = hint(what).output().unwrap();
        assert!(tried.status.success() && text(&tried).contains(expected), "{what}: {}", text(&tried));
    }
    let removed = text(&demo(&["--down"]));
    assert!(removed.starts_with("removed meshlab-"), "{removed}");
    let lab = removed.trim().trim_start_matches("removed ");
    assert_eq!(left_of(lab), "");
    daemon.wait().unwrap();
}

#[test]
fn the_banks_services_are_called_by_their_callers_alone() {
    let output = demo(&["bank"]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("9 allowed calls answered, 63 others refused"), "{text}");
    assert!(text.contains("rules[0].from[0].source.principals: found cluster.local/ns/bank/sa/customer"), "{text}");
    assert!(text.contains("All 4 steps held") && text.contains("Nothing was left behind"), "{text}");
}

#[test]
fn what_does_not_hold_is_said_and_cleaned_up() {
    // Programs without a daemon among them.
    let programs = tempfile::tempdir().unwrap();
    for name in ["mesh-shop", "mesh-control"] {
        std::os::unix::fs::symlink(mesh_lab::binary(name).unwrap(), programs.path().join(name)).unwrap();
    }
    let output = Command::new(DEMO).env("MESH_BIN_DIR", programs.path()).env("LC_ALL", "C").output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(closing(&text, 1).is_none() && text.contains("step 2 does not hold"), "{text}");
    assert!(text.contains("mesh-node is not built") && text.contains("everything was removed again"), "{text}");
}

#[test]
fn an_interrupt_removes_everything_at_any_time() {
    for moment in ["1  Before the mesh", "2  The namespace", "4  Who talked"] {
        let mut demo =
            Command::new(DEMO).env("LC_ALL", "C").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let id = demo.id();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with(moment)), "ended before {moment}");
        assert!(Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap().success());
        let rest: Vec<String> = lines.collect();
        assert_eq!(demo.wait().unwrap().code(), Some(130), "{rest:?}");
        assert!(rest.iter().any(|line| line.contains("interrupted")), "{rest:?}");
        assert!(!rest.iter().any(|line| line.contains("does not hold")), "{rest:?}");
        assert_eq!(left_of(&format!("meshlab-{id}-")), "");
    }
}

#[test]
fn without_root_it_says_why_in_one_sentence() {
    // A place that nobody may enter, in every meaning, might hold the program.
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("mesh-demo");
    std::fs::copy(DEMO, &program).unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let output =
        Command::new("setpriv").args(["--reuid", "65534", "--clear-groups", "--"]).arg(program).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().count() == 1 && said.contains("needs root"), "{said}");
}
