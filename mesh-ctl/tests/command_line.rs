//! What scripts rely on: exit codes, and what goes to which stream.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const GOOD: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n";
const WARNING: &str = "apiVersion: v1\nkind: Pood\nmetadata: {name: x}\n";
const ERROR: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: x}\nspec: 7\n";

fn mesh_ctl(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mesh-ctl")).args(arguments).output().unwrap()
}

fn with_manifest(text: &str, run: impl FnOnce(&str)) {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("input.yaml"), text).unwrap();
    run(dir.path().to_str().unwrap());
}

#[test]
fn analyze_exits_by_the_worst_finding() {
    let cases = [(GOOD, "error", 0), (WARNING, "error", 0), (WARNING, "warning", 1), (ERROR, "error", 1)];
    for (manifest, limit, code) in cases {
        with_manifest(manifest, |dir| {
            let output = mesh_ctl(&["analyze", dir, "--fail-on", limit]);
            assert_eq!(output.status.code(), Some(code), "{manifest} {output:?}");
            assert!(output.stderr.is_empty(), "{output:?}");
        });
    }
}

#[test]
fn analyze_prints_code_place_field_and_remedy() {
    with_manifest(ERROR, |dir| {
        let table = String::from_utf8(mesh_ctl(&["analyze", dir]).stdout).unwrap();
        for part in ["MESH0009", "error", "input.yaml:1", "Pod default/x", "spec:", "API reference"] {
            assert!(table.contains(part), "{part} in\n{table}");
        }
        assert!(table.ends_with("0 workloads, 0 services; 1 error, 0 warnings, 0 for information.\n"), "{table}");
        let json = mesh_ctl(&["analyze", dir, "-o", "json"]);
        assert!(json.stderr.is_empty());
        let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        let finding = &report["findings"][0];
        assert_eq!(finding["code"], "MESH0009");
        assert_eq!(finding["severity"], "error");
        assert_eq!(finding["origin"]["file"], "input.yaml");
        assert_eq!(finding["origin"]["object"]["name"], "x");
        assert_eq!(finding["field"], "spec");
        let yaml = mesh_ctl(&["analyze", dir, "-o", "yaml"]).stdout;
        let again: serde_json::Value = serde_saphyr::from_slice(&yaml).unwrap();
        assert_eq!(again, report);
    });
}

#[test]
fn what_cannot_be_done_exits_with_2_and_says_so_on_stderr_alone() {
    let cases: [&[&str]; 5] = [
        &["analyze", "/nonexistent/manifests"],
        &["analyze"],
        &["dance"],
        &["resolve", "--config", "/nonexistent", "10.0.0.1:80"],
        &["resolve", "--config", "/", "cart:80"],
    ];
    for arguments in cases {
        let output = mesh_ctl(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?} {output:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?} {output:?}");
    }
}

#[test]
fn resolve_says_where_a_connection_goes() {
    let healthy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/mesh-config/fixtures/healthy");
    let answer = |destination: &str| {
        let output = mesh_ctl(&["resolve", "--config", healthy.to_str().unwrap(), "-o", "json", destination]);
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), answer)
    };
    let (code, hbone) = answer("10.96.0.10:80");
    assert_eq!(code, Some(0));
    assert_eq!(hbone["identity"], "spiffe://cluster.local/ns/shop/sa/cart");
    assert_eq!(hbone["service"], "cart.shop.svc.cluster.local");
    let (code, outside) = answer("10.244.1.3:80");
    assert_eq!((code, &outside["transport"]), (Some(0), &"plaintext".into()));
    let (code, refused) = answer("10.96.0.10:81");
    assert_eq!(code, Some(1));
    assert!(refused["refused"].as_str().unwrap().contains("declares no TCP port 81"));
}

#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    with_manifest(&format!("{WARNING}---\n").repeat(5_000), |dir| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mesh-ctl"))
            .args(["analyze", dir])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    });
}

#[test]
fn the_version_is_the_packages() {
    let output = mesh_ctl(&["version", "--socket", "/nonexistent/admin.sock"]);
    let version = format!("mesh-ctl  {}\nmesh-node not reached: no daemon at /nonexistent/", env!("CARGO_PKG_VERSION"));
    assert!(output.stdout.starts_with(version.as_bytes()), "{output:?}");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn without_a_daemon_the_answer_is_2_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("admin.sock");
    drop(UnixListener::bind(&stale).unwrap());
    let absent = dir.path().join("absent").display().to_string();
    let stale = stale.display().to_string();
    let commands: [&[&str]; 4] = [&["status"], &["workload", "list"], &["svc", "ls"], &["log", "level", "debug"]];
    for command in commands {
        for (socket, remedy) in [(&absent, "start mesh-node"), (&stale, "has ended; start mesh-node")] {
            let output = mesh_ctl(&[command, &["--socket", socket]].concat());
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{command:?} {output:?}");
            assert!(output.stdout.is_empty() && said.contains(socket) && said.contains(remedy), "{said}");
        }
    }
}

#[test]
fn without_a_socket_and_a_kubeconfig_it_says_what_to_do() {
    if Path::new("/run/mesh/admin.sock").exists() {
        eprintln!("a daemon has run on this machine: there is a socket");
        return;
    }
    let home = tempfile::tempdir().unwrap();
    for command in [&["status"][..], &["cert", "ls"], &["flows"], &["why", "a", "b"], &["log", "level"]] {
        let mut program = Command::new(env!("CARGO_BIN_EXE_mesh-ctl"));
        program.args(command).env("HOME", home.path()).env_remove("KUBECONFIG").env_remove("MESH_ADMIN_SOCKET");
        let output = program.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{command:?} {output:?}");
        for remedy in ["--kubeconfig", "KUBECONFIG", "--socket", "node of the mesh"] {
            assert!(output.stdout.is_empty() && said.contains(remedy), "{remedy} in {said}");
        }
    }
    let output = mesh_ctl(&["status", "--kubeconfig", "/nowhere/config"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("/nowhere/config"), "{said}");
}

#[test]
fn a_daemon_that_says_nonsense_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let answers = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n[17]", "does not understand"),
        ("HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\n\r\n", "answers with 418"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "broke off"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n{", ""),
        // It ends before it has heard anything: no success, as a pipe that breaks at the other end would be.
        ("", "broke off"),
    ];
    for (answer, expected) in answers {
        let listener = listener.try_clone().unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            if !answer.is_empty() {
                assert!(client.read(&mut [0; 1024]).unwrap() > 0);
                client.write_all(answer.as_bytes()).unwrap();
            }
        });
        let output = mesh_ctl(&["status", "--socket", socket.to_str().unwrap()]);
        daemon.join().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(said.contains(socket.to_str().unwrap()) && said.contains(expected), "{said}");
    }
}

#[test]
fn completion_scripts_are_valid() {
    for (shell, check) in [("bash", "bash"), ("zsh", ""), ("fish", ""), ("elvish", ""), ("powershell", "")] {
        let output = mesh_ctl(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("analyze") && script.contains("certificate"), "{shell}: {script}");
        if !check.is_empty() {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("script");
            fs::write(&file, script).unwrap();
            assert!(Command::new(check).arg("-n").arg(file).status().unwrap().success(), "{shell}");
        }
    }
}
