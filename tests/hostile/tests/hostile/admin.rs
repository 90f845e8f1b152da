//! Clients of the admin socket that talk nonsense, say nothing, or come in crowds. They have the right to ask; a mistake
//! of theirs must not cost the node anything either.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Daemon, DaemonOptions, Lab, Place as _, wait_until};

const PATIENCE: Duration = Duration::from_secs(60);

/// A node whose daemon is asked.
struct Asked {
    daemon: Daemon,
    lab: Lab,
}

impl Asked {
    fn start() -> Result<Self> {
        let lab = Lab::builder().node("node-a").build()?;
        let daemon = lab.start_daemon("node-a", DaemonOptions::default())?;
        Ok(Self { daemon, lab })
    }

    fn connect(&self) -> Result<UnixStream> {
        let stream = UnixStream::connect(self.lab.admin_socket("node-a")).context("connecting")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Sends this and reads what comes until the daemon ends it.
    fn say(&self, text: &[u8]) -> Result<String> {
        let mut stream = self.connect()?;
        // A daemon that has heard enough may end it before all is said.
        let _ = stream.write_all(text);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn answers(&self) -> Result<()> {
        self.lab.node("node-a")?.exec(&["mesh-ctl", "status"])?.success()?;
        Ok(())
    }
}

fn request(line: &str, body: &str) -> Vec<u8> {
    format!("{line} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[test]
fn requests_that_make_no_sense_are_refused_with_what_would() -> Result<()> {
    let asked = Asked::start()?;
    let long = format!("GET /v1/status?{} HTTP/1.1\r\n", "a".repeat(1 << 20));
    for (text, status, says) in [
        (request("GET /", ""), "404", "/ is no path of this API"),
        (request("GET /v1/workloads/", ""), "404", "one version"),
        (request("POST /v1/status", ""), "405", "GET only"),
        (request("DELETE /v1/log", ""), "405", "GET or PUT only"),
        (request("GET /v1/workloads?limit=-1", ""), "400", "limit=-1 is not a number"),
        (request("GET /v1/services?colour=red", ""), "400", "colour is not known here"),
        (request("GET /v1/flows?event=exploded", ""), "400", "event=exploded is not one of opened"),
        (request("GET /v1/why?src=a", ""), "400", "src and dst are needed"),
        (request("GET /v1/why?src=%ff&dst=b:1", ""), "400", "there is no pod or workload"),
        (request("GET /v1/authz?src=a&dst=b&who=c", ""), "400", "who is not known here"),
        (request("PUT /v1/log", "info"), "400", "send {\\\"filter\\\": \\\"info\\\"}"),
        (request("PUT /v1/log", "{\"filter\": \"loud\"}"), "400", "\\\"loud\\\" is no level"),
        (request("PUT /v1/log", &"x".repeat(5_000)), "413", "at most 4096 bytes"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), "400", ""),
        (long.into_bytes(), "", ""),
    ] {
        let answer = asked.say(&text)?;
        let shown = String::from_utf8_lossy(&text[..text.len().min(60)]).into_owned();
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status}")) || status.is_empty(), "{shown}: {answer}");
        ensure!(answer.contains(says), "{shown}: {answer}");
    }
    asked.answers()
}

#[test]
fn a_crowd_of_idle_clients_is_bounded_and_passes() -> Result<()> {
    let asked = Asked::start()?;
    let before = asked.daemon.rss()?;
    let idle = (0..2_000).map(|_| asked.connect()).collect::<Result<Vec<_>>>()?;
    let node = asked.lab.node("node-a")?;
    // Their requests' heads are waited for a few seconds; until then others are told why they are not served.
    let told = node.exec(&["mesh-ctl", "status"])?;
    let why = ["clients are served already", "broke off"];
    ensure!(told.code == Some(2) && why.iter().any(|why| told.stderr.contains(why)), "{told}");
    wait_until("the daemon to answer again", PATIENCE, || {
        Ok(node.exec(&["mesh-ctl", "status"])?.success().is_ok().then_some(()))
    })?;
    let grown = asked.daemon.rss()?.saturating_sub(before);
    ensure!(grown < 4 << 20, "2,000 idle clients cost {grown} bytes");
    drop(idle);
    ensure!(asked.daemon.metrics()?.sum("mesh_admin_requests_total", &[]) >= 1.0);
    asked.answers()
}

#[test]
fn a_client_that_does_not_read_holds_up_nobody() -> Result<()> {
    let asked = Asked::start()?;
    let mut streams = Vec::new();
    for path in ["/v1/flows", "/v1/status", "/v1/workloads"] {
        let mut stream = asked.connect()?;
        stream.write_all(&request(&format!("GET {path}"), ""))?;
        streams.push(stream);
    }
    for _ in 0..20 {
        asked.answers()?;
    }
    Ok(())
}
