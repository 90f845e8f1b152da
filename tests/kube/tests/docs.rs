//! What pages of docs/ say of a cluster with the mesh, done as they say it: in one shop, where a page does not make its own.

mod pages;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result};
use mesh_docs::{Block, Page, Running, Shell};
use mesh_kube_cluster::Cluster;
use mesh_kube_cluster::apps::PATIENCE;
use mesh_kube_cluster::ctl::Ctl;
use mesh_kube_cluster::mesh::{Mesh, install_gateway_api};
use mesh_lab::wait_until;
use pages::{END, come_true, shell};
use serde_json::Value;

const RUNNER: &str = "cluster";
/// Makes the first page's shop.
const SHOP: &str = "kubectl apply -f docs/examples/shop.yaml
kubectl label --overwrite namespace shop mesh.dev/join=enabled
kubectl -n shop wait --for=condition=Available deployment --all --timeout=120s";
/// Sends what the shop's services get through a waypoint.
const WAYPOINT: &str = "mesh-ctl waypoint apply -n shop --enrol-namespace --wait";
/// Where the mesh's own policies are: the root namespace.
const ROOT: &str = "kubectl create namespace istio-system --dry-run=client -o yaml | kubectl apply -f -";
/// A customer, who looks at the cart twice a second.
const CUSTOMER: &str = "while true; do
  cart=$(kubectl -n shop get service cart -o 'jsonpath={.spec.clusterIP}')
  kubectl -n shop exec deployment/frontend -- mesh-traffic get --to $cart:80 --count 5 || true
  sleep 0.5
done";

/// Nodes renew their certificates within half a minute of a new signer, so that not all do at once.
const RENEWED: Duration = Duration::from_secs(60);

/// Where pages begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Given {
    Nothing,
    Shop,
    Waypoint,
}

impl Given {
    /// As the first of its blocks says.
    fn of(page: &Page) -> Self {
        let blocks = page.blocks();
        match blocks.iter().find(|block| block.is_run_by(RUNNER)).and_then(|block| block.word("given")) {
            Some("nothing") => Self::Nothing,
            Some("shop") => Self::Shop,
            _ => Self::Waypoint,
        }
    }

    fn make(self, shell: &Shell) -> Result<()> {
        let all = [SHOP, ROOT, WAYPOINT];
        let steps = match self {
            Self::Nothing => &all[..0],
            Self::Shop => &all[..1],
            Self::Waypoint => &all[..],
        };
        steps.iter().try_for_each(|step| shell.ends_well(step))
    }
}

#[test]
fn every_page_is_as_it_says() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    install_gateway_api(&cluster)?;
    let mesh = Mesh::installed(&cluster, &[])?;
    let _removed = Removed(shell(&cluster)?);
    let is_of_a_cluster = |page: &Page| page.blocks().iter().any(|block| block.is_run_by(RUNNER));
    let pages: Vec<Page> = Page::all().into_iter().filter(is_of_a_cluster).collect();
    let begin = |given: Given| pages.iter().filter(move |page| Given::of(page) == given);
    for page in begin(Given::Nothing).chain(begin(Given::Shop)) {
        let shell = shell(&cluster)?;
        Given::of(page).make(&shell)?;
        let shell = done(&cluster, &mesh, shell, page)?;
        if Given::of(page) == Given::Shop {
            shell.ends_well(END)?;
        }
    }
    let mut customer: Option<Running> = None;
    for page in begin(Given::Waypoint) {
        let shell = shell(&cluster)?;
        Given::Waypoint.make(&shell).with_context(|| mesh.logs())?;
        if customer.is_none() {
            customer = Some(shell.start(CUSTOMER)?);
        }
        put_away(&done(&cluster, &mesh, shell, page)?, page)?;
    }
    drop(customer);
    Ok(())
}

/// Takes away what pages have made when the test ends, however it does.
struct Removed(Shell);

impl Drop for Removed {
    fn drop(&mut self) {
        // The test's own outcome is what counts.
        let _ = self.0.ends_well(END);
        let _ = self.0.ends_well("kubectl delete namespace istio-system --ignore-not-found --timeout=60s");
    }
}

/// Does what a page says of a cluster, in its order.
fn done(cluster: &Cluster, mesh: &Mesh, mut shell: Shell, page: &Page) -> Result<Shell> {
    let mut authority = Authority { ctl: Ctl::on(cluster)?, before: BTreeSet::new() };
    let mut all = || -> Result<()> {
        for block in page.blocks() {
            if block.is("yaml") && !block.has("values") {
                cluster.kubectl().apply(&block.body)?;
            } else if block.is_run_by(RUNNER) {
                authority.begin(&shell, &block)?;
                come_true(&mut shell, &block)?;
            }
        }
        authority.end()
    };
    all().with_context(|| page.path.display().to_string()).with_context(|| mesh.logs())?;
    Ok(shell)
}

/// What nodes have of the authority, where a page replaces its root.
struct Authority {
    ctl: Ctl,
    /// The certificates' serial numbers before the next root signs.
    before: BTreeSet<String>,
}

impl Authority {
    /// Waits for what a block of a page begins with.
    fn begin(&mut self, shell: &Shell, block: &Block<'_>) -> Result<()> {
        match block.word("given") {
            Some("roots") => {
                let roots = std::fs::read_to_string(shell.directory().join("ca/root-cert.pem"))?;
                self.roots_are_trusted(roots.matches("BEGIN").count())?;
                self.before =
                    self.all(|certificate| certificate["serial"].as_str().map(str::to_owned))?.into_iter().collect();
                Ok(())
            }
            Some("day-later") => {
                wait_until("certificates to be renewed", RENEWED, || {
                    let now = self.all(|certificate| certificate["serial"].as_str().map(str::to_owned))?;
                    Ok((!now.is_empty() && now.iter().all(|serial| !self.before.contains(serial))).then_some(()))
                })?;
                shell.ends_well("find ca -type f -exec touch -d '25 hours ago' {} +")
            }
            _ => Ok(()),
        }
    }

    /// Waits until the root before is gone, where there was one.
    fn end(&self) -> Result<()> {
        if self.before.is_empty() { Ok(()) } else { self.roots_are_trusted(1) }
    }

    /// Waits until every certificate's holder trusts so many roots.
    fn roots_are_trusted(&self, count: usize) -> Result<()> {
        wait_until(&format!("{count} roots to be trusted"), PATIENCE, || {
            let trusted = self.all(|certificate| certificate["roots"].as_array().map(Vec::len))?;
            Ok((!trusted.is_empty() && trusted.iter().all(|trusted| *trusted == count)).then_some(()))
        })
    }

    /// Something of each certificate of every node.
    fn all<T>(&self, of: impl Fn(&Value) -> Option<T>) -> Result<Vec<T>> {
        let told = self.ctl.json(&["certificate", "list"])?;
        let nodes = told["nodes"].as_array().into_iter().flatten();
        let certificates = nodes.flat_map(|node| node["items"].as_array().into_iter().flatten());
        // One that is not there yet has neither.
        Ok(certificates.map(of).collect::<Option<Vec<_>>>().unwrap_or_default())
    }
}

/// Takes what a page has applied away again.
fn put_away(shell: &Shell, page: &Page) -> Result<()> {
    let blocks = page.blocks();
    let manifests: Vec<&str> =
        blocks.iter().filter(|block| block.is("yaml") && !block.has("values")).map(|block| &*block.body).collect();
    if manifests.is_empty() {
        return Ok(());
    }
    std::fs::write(shell.directory().join("page.yaml"), manifests.join("---\n"))?;
    shell.ends_well("kubectl delete --ignore-not-found -f page.yaml --timeout=60s")
}
