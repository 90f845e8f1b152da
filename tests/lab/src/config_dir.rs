//! The directory of manifests that node daemons watch.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::yaml;

/// A directory of manifests, each file written whole or not at all.
#[derive(Debug)]
pub(crate) struct ConfigDir {
    path: PathBuf,
    /// On the same file system, so that a rename puts a file in place.
    staging: PathBuf,
}

impl ConfigDir {
    /// Makes the directory `config` in `home`.
    pub(crate) fn create(home: &Path) -> Result<Self> {
        let dir = Self { path: home.join("config"), staging: home.join("staging") };
        for path in [&dir.path, &dir.staging] {
            fs::create_dir_all(path).with_context(|| format!("making {}", path.display()))?;
        }
        Ok(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes one object as `<name>.yaml`; leaves a file that says the same alone.
    pub(crate) fn write(&self, name: &str, object: &Value) -> Result<()> {
        self.write_text(&format!("{name}.yaml"), &yaml::document(object))
    }

    /// Puts `text` into the file, atomically.
    pub(crate) fn write_text(&self, file: &str, text: &str) -> Result<()> {
        let (staged, target) = (self.staging.join(file), self.path.join(file));
        if fs::read(&target).is_ok_and(|old| old == text.as_bytes()) {
            return Ok(());
        }
        fs::write(&staged, text).with_context(|| format!("writing {}", staged.display()))?;
        fs::rename(&staged, &target).with_context(|| format!("putting {} in place", target.display()))
    }

    /// Removes an object's file; one that is not there is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.remove_file(&format!("{name}.yaml"))
    }

    pub(crate) fn remove_file(&self, file: &str) -> Result<()> {
        let path = self.path.join(file);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}
