//! Headless Chromium, driven by its DevTools protocol over a pipe: no port, no other program.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use mesh_lab::wait_until;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::PATIENCE;

/// A browser with one page. It ends when dropped.
pub struct Browser {
    process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    session: String,
    number: u64,
    _profile: TempDir,
}

impl Browser {
    /// Starts it with an empty page of this size.
    pub fn start(width: u32, height: u32) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        // The protocol's pipe is descriptors 3 and 4: each message ends with a zero octet.
        let script = "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
                      --remote-debugging-pipe --user-data-dir=\"$0\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut process = Command::new("sh")
            .args(["-c", script])
            .arg(profile.path())
            // What it leaves when it is killed goes with the profile.
            .env("TMPDIR", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("starting chromium")?;
        let commands = process.stdin.take().context("no pipe")?;
        let answers = BufReader::new(process.stdout.take().context("no pipe")?);
        let mut browser = Self { process, commands, answers, session: String::new(), number: 0, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attached = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attached)?;
        browser.session = session["sessionId"].as_str().context("no session")?.to_owned();
        browser.resize(width, height)?;
        Ok(browser)
    }

    /// The window's size, in CSS pixels.
    pub fn resize(&mut self, width: u32, height: u32) -> Result<()> {
        let mobile = width < 600;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.call("Emulation.setDeviceMetricsOverride", metrics).map(drop)
    }

    /// Whether the reader prefers `dark` or `light`.
    pub fn prefer(&mut self, scheme: &str) -> Result<()> {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).map(drop)
    }

    /// Opens an address.
    pub fn open(&mut self, url: &str) -> Result<()> {
        self.call("Page.navigate", json!({"url": url})).map(drop)
    }

    /// What an expression of JavaScript is, in the page.
    pub fn eval(&mut self, expression: &str) -> Result<Value> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", asked)?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression}: {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, what: &str, expression: &str) -> Result<()> {
        self.wait_within(PATIENCE, what, expression)
    }

    /// The same, at most for so long.
    pub fn wait_within(&mut self, limit: Duration, what: &str, expression: &str) -> Result<()> {
        let waited = wait_until(what, limit, || Ok((self.eval(expression)? == true).then_some(())));
        let shown = self.eval("document.body?.innerText");
        waited.with_context(|| format!("{expression}; the page shows {shown:?}"))
    }

    /// Clicks at a place of the page.
    pub fn click(&mut self, x: f64, y: f64) -> Result<()> {
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event)?;
        }
        Ok(())
    }

    /// Presses a key, by the name that the page's events have.
    pub fn press(&mut self, key: &str) -> Result<()> {
        let text = match key {
            "Enter" => "\r",
            _ if key.chars().count() == 1 => key,
            _ => "",
        };
        let code = match key {
            "Enter" => 13,
            "Escape" => 27,
            "Tab" => 9,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        let mut event = json!({"type": "keyDown", "key": key, "windowsVirtualKeyCode": code});
        if !text.is_empty() {
            event["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", event)?;
        self.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": key})).map(drop)
    }

    /// A picture of what is shown, as PNG in a file.
    pub fn picture(&mut self, file: &Path) -> Result<()> {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        let text = answer["data"].as_str().context("no picture")?;
        std::fs::write(file, from_base64(text)?).with_context(|| format!("writing {}", file.display()))
    }

    fn call(&mut self, method: &str, parameters: Value) -> Result<Value> {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.commands.write_all(&bytes).context("chromium has ended")?;
        loop {
            let mut bytes = Vec::new();
            self.answers.read_until(0, &mut bytes)?;
            ensure!(bytes.pop() == Some(0), "chromium has ended: is it installed? `cargo xtask setup`");
            let answer: Value = serde_json::from_slice(&bytes)?;
            if answer["id"] == self.number {
                if !answer["error"].is_null() {
                    bail!("{method}: {}", answer["error"]);
                }
                return Ok(answer["result"].clone());
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // With its helpers, which are of its group.
        let _ = killpg(Pid::from_raw(self.process.id().cast_signed()), Signal::SIGKILL);
        let _ = self.process.wait();
    }
}

/// Octets of base64 text (RFC 4648, section 4).
fn from_base64(text: &str) -> Result<Vec<u8>> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => Ok(u32::from(c - b'A')),
        b'a'..=b'z' => Ok(u32::from(c - b'a') + 26),
        b'0'..=b'9' => Ok(u32::from(c - b'0') + 52),
        b'+' => Ok(62),
        b'/' => Ok(63),
        _ => bail!("{c} is not of base64"),
    };
    let (mut octets, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0, 0);
    for c in text.bytes().filter(|c| *c != b'=') {
        held = (held << 6) | value(c)?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            octets.push((held >> bits & 0xff) as u8);
        }
    }
    Ok(octets)
}
