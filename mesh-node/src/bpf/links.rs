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

use super::{
    link_state::{LinkState, link_state},
    precheck::is_on_bpffs,
};

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
    /// The BPF file system was unmounted.
    #[error(
        "{path} is on no BPF file system any more: mount it again (mount -t bpf bpf DIR); hooks end with the daemon"
    )]
    NoFileSystem {
        /// The directory.
        path: PathBuf,
    },
    /// The kernel does not say what has become of a link.
    #[error("cannot look at the link {path}: {source}")]
    Look {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
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

    /// Pins a link under a name, in the place of one that this daemon had pinned under it. The BPF file system allows
    /// no dots in names.
    pub(super) fn pin(&mut self, name: &str, link: FdLink) -> Result<(), PinError> {
        let path = self.path(name);
        // The new one is attached already. What was held is gone with its file.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(PinError::Directory { path, source: error });
            }
            _ => {}
        }
        let pinned = link.pin(&path).map_err(|source| PinError::Pin { path, source })?;
        self.held.insert(name.to_owned(), pinned);
        Ok(())
    }

    /// Names of this daemon's links that begin with `prefix`.
    pub(super) fn names(&self, prefix: &str) -> Vec<String> {
        self.held
            .range(prefix.to_owned()..)
            .map_while(|(name, _)| name.starts_with(prefix).then(|| name.clone()))
            .collect()
    }

    /// What has become of a link; `None` when this daemon has pinned none of the name.
    pub(super) fn state(&self, name: &str) -> Result<Option<LinkState>, PinError> {
        if !self.held.contains_key(name) {
            return Ok(None);
        }
        let path = self.path(name);
        link_state(&path).map(Some).map_err(|source| PinError::Look { path, source })
    }

    /// Makes the file of a link again that is in force and has lost it.
    pub(super) fn pin_again(&mut self, name: &str) -> Result<(), PinError> {
        // Pinning takes the link, and gives it up where it fails: it is not tried where it cannot succeed.
        if !is_on_bpffs(&self.dir) {
            return Err(PinError::NoFileSystem { path: self.dir.clone() });
        }
        fs::create_dir_all(&self.dir).map_err(|source| PinError::Directory { path: self.dir.clone(), source })?;
        match self.held.remove(name) {
            Some(link) => self.pin(name, link.into()),
            None => Ok(()),
        }
    }

    /// Lets go of this daemon's link of that name.
    pub(super) fn remove(&mut self, name: &str) -> Result<(), PinError> {
        self.remove_all(|other| other == name)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}{SEPARATOR}{}", self.generation))
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

    /// Takes a link out, which stays in force for as long as it is held, whatever becomes of its file.
    pub(super) fn take(&mut self, name: &str) -> Option<PinnedLink> {
        self.held.remove(name)
    }

    /// Lets go of every link, without their files: those are another daemon's to remove.
    pub(super) fn let_go(&mut self) {
        self.held.clear();
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
