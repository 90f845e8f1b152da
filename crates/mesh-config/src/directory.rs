//! A directory tree of manifests, read again only where it changed.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::code::Code;
use crate::document::Format;
use crate::finding::{Finding, Origin};
use crate::last_good::Contents;
use crate::limits::Limits;
use crate::object::ObjectSet;

/// Why a directory cannot be a source at all.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The directory is missing or may not be read. May be retried once that is corrected.
    #[error("cannot read the manifests in {}: {source}", path.display())]
    Read {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory cannot be watched. May be retried.
    #[error(
        "cannot watch {}: {source}; if it is a limit, raise fs.inotify.max_user_instances or fs.inotify.max_user_watches",
        path.display()
    )]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: notify::Error,
    },
    /// The runtime is shutting down.
    #[error("the runtime shuts down while {} is read", path.display())]
    Stopped {
        /// The directory.
        path: PathBuf,
    },
}

/// What the files under a root say.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    limits: Limits,
    files: BTreeMap<PathBuf, ReadFile>,
    /// About directories, as opposed to what stands in files.
    findings: Vec<Finding>,
}

#[derive(Debug)]
struct ReadFile {
    stamp: Option<Stamp>,
    contents: Contents,
}

/// What tells a changed file from an unchanged one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The files and directories found in one walk.
#[derive(Debug, Default)]
struct Walk {
    /// Paths relative to the root, with the stamp of what they lead to.
    files: BTreeMap<PathBuf, Stamp>,
    /// Paths whose contents could not be looked at.
    obscured: Vec<PathBuf>,
    findings: Vec<Finding>,
    visited: HashSet<(u64, u64)>,
    entries: usize,
}

impl Tree {
    pub(crate) fn new(root: PathBuf, limits: Limits) -> Self {
        Self { root, limits, files: BTreeMap::new(), findings: Vec::new() }
    }

    /// Checks that the root can be read at all.
    pub(crate) fn check(&self) -> Result<(), DirectoryError> {
        let readable = fs::metadata(&self.root).and_then(|metadata| {
            if metadata.is_dir() { fs::read_dir(&self.root).map(drop) } else { File::open(&self.root).map(drop) }
        });
        readable.map_err(|source| DirectoryError::Read { path: self.root.clone(), source })
    }

    /// Looks at the tree again and reads what changed. `enter` is called for every directory whose changes matter,
    /// before it is looked at. Gives whether anything is said that was not said before.
    pub(crate) fn refresh(&mut self, enter: &mut dyn FnMut(&Path)) -> bool {
        let mut walk = Walk::default();
        walk.root(&self.root, &self.limits, enter);
        let mut changed = self.findings != walk.findings;
        self.findings = std::mem::take(&mut walk.findings);
        let before = self.files.len();
        self.files.retain(|path, _| walk.files.contains_key(path) || walk.obscured.iter().any(|o| path.starts_with(o)));
        changed |= before != self.files.len();
        for (path, stamp) in &walk.files {
            let unchanged = |read: &ReadFile| read.stamp == Some(*stamp);
            if self.files.get(path).is_some_and(unchanged) {
                continue;
            }
            changed |= self.read(path);
        }
        changed
    }

    /// All objects in force, and what is wrong with the files.
    pub(crate) fn objects(&self) -> (ObjectSet, Vec<Finding>) {
        let mut objects = ObjectSet::default();
        let mut findings = self.findings.clone();
        let contents = || self.files.values().map(|file| &file.contents);
        let entries = |kept: bool| {
            let entries = contents().flat_map(|contents| &contents.entries);
            entries.filter(move |entry| entry.kept == kept)
        };
        findings.extend(contents().flat_map(|contents| contents.findings.iter().cloned()));
        findings.extend(entries(false).filter_map(|entry| objects.insert(entry)));
        for entry in entries(true) {
            // Where it stands elsewhere by now, that is the newer word.
            let _superseded = objects.insert(entry);
        }
        (objects, findings)
    }

    fn read(&mut self, path: &Path) -> bool {
        let absolute = absolute(&self.root, path);
        let old = self.files.remove(path);
        let previous = old.map_or_else(Contents::default, |file| file.contents);
        let (stamp, contents) = match read_text(&absolute, &self.limits) {
            Ok((stamp, text)) => {
                let format = format_of(path).unwrap_or(Format::Yaml);
                let contents = Contents::update(&previous, path, &text, format, &self.limits);
                (stamp, contents)
            }
            Err((code, message)) => {
                let finding = Finding::new(code, Origin::file(path), message);
                (None, Contents::unreadable(&previous, finding))
            }
        };
        let changed = contents != previous;
        self.files.insert(path.to_owned(), ReadFile { stamp, contents });
        changed
    }
}

fn absolute(root: &Path, path: &Path) -> PathBuf {
    if root.is_file() { root.to_owned() } else { root.join(path) }
}

/// The file's text, with a stamp where that can tell a later change.
fn read_text(path: &Path, limits: &Limits) -> Result<(Option<Stamp>, String), (Code, String)> {
    let unreadable = |error: io::Error| (Code::Unreadable, error.to_string());
    let file = File::open(path).map_err(unreadable)?;
    let stamp = Stamp::of(&file.metadata().map_err(unreadable)?);
    let mut bytes = Vec::new();
    file.take(limits.file_bytes + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limits.file_bytes {
        let message = format!("the file has more than {} bytes", limits.file_bytes);
        return Err((Code::FileTooLarge, message));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        (Code::Unreadable, format!("byte {at} is no UTF-8"))
    })?;
    Ok(((!stamp.is_fresh()).then_some(stamp), text))
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file changed so lately that a further change may get the same times: clocks of file systems are
    /// coarse (git calls such an entry racy).
    fn is_fresh(&self) -> bool {
        let seconds = u64::try_from(self.changed.0).unwrap_or(0);
        let changed = UNIX_EPOCH + Duration::from_secs(seconds);
        SystemTime::now().duration_since(changed).map_or(true, |age| age < Duration::from_secs(3))
    }
}

fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(Format::Yaml),
        "json" => Some(Format::Json),
        _ => None,
    }
}

impl Walk {
    fn root(&mut self, root: &Path, limits: &Limits, enter: &mut dyn FnMut(&Path)) {
        match fs::metadata(root) {
            Ok(metadata) if metadata.is_file() => {
                let name = root.file_name().map_or_else(PathBuf::new, PathBuf::from);
                self.files.insert(name, Stamp::of(&metadata));
            }
            _ => self.directory(root, Path::new(""), 0, limits, enter),
        }
    }

    /// Looks into the directory at `path`, relative to `root`. Symbolic links are followed, hidden names are not:
    /// so a mounted ConfigMap (`..data`) is read once.
    fn directory(&mut self, root: &Path, path: &Path, depth: usize, limits: &Limits, enter: &mut dyn FnMut(&Path)) {
        let absolute = root.join(path);
        enter(&absolute);
        let entries = match fs::read_dir(&absolute) {
            Ok(entries) => entries,
            Err(error) => return self.unreadable(path, &error, depth),
        };
        for entry in entries {
            let name = match entry {
                Ok(entry) => entry.file_name(),
                Err(error) => return self.unreadable(path, &error, depth),
            };
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            self.entries += 1;
            if self.entries > limits.entries {
                let message = format!("more than {} files and directories", limits.entries);
                return self.obscure(Code::DirectoryTooLarge, path, message);
            }
            self.entry(root, &path.join(name), depth, limits, enter);
        }
    }

    fn entry(&mut self, root: &Path, path: &Path, depth: usize, limits: &Limits, enter: &mut dyn FnMut(&Path)) {
        let absolute = root.join(path);
        let Ok(link) = fs::symlink_metadata(&absolute) else {
            return; // Gone since it was listed.
        };
        if link.is_symlink()
            && let Ok(target) = fs::canonicalize(&absolute)
            && let Some(parent) = target.parent()
        {
            enter(parent);
        }
        match fs::metadata(&absolute) {
            Ok(metadata) if metadata.is_dir() => {
                if !self.visited.insert((metadata.dev(), metadata.ino())) {
                    return;
                }
                if depth >= limits.depth {
                    let message = format!("more than {} directories deep", limits.depth);
                    return self.obscure(Code::DirectoryTooLarge, path, message);
                }
                self.directory(root, path, depth + 1, limits, enter);
            }
            Ok(metadata) if metadata.is_file() && format_of(path).is_some() => {
                self.files.insert(path.to_owned(), Stamp::of(&metadata));
            }
            Ok(_) => {}
            Err(_) if !link.is_symlink() => {}
            Err(_) if format_of(path).is_none() => {}
            Err(error) => self.obscure(Code::Unreadable, path, error.to_string()),
        }
    }

    fn unreadable(&mut self, path: &Path, error: &io::Error, depth: usize) {
        if depth > 0 && error.kind() == io::ErrorKind::NotFound {
            return; // Gone since it was listed, and its files with it.
        }
        self.obscure(Code::Unreadable, path, error.to_string());
    }

    fn obscure(&mut self, code: Code, path: &Path, message: String) {
        let shown = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let finding = Finding::new(code, Origin::file(shown), message);
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
        self.obscured.push(path.to_owned());
    }
}
