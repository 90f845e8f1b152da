//! The archive: files in one folder, within a bound, with secrets left out of every one.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use tar::{Builder, Header};

use super::redact;

/// What is named at most of that which could not be read.
pub(super) const MAX_NOTES: usize = 200;
/// The largest part, in octets: one log must not take the place of all others.
const MAX_PART: usize = 8 << 20;

/// An archive that is being written.
pub(super) struct Archive {
    tar: Builder<GzEncoder<File>>,
    folder: String,
    /// Octets that may still be added.
    left: u64,
    left_out: Vec<String>,
}

impl Archive {
    /// Begins it, for its owner alone to read.
    pub(super) fn create(path: &Path, folder: &str, size: u64) -> anyhow::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("cannot write {}; --file names another", path.display()))?;
        let tar = Builder::new(GzEncoder::new(file, Compression::default()));
        Ok(Self { tar, folder: folder.to_owned(), left: size, left_out: Vec::new() })
    }

    /// Adds a text, or what it could not be read for.
    pub(super) fn text(&mut self, name: &str, text: Result<String, String>) -> anyhow::Result<()> {
        match text {
            Ok(text) => self.add(name, &redact::text(&text)),
            Err(why) => {
                self.leave_out(why);
                Ok(())
            }
        }
    }

    /// Adds a value, or what it could not be read for.
    pub(super) fn value(&mut self, name: &str, value: Result<Value, String>) -> anyhow::Result<()> {
        match value {
            Ok(mut value) => {
                redact::value(&mut value);
                self.add(name, &serde_json::to_string_pretty(&value)?)
            }
            Err(why) => {
                self.leave_out(why);
                Ok(())
            }
        }
    }

    /// Names what is not in it.
    pub(super) fn leave_out(&mut self, what: String) {
        if self.left_out.len() < MAX_NOTES {
            self.left_out.push(what);
        }
    }

    fn add(&mut self, name: &str, text: &str) -> anyhow::Result<()> {
        let mut kept = text.as_bytes();
        if kept.len() > MAX_PART {
            self.leave_out(format!("{name}: all but its last {MAX_PART} octets"));
            kept = &kept[kept.len() - MAX_PART..];
        }
        let size = kept.len() as u64;
        if size > self.left {
            self.leave_out(format!("{name}: there was no room for its {size} octets (--size)"));
            return Ok(());
        }
        self.left -= size;
        self.write(name, kept)
    }

    fn write(&mut self, name: &str, octets: &[u8]) -> anyhow::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(octets.len() as u64);
        header.set_mode(0o600);
        let path = format!("{}/{name}", self.folder);
        self.tar.append_data(&mut header, &path, octets).with_context(|| format!("writing {path} into the archive"))
    }

    /// Ends it. What is not in it, which is also written into it.
    pub(super) fn finish(mut self, since: u64) -> anyhow::Result<Vec<String>> {
        let about = json!({
            "program": concat!("mesh-ctl ", env!("CARGO_PKG_VERSION")),
            "secondsSince1970": since,
            "notInIt": self.left_out.iter().map(|what| redact::text(what)).collect::<Vec<_>>(),
        });
        self.write("about.json", serde_json::to_string_pretty(&about)?.as_bytes())?;
        let written = self.tar.into_inner().and_then(GzEncoder::finish).and_then(|mut file| file.flush());
        written.context("writing the archive's end")?;
        Ok(self.left_out)
    }
}
