//! One connection after another, at every moment, for as long as a test goes on.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use mesh_lab::Place;

use crate::{PATIENCE, inside};

/// How long one connection may take for all that it does.
const LIMIT: Duration = Duration::from_secs(15);

/// Connects to an echo server, sends a line, reads it back, and begins again.
#[derive(Debug)]
pub struct Dialler {
    to: SocketAddr,
    line: String,
    stop: AtomicBool,
}

/// What became of a [`Dialler`]'s connections.
#[derive(Debug, Default)]
pub struct Dialled {
    /// Those whose line came back.
    pub answered: usize,
    /// What went wrong with the others.
    pub failed: Vec<String>,
}

impl Dialler {
    /// Says `line` to `to`.
    pub fn new(to: SocketAddr, line: &str) -> Self {
        Self { to, line: format!("{line}\n"), stop: AtomicBool::new(false) }
    }

    /// Dials from a place until [`Dialler::stop`].
    pub fn run(&self, place: &impl Place) -> Result<Dialled> {
        inside(place, || {
            let mut dialled = Dialled::default();
            while !self.stop.load(Ordering::Relaxed) {
                match self.dial() {
                    Ok(()) => dialled.answered += 1,
                    Err(error) => {
                        dialled.failed.push(error.to_string());
                        // Not a million of them where nothing is to be had.
                        std::thread::sleep(Duration::from_millis(1));
                    }
                }
            }
            Ok(dialled)
        })
    }

    /// Ends it after the connection at hand.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn dial(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.to, LIMIT.min(PATIENCE))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(self.line.as_bytes())?;
        let mut back = vec![0; self.line.len()];
        stream.read_exact(&mut back)?;
        if back == self.line.as_bytes() { Ok(()) } else { Err(std::io::Error::other("another line came back")) }
    }
}
