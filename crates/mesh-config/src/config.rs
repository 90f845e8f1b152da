//! What a directory of manifests means, as one immutable value with a generation.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::ordered::Ordered;
use mesh_core::policy::ROOT_NAMESPACE;
use mesh_core::{Snapshot, TrustDomain};

use crate::directory::{DirectoryError, Tree};
use crate::finding::Finding;
use crate::limits::Limits;
use crate::object::Key;
use crate::served::Served;
use crate::status::Statuses;
use crate::translate::{Changes, Translator};

/// Whose Secrets are read: those that listeners name. Gateways need them; nobody else should hold keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// None are.
    Nobodys,
    /// All gateways'.
    Everybodys,
    /// Those of the gateway that this is a replica of.
    Of {
        /// The Gateway's namespace.
        namespace: String,
        /// The Gateway's name.
        name: String,
    },
}

impl Credentials {
    /// Whether a gateway's Secrets are read.
    pub(crate) fn are_read_of(&self, (of_namespace, of_name): (&str, &str)) -> bool {
        match self {
            Self::Nobodys => false,
            Self::Everybodys => true,
            Self::Of { namespace, name } => namespace == of_namespace && name == of_name,
        }
    }
}

/// What translation needs to know of the cluster beyond its manifests.
#[derive(Debug, Clone)]
pub struct Options {
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// The DNS domain of Services, without a leading or trailing dot.
    pub cluster_domain: String,
    /// The namespace whose policies are the whole mesh's.
    pub root_namespace: String,
    /// Whose Secrets are read.
    pub credentials: Credentials,
    /// Whether what is to be said in objects' status is wanted.
    pub statuses: bool,
    /// Whether objects are served to others, who translate them as well.
    pub served: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            cluster_domain: "cluster.local".to_owned(),
            root_namespace: ROOT_NAMESPACE.to_owned(),
            credentials: Credentials::Nobodys,
            statuses: false,
            served: false,
        }
    }
}

/// The configuration in force.
#[derive(Debug, Clone)]
pub struct Config {
    /// The cluster's model.
    pub snapshot: Arc<Snapshot>,
    /// What is wrong or worth knowing, by place.
    pub findings: Arc<[Finding]>,
    /// Counts from 1; one more for each change of the snapshot, the findings, the statuses or what is served.
    pub generation: u64,
    /// What is different from the generation before. Who has missed one cannot go by this.
    pub changes: Arc<Changes>,
    /// What is to be said in objects' status, if it is wanted: the same value as before if nothing of it changed.
    pub statuses: Arc<Statuses>,
    /// The Secrets and ConfigMaps that the replicas of Gateways need, as far as they are read: the same value if nothing of it
    /// changed.
    pub named: Arc<NamedObjects>,
    /// The objects in force, if they are served to others.
    pub served: Ordered<Served>,
}

/// Objects of TLS by kind, namespace and name, by the Gateway whose replicas need them.
pub type NamedObjects = BTreeMap<Key, BTreeSet<(NamedKind, Key)>>;

/// A kind of which those objects are read that are named, and no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamedKind {
    /// Certificates with their keys, or roots alone.
    Secret,
    /// Roots.
    ConfigMap,
}

impl NamedKind {
    /// As Kubernetes calls it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

/// Reads a directory, or a single file, once.
///
/// # Errors
/// When the directory itself cannot be read. What is wrong inside it is a finding.
pub fn load(dir: &Path, options: &Options) -> Result<Config, DirectoryError> {
    let mut loader = Loader::new(dir.to_owned(), options.clone());
    let config = loader.load(&mut |_| {})?;
    Ok(Config::clone(&config))
}

/// Reads a directory again and again, and tells when its meaning changed.
#[derive(Debug)]
pub(crate) struct Loader {
    tree: Tree,
    translator: Translator,
}

impl Loader {
    pub(crate) fn new(dir: PathBuf, options: Options) -> Self {
        Self { tree: Tree::new(dir, Limits::of(&options)), translator: Translator::new(options) }
    }

    /// Reads for the first time; the directory has to be there. See [`Tree::refresh`] for `enter`.
    pub(crate) fn load(&mut self, enter: &mut dyn FnMut(&Path)) -> Result<Arc<Config>, DirectoryError> {
        self.tree.check()?;
        self.tree.refresh(enter, &mut self.translator);
        Ok(self.translator.publish())
    }

    /// Reads what changed. Gives the new configuration if it means something else; what cannot be read any more
    /// stays in force.
    pub(crate) fn reload(&mut self, enter: &mut dyn FnMut(&Path)) -> Option<Arc<Config>> {
        self.tree.refresh(enter, &mut self.translator);
        let before = self.translator.current().map(|config| config.generation);
        let now = self.translator.publish();
        (before != Some(now.generation)).then_some(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMESPACE: &str = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n";

    fn pod(address: &str) -> String {
        let header = "apiVersion: v1\nkind: Pod\nmetadata: {name: one, uid: u-1}\nspec: {nodeName: a}";
        format!("{NAMESPACE}---\n{header}\nstatus: {{podIP: {address}}}\n")
    }

    #[test]
    fn a_generation_is_a_change_of_meaning() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pod.yaml");
        let write = |text: String| std::fs::write(&file, text).unwrap();
        write(pod("10.0.0.1"));
        let mut loader = Loader::new(dir.path().to_owned(), Options::default());
        let first = loader.load(&mut |_| {}).unwrap();
        assert_eq!((first.generation, first.findings.len()), (1, 0));
        let mut reload = || loader.reload(&mut |_| {}).map(|config| config.generation);
        assert_eq!(reload(), None);
        write(format!("# moved down\n{}# the end\n", pod("10.0.0.1")));
        assert_eq!(reload(), None);
        write(pod("10.0.0.1").replace("{podIP: 10.0.0.1}", "{podIP: 10.0.0.1, qosClass: Burstable}"));
        assert_eq!(reload(), None);
        write(pod("10.0.0.2"));
        assert_eq!(reload(), Some(2));
        write(pod("10.0.0"));
        assert_eq!(reload(), Some(3));
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(reload(), Some(4), "the finding that the directory is away");
        assert_eq!(reload(), None);
    }
}
