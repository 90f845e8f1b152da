//! A running `mesh-ctl dashboard`, and what a browser sees of it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use mesh_lab::binary;

use crate::Browser;

/// A running `mesh-ctl dashboard`; killed when dropped.
pub struct Page {
    process: Child,
    url: String,
}

impl Page {
    /// Serves it, of the daemons with these admin sockets and of waypoints and gateways with those.
    pub fn serve(sockets: &[PathBuf], waypoints: &[PathBuf]) -> Result<Self> {
        Self::serve_with(sockets, waypoints, &[])
    }

    /// The same, with more arguments.
    pub fn serve_with(sockets: &[PathBuf], waypoints: &[PathBuf], arguments: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary("mesh-ctl")?);
        command.arg("dashboard").args(arguments).env_remove("MESH_ADMIN_SOCKET").stdout(Stdio::piped());
        for socket in sockets {
            command.arg("--socket").arg(socket);
        }
        for waypoint in waypoints {
            command.arg("--waypoint").arg(waypoint);
        }
        let mut process = command.spawn().context("starting mesh-ctl")?;
        let mut url = String::new();
        BufReader::new(process.stdout.take().context("no output")?).read_line(&mut url)?;
        Ok(Self { process, url: url.trim().to_owned() })
    }

    /// Its whole address, with the token.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// `http://ADDRESS/` and the token.
    pub fn parts(&self) -> Result<(&str, &str)> {
        self.url.split_once("#token=").with_context(|| self.url.clone())
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where a picture goes: docs/pictures where MESH_PICTURES is set, since they differ a little from run to run.
pub fn picture(browser: &mut Browser, name: &str) -> Result<()> {
    let kept = std::env::var_os("MESH_PICTURES").is_some();
    let folder =
        if kept { Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/pictures") } else { std::env::temp_dir() };
    let file = folder.join(format!("{name}.png"));
    browser.picture(&file)?;
    assert!(std::fs::metadata(&file)?.len() > 5_000, "{} shows nothing", file.display());
    if !kept {
        std::fs::remove_file(&file)?;
    }
    Ok(())
}

/// The button of an edge that is shown in this way.
pub fn edge(from: &str, to: &str, way: &str) -> String {
    format!("document.querySelector('#edges button[data-from=\"{from}\"][data-to=\"{to}\"][data-way=\"{way}\"]')")
}

/// Waits for such an edge.
pub fn shows(browser: &mut Browser, from: &str, to: &str, way: &str) -> Result<()> {
    browser.wait(&format!("{from} to {to} as {way}"), &format!("{} !== null", edge(from, to, way)))
}
