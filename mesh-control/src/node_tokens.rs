//! Tokens of node agents, a file each: what stands for Kubernetes' service account tokens in directory mode.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context as _, ensure};
use aws_lc_rs::{digest, rand};
use mesh_core::NodeName;
use mesh_core::lock::UnpoisonedMutex as _;

/// Random octets of a token that is made here.
const OCTETS: usize = 32;
/// Nobody may guess a token: one that is shorter, in characters, is not taken.
const SHORTEST: usize = 32;
/// Files of tokens that are read.
const MAX_NODES: usize = 10_000;

/// Makes a token for a node and returns its file.
pub(crate) fn make(dir: &Path, node: &str) -> anyhow::Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    ensure!(!node.is_empty() && !node.starts_with('.') && node.chars().all(plain), "{node:?} is no name of a node");
    let mut octets = [0; OCTETS];
    rand::fill(&mut octets).ok().context("no random numbers")?;
    let text: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (path, new) = (dir.join(node), dir.join(format!(".{node}.new")));
    let _ = fs::remove_file(&new);
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    file.and_then(|mut file| writeln!(file, "{text}"))
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// The tokens in a directory; read again when it has changed.
pub(crate) struct NodeTokens {
    dir: PathBuf,
    known: Mutex<TokenTable>,
}

#[derive(Default)]
struct TokenTable {
    /// Changes with every file that is added, replaced or removed.
    version: Option<(i64, i64)>,
    /// By SHA-256, so that looking one up tells nothing of others by its time.
    nodes: HashMap<Vec<u8>, NodeName>,
}

impl NodeTokens {
    /// # Errors
    /// When the directory cannot be read.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        let tokens = Self { dir: dir.to_owned(), known: Mutex::default() };
        let nodes = tokens.read()?;
        ensure!(!nodes.is_empty(), "{} holds no token; make one with `mesh-control ca token`", dir.display());
        Ok(tokens)
    }

    /// Whose token this is.
    pub(crate) fn node_of(&self, token: &str) -> Option<NodeName> {
        let version = fs::metadata(&self.dir).ok().map(|dir| (dir.mtime(), dir.mtime_nsec()));
        let mut known = self.known.lock_unpoisoned();
        if known.version != version || version.is_none() {
            match self.read() {
                Ok(nodes) => *known = TokenTable { version, nodes },
                Err(error) => tracing::error!("tokens not read: {error:#}; those that were known still count"),
            }
        }
        known.nodes.get(&hashed(token)).cloned()
    }

    fn read(&self) -> anyhow::Result<HashMap<Vec<u8>, NodeName>> {
        let entries = fs::read_dir(&self.dir).with_context(|| format!("cannot read {}", self.dir.display()))?;
        let mut nodes = HashMap::new();
        for entry in entries.flatten().take(MAX_NODES) {
            let (path, name) = (entry.path(), entry.file_name());
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.') && path.is_file()) else { continue };
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            let token = text.trim();
            if token.len() < SHORTEST {
                tracing::warn!(path = %path.display(), "token not taken: it has fewer than {SHORTEST} characters");
            } else if let Some(other) = nodes.insert(hashed(token), NodeName::from(name)) {
                anyhow::bail!("nodes {name} and {other} have the same token: make another for one of them");
            }
        }
        Ok(nodes)
    }
}

fn hashed(token: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, token.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(dir: &Path, node: &str) -> String {
        let path = make(dir, node).expect("made");
        fs::read_to_string(path).expect("readable").trim().to_owned()
    }

    #[test]
    fn a_token_is_its_nodes_alone_until_it_is_replaced() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (a, b) = (token(dir.path(), "node-a"), token(dir.path(), "node-b"));
        let tokens = NodeTokens::open(dir.path()).expect("opened");
        assert_eq!(tokens.node_of(&a), Some(NodeName::from("node-a")));
        assert_eq!(tokens.node_of(&b), Some(NodeName::from("node-b")));
        assert_eq!(tokens.node_of(""), None);
        assert_eq!(tokens.node_of(&a[..63]), None);
        let new = token(dir.path(), "node-a");
        assert_eq!((tokens.node_of(&a), tokens.node_of(&new)), (None, Some(NodeName::from("node-a"))));
    }

    #[test]
    fn short_tokens_and_bad_names_are_not_taken() {
        let dir = tempfile::tempdir().expect("temporary directory");
        for name in ["", "../x", "a/b", ".hidden"] {
            make(dir.path(), name).expect_err(name);
        }
        fs::write(dir.path().join("node-a"), "secret").expect("written");
        assert!(NodeTokens::open(dir.path()).is_err());
    }
}
