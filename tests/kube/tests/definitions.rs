//! Istio's kinds on a cluster without Istio: the chart's definitions take what people have, and kubectl says what it does not know.

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::apps::PATIENCE;
use mesh_kube_cluster::mesh::Mesh;
use mesh_kube_cluster::{Cluster, Kubectl};
use mesh_lab::wait_until;

const DEFINITIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/mesh/crds");
const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/mesh-config/fixtures/istio-guide");

fn installed(kubectl: &Kubectl) -> Result<()> {
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", DEFINITIONS])?;
    kubectl.run(&["wait", "--for=condition=Established", "--timeout=30s", "-f", DEFINITIONS]).map(drop)
}

#[test]
fn definitions_are_structural_and_take_the_guides_manifests() -> Result<()> {
    let kubectl = Cluster::of_tests()?.kubectl();
    installed(&kubectl)?;
    let all = kubectl.get(&["-f", DEFINITIONS])?;
    for definition in all["items"].as_array().into_iter().flatten() {
        let conditions = definition["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let wrong = conditions.iter().find(|condition| condition["type"] == "NonStructuralSchema");
        ensure!(wrong.is_none(), "{}: {wrong:?}", definition["metadata"]["name"]);
    }
    kubectl.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: production}\n")?;
    let files = std::fs::read_dir(GUIDE)?.map(|file| Ok(file?.path())).collect::<Result<Vec<_>>>()?;
    let manifests = files.iter().filter(|file| file.extension().is_some_and(|end| end == "yaml"));
    for file in manifests {
        kubectl.run(&["apply", "--dry-run=server", "--validate=strict", "-f", &file.display().to_string()])?;
    }
    Ok(())
}

#[test]
fn kubectl_names_an_unknown_field_and_explains_the_others() -> Result<()> {
    let kubectl = Cluster::of_tests()?.kubectl();
    installed(&kubectl)?;
    let wrong = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: wrong, namespace: default}\n\
                 spec: {hosts: [cart], http: [{retrys: {attempts: 1}, route: [{destination: {host: cart}}]}]}\n";
    let said = kubectl.apply(wrong).map_or_else(|error| format!("{error:#}"), |taken| format!("taken: {taken}"));
    ensure!(said.contains("retrys"), "{said}");
    let value = wrong.replace("retrys: {attempts: 1}", "retries: {attempts: often}");
    let said = kubectl.apply(&value).map_or_else(|error| format!("{error:#}"), |taken| format!("taken: {taken}"));
    ensure!(said.contains("spec.http[0].retries.attempts"), "{said}");
    let explained = kubectl.run(&["explain", "virtualservices.spec.http.retries.attempts"])?;
    ensure!(explained.contains("How often it is tried again"), "{explained}");
    Ok(())
}

#[test]
fn the_webhook_refuses_what_would_not_be_in_force() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let kubectl = cluster.kubectl();
    let mesh = Mesh::installed(&cluster, &["validation.enabled=true", "validation.failurePolicy=Fail"])?;
    let rule = |timeout: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviewed, namespace: default}}\n\
             spec: {{hosts: [cart], http: [{{timeout: {timeout}, route: [{{destination: {{host: cart}}}}]}}]}}\n"
        )
    };
    // Until the API server has been told of the roots, nothing is taken.
    wait_until("the webhook to answer", PATIENCE, || Ok(kubectl.apply(&rule("5s")).ok().map(drop)))
        .with_context(|| mesh.logs())?;
    let said =
        kubectl.apply(&rule("soon")).map_or_else(|error| format!("{error:#}"), |taken| format!("taken: {taken}"));
    ensure!(said.contains("validation.mesh.dev") && said.contains("spec.http[0].timeout"), "{said}");
    let kept = kubectl.get(&["-n", "default", "virtualservice", "reviewed"])?;
    ensure!(kept["spec"]["http"][0]["timeout"] == "5s", "{kept}");
    kubectl.run(&["-n", "default", "delete", "virtualservice", "reviewed"]).map(drop)
}
