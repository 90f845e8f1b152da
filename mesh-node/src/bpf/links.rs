//! Pinned links: what keeps the hooks in force while no daemon runs.
//!
//! Each start of a daemon is a generation. Links of the new one are attached and pinned beside those
//! of the last one, which go only then: at no moment is a hook missing.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use aya::programs::links::{FdLink, PinnedLink};

/// Between a link's name and its generation.
const SEPARATOR: char = '@';

/// A pin could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The link's file could not be made.
    #[error("cannot pin the link {path}: {source}; is the BPF file system writable?")]
    Pin {
        /// The file.
        path: PathBuf,
        /// Why.
        source: aya::pin::PinError,
    },
    /// The directory could not be made, listed or cleared.
    #[error("cannot change {path}: {source}")]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The pinned links of one daemon.
pub(super) struct PinnedLinks {
    dir: PathBuf,
    generation: String,
    held: BTreeMap<String, PinnedLink>,
}

impl PinnedLinks {
    /// Opens `dir`, making it if needed. `generation` tells this daemon's links from those of others.
    pub(super) fn open(dir: PathBuf, generation: String) -> Result<Self, PinError> {
        fs::create_dir_all(&dir).map_err(|source| PinError::Directory { path: dir.clone(), source })?;
        Ok(Self { dir, generation, held: BTreeMap::new() })
    }

    /// Pins a link under a name. The BPF file system allows no dots in names.
    pub(super) fn pin(&mut self, name: &str, link: FdLink) -> Result<(), PinError> {
        let path = self.dir.join(format!("{name}{SEPARATOR}{}", self.generation));
        let path = path.as_path();
        let pinned = link.pin(path).map_err(|source| PinError::Pin { path: path.into(), source })?;
        self.held.insert(name.to_owned(), pinned);
        Ok(())
    }

    /// Detaches the links whose names are chosen: this daemon's, and any that an earlier one left.
    pub(super) fn remove_all(&mut self, chosen: impl Fn(&str) -> bool) -> Result<(), PinError> {
        self.held.retain(|name, _| !chosen(name));
        self.remove_files(|stem, _| chosen(stem))
    }

    /// Detaches what earlier daemons pinned under the names for which `ours` holds.
    pub(super) fn supersede(&mut self, ours: impl Fn(&str) -> bool) -> Result<(), PinError> {
        let generation = self.generation.clone();
        self.remove_files(|stem, suffix| suffix != generation && ours(stem))
    }

    /// Undoes this daemon's pins: for a start that failed half way.
    pub(super) fn abandon(&mut self) {
        self.held.clear();
        let generation = self.generation.clone();
        // A pin that stays is superseded by the next start.
        let _ = self.remove_files(|_, suffix| suffix == generation);
    }

    fn remove_files(&self, chosen: impl Fn(&str, &str) -> bool) -> Result<(), PinError> {
        for path in list(&self.dir)? {
            let name = path.file_name().and_then(|name| name.to_str());
            let Some((stem, suffix)) = name.and_then(|name| name.rsplit_once(SEPARATOR)) else {
                continue;
            };
            if chosen(stem, suffix) {
                fs::remove_file(&path).map_err(|source| PinError::Directory { path, source })?;
            }
        }
        Ok(())
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, PinError> {
    let entries = fs::read_dir(dir).and_then(|entries| {
        let paths = entries.map(|entry| Ok(entry?.path()));
        paths.collect::<io::Result<Vec<_>>>()
    });
    entries.map_err(|source| PinError::Directory { path: dir.into(), source })
}
