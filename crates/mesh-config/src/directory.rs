//! A directory tree of manifests, read again only where it changed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
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
use crate::translate::Translator;

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

/// A file, by its path below the root, and what it says.
type SaidByFile = (PathBuf, Contents);

/// What all files under a root say now, by their paths below it, and what is wrong with the tree itself.
///
/// # Errors
/// The root cannot be read.
pub(crate) fn read_once(root: &Path, limits: &Limits) -> Result<(Vec<SaidByFile>, Vec<Finding>), DirectoryError> {
    Tree::new(root.to_owned(), limits.clone()).check()?;
    let mut walk = Walk::default();
    walk.root(root, limits, &mut |_| {});
    let nothing = Contents::default();
    let read = |path: PathBuf| {
        let (_, contents) = read_file(root, &path, &nothing, limits);
        (path, contents)
    };
    Ok((walk.files.into_keys().map(read).collect(), walk.findings))
}

impl Tree {
    pub(crate) fn new(root: PathBuf, limits: Limits) -> Self {
        Self { root, limits, files: BTreeMap::new() }
    }

    /// Checks that the root can be read at all.
    pub(crate) fn check(&self) -> Result<(), DirectoryError> {
        let readable = fs::metadata(&self.root).and_then(|metadata| {
            if metadata.is_dir() { fs::read_dir(&self.root).map(drop) } else { File::open(&self.root).map(drop) }
        });
        readable.map_err(|source| DirectoryError::Read { path: self.root.clone(), source })
    }

    /// Looks at the tree again and reads what changed. `enter` is called for every directory whose changes matter,
    /// before it is looked at. The translator is told what is said that was not said before.
    pub(crate) fn refresh(&mut self, enter: &mut dyn FnMut(&Path), translator: &mut Translator) {
        let mut walk = Walk::default();
        walk.root(&self.root, &self.limits, enter);
        translator.set_tree_findings(std::mem::take(&mut walk.findings));
        let is_gone = |path: &Path| {
            !walk.files.contains_key(path) && !walk.obscured.iter().any(|obscured| path.starts_with(obscured))
        };
        for (path, file) in self.files.extract_if(.., |path, _| is_gone(path)) {
            translator.update(|| path.clone(), &file.contents, &Contents::default());
        }
        for (path, stamp) in &walk.files {
            let unchanged = |read: &ReadFile| read.stamp == Some(*stamp);
            if !self.files.get(path).is_some_and(unchanged) {
                self.read(path, translator);
            }
        }
    }

    fn read(&mut self, path: &Path, translator: &mut Translator) {
        let old = self.files.remove(path);
        let previous = old.map_or_else(Contents::default, |file| file.contents);
        let (stamp, contents) = read_file(&self.root, path, &previous, &self.limits);
        translator.update(|| path.to_owned(), &previous, &contents);
        self.files.insert(path.to_owned(), ReadFile { stamp, contents });
    }
}

/// What a file says, with what it said before in the place of what broke.
fn read_file(root: &Path, path: &Path, previous: &Contents, limits: &Limits) -> (Option<Stamp>, Contents) {
    match read_text(&absolute(root, path), limits) {
        Ok((stamp, text)) => {
            let format = format_of(path).unwrap_or(Format::Yaml);
            (stamp, Contents::update(previous, &path.into(), &text, format, limits))
        }
        Err((code, message)) => {
            let finding = Finding::new(code, Origin::file(path), message);
            (None, Contents::unreadable(previous, finding))
        }
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
            found => {
                self.visited.extend(found.map(|metadata| (metadata.dev(), metadata.ino())));
                self.directory(root, Path::new(""), 0, limits, enter);
            }
        }
    }

    /// Looks into the directory at `path`, relative to `root`. Symbolic links are followed, hidden names are not:
    /// so a mounted ConfigMap (`..data`) is read once.
    fn directory(&mut self, root: &Path, path: &Path, depth: usize, limits: &Limits, enter: &mut dyn FnMut(&Path)) {
        let absolute = root.join(path);
        enter(&absolute);
        let names = fs::read_dir(&absolute).and_then(|entries| {
            let names = entries.map(|entry| entry.map(|entry| entry.file_name()));
            names.collect::<io::Result<BTreeSet<_>>>()
        });
        let names = match names {
            Ok(names) => names,
            Err(error) => return self.unreadable(path, &error, depth),
        };
        for name in names {
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            self.entries += 1;
            if self.entries > limits.entries {
                let message = format!("more than {} files and directories", limits.entries);
                return self.obscure(Code::DirectoryTooLarge, Path::new(""), message);
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::Options;

    fn namespace(name: &str) -> String {
        format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n---\n")
    }

    /// What a fresh tree of these limits reads: the namespaces and the findings' codes.
    fn read(root: &Path, limits: &Limits) -> (Vec<String>, Vec<Code>) {
        said(&mut Tree::new(root.to_owned(), limits.clone()), &mut Translator::new(Options::default()))
    }

    fn said(tree: &mut Tree, translator: &mut Translator) -> (Vec<String>, Vec<Code>) {
        tree.refresh(&mut |_| {}, translator);
        let findings = translator.publish().findings.iter().map(|finding| finding.code).collect();
        (translator.objects().namespaces.keys().map(ToString::to_string).collect(), findings)
    }

    #[test]
    fn what_is_over_a_limit_is_a_finding_and_the_rest_is_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("1/2/3")).unwrap();
        fs::write(dir.path().join("1/2/3/deep.yaml"), namespace("deep")).unwrap();
        fs::write(dir.path().join("many.yaml"), namespace("a") + &namespace("b") + &namespace("c")).unwrap();
        fs::write(dir.path().join("large.yaml"), namespace("large") + "# and a word more\n").unwrap();
        let all = Limits::default();
        let large = namespace("large").len() as u64;
        let cases = [
            (all.clone(), vec!["a", "b", "c", "deep", "large"], vec![]),
            (Limits { depth: 2, ..all.clone() }, vec!["a", "b", "c", "large"], vec![Code::DirectoryTooLarge]),
            (Limits { documents: 2, ..all.clone() }, vec!["a", "b", "deep", "large"], vec![Code::TooManyDocuments]),
            (Limits { file_bytes: large, ..all.clone() }, vec!["deep"], vec![Code::FileTooLarge, Code::FileTooLarge]),
        ];
        for (limits, namespaces, findings) in cases {
            let expected = (namespaces.iter().map(|n| n.to_string()).collect(), findings);
            assert_eq!(read(dir.path(), &limits), expected, "{limits:?}");
        }
        let (namespaces, findings) = read(dir.path(), &Limits { entries: 1, ..all.clone() });
        assert_eq!(findings, [Code::DirectoryTooLarge]);
        assert!(namespaces.len() < 5, "{namespaces:?}");
    }

    #[test]
    fn what_grows_over_a_limit_stays_in_force_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("some.yaml");
        fs::write(&file, namespace("a") + &namespace("b")).unwrap();
        let limits = Limits { documents: 2, entries: 1, file_bytes: 1000, ..Limits::default() };
        let (mut tree, mut translator) =
            (Tree::new(dir.path().to_owned(), limits), Translator::new(Options::default()));
        assert_eq!(said(&mut tree, &mut translator), (vec!["a".to_owned(), "b".to_owned()], vec![]));
        fs::write(&file, namespace("c") + &namespace("d") + &namespace("e")).unwrap();
        let (namespaces, findings) = said(&mut tree, &mut translator);
        assert_eq!(namespaces, ["a", "b", "c", "d"]);
        assert_eq!(findings, [Code::TooManyDocuments, Code::LastGood]);
        fs::write(&file, "#".repeat(1001)).unwrap();
        let (namespaces, findings) = said(&mut tree, &mut translator);
        assert_eq!(namespaces, ["a", "b", "c", "d"]);
        assert_eq!(findings, [Code::FileTooLarge, Code::LastGood]);
    }

    #[test]
    fn hidden_and_foreign_files_are_left_alone_and_links_do_not_loop() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["one.yaml", ".hidden.yaml", "notes.txt", "yaml"] {
            fs::write(dir.path().join(name), namespace("one")).unwrap();
        }
        fs::create_dir(dir.path().join(".git")).unwrap();
        fs::write(dir.path().join(".git/two.yaml"), namespace("two")).unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        symlink(dir.path(), dir.path().join("sub/up")).unwrap();
        symlink(dir.path().join("sub"), dir.path().join("sub/self")).unwrap();
        assert_eq!(read(dir.path(), &Limits::default()), (vec!["one".to_owned()], vec![]));
    }

    #[test]
    fn a_single_file_is_a_source_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("one.yaml");
        fs::write(&file, namespace("one") + "[").unwrap();
        assert_eq!(read(&file, &Limits::default()), (vec!["one".to_owned()], vec![Code::Syntax]));
    }
}
