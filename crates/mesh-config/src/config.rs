//! What a directory of manifests means, as one immutable value with a generation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mesh_core::policy::ROOT_NAMESPACE;
use mesh_core::{Snapshot, TrustDomain};

use crate::directory::{DirectoryError, Tree};
use crate::finding::Finding;
use crate::limits::Limits;
use crate::object::ObjectSet;
use crate::translate::translate;

/// What translation needs to know of the cluster beyond its manifests.
#[derive(Debug, Clone)]
pub struct Options {
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// The DNS domain of Services, without a leading or trailing dot.
    pub cluster_domain: String,
    /// The namespace whose policies are the whole mesh's.
    pub root_namespace: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            cluster_domain: "cluster.local".to_owned(),
            root_namespace: ROOT_NAMESPACE.to_owned(),
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
    /// Counts from 1; one more for each change of the snapshot or the findings.
    pub generation: u64,
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
    publication: Publication,
}

/// The configuration in force, and what comes to be in its place.
#[derive(Debug)]
pub(crate) struct Publication {
    options: Options,
    current: Option<Arc<Config>>,
}

impl Publication {
    pub(crate) fn new(options: Options) -> Self {
        Self { options, current: None }
    }

    pub(crate) fn current(&self) -> Option<Arc<Config>> {
        self.current.clone()
    }

    /// What `objects` mean, as a new generation if that is something else than before.
    pub(crate) fn publish(&mut self, objects: &ObjectSet, mut findings: Vec<Finding>) -> Arc<Config> {
        let (snapshot, more) = translate(objects, &self.options);
        findings.extend(more);
        findings.sort();
        let generation = match &self.current {
            None => 1,
            Some(now) if now.findings[..] == findings[..] && *now.snapshot == snapshot => {
                return Arc::clone(now);
            }
            Some(now) => now.generation + 1,
        };
        let config = Arc::new(Config { snapshot: Arc::new(snapshot), findings: findings.into(), generation });
        self.current = Some(Arc::clone(&config));
        config
    }
}

impl Loader {
    pub(crate) fn new(dir: PathBuf, options: Options) -> Self {
        Self { tree: Tree::new(dir, Limits::default()), publication: Publication::new(options) }
    }

    /// Reads for the first time; the directory has to be there. See [`Tree::refresh`] for `enter`.
    pub(crate) fn load(&mut self, enter: &mut dyn FnMut(&Path)) -> Result<Arc<Config>, DirectoryError> {
        self.tree.check()?;
        self.tree.refresh(enter);
        Ok(self.publish())
    }

    /// Reads what changed. Gives the new configuration if it means something else; what cannot be read any more
    /// stays in force.
    pub(crate) fn reload(&mut self, enter: &mut dyn FnMut(&Path)) -> Option<Arc<Config>> {
        if !self.tree.refresh(enter) {
            return None;
        }
        let before = self.publication.current.clone();
        let now = self.publish();
        (before.map(|config| config.generation) != Some(now.generation)).then_some(now)
    }

    fn publish(&mut self) -> Arc<Config> {
        let (objects, findings) = self.tree.objects();
        self.publication.publish(&objects, findings)
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
