//! mesh-ctl installs the mesh by the chart that it has in itself, says beforehand what is missing, and takes all of it away.

use anyhow::{Context as _, Result, ensure};
use mesh_kube_cluster::apps::{Apps, PATIENCE};
use mesh_kube_cluster::ctl::{Ctl, Said};
use mesh_kube_cluster::mesh::{Mesh, NAMESPACE, install_gateway_api};
use mesh_kube_cluster::{Cluster, Kubectl};
use mesh_lab::wait_until;
use serde_json::Value;

const TAINT: &str = "mesh.dev/agent-not-ready";

/// Takes everything away when a test ends, however it does.
struct Purged<'a>(&'a Ctl);

impl Drop for Purged<'_> {
    fn drop(&mut self) {
        // The test's own outcome is what counts.
        let _ = self.0.run(&["uninstall", "--purge"]);
    }
}

#[test]
fn mesh_ctl_installs_upgrades_and_leaves_nothing_behind() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let (kubectl, ctl) = (cluster.kubectl(), Ctl::on(&cluster)?);
    install_gateway_api(&cluster)?;
    Mesh::on(&cluster).uninstall()?;
    ctl.ok(&["uninstall", "--purge"])?;
    let before = everything(&kubectl)?;
    let _purged = Purged(&ctl);

    let rendered = ctl.ok(&["install", "--dry-run", "--set", "trustDomain=example.org"])?;
    ensure!(
        rendered.contains("--trust-domain=example.org") && rendered.contains("kind: CustomResourceDefinition"),
        "{rendered}"
    );
    // What others leave may go meanwhile: namespaces of tests before are still being taken down.
    let new: Vec<String> = everything(&kubectl)?.into_iter().filter(|it| !before.contains(it)).collect();
    ensure!(new.is_empty(), "a dry run changed the cluster: {new:?}");

    let said = ctl.run(&["install", "--wait", "--timeout", "90", "--set", "node.notReadyTaint=true"])?;
    ensure!(said.code == 0, "{said:?}{}", Mesh::on(&cluster).logs());
    let shop = Apps::new(&kubectl, "installed")?;
    shop.deploy("server", "node-b")?;
    shop.deploy("client", "node-a")?;
    ctl.ok(&["join", "installed"])?;
    let mesh = Mesh::on(&cluster);
    mesh.wait_enrolled("node-a", 1)?;
    shop.ends("client", shop.service("server")?, "ok")?;
    ctl.ok(&["waypoint", "apply", "-n", "installed", "--wait"]).with_context(|| mesh.logs())?;

    upgrades(&kubectl, &ctl, &mesh)?;
    uninstalls(&kubectl, &ctl)?;
    shop.ends("client", shop.service("server")?, "ok").context("after the mesh is gone")?;
    kubectl.run(&["-n", "installed", "delete", "gateway", "waypoint"])?;
    drop(shop);
    ctl.ok(&["uninstall", "--purge"])?;
    wait_until("everything to be gone", PATIENCE, || {
        let left: Vec<String> = everything(&kubectl)?.into_iter().filter(|it| !before.contains(it)).collect();
        Ok(left.is_empty().then_some(()))
    })
    .with_context(|| format!("{:?} is not {before:?}", everything(&kubectl)))?;
    for node in cluster.home().nodes() {
        let pins = ["find", "/sys/fs/bpf", "-mindepth", "1", "-not", "-name", "*.debug"];
        let left = cluster.on_node(node, &pins)?.output()?;
        ensure!(left.stdout.is_empty(), "{node} has pins left: {}", String::from_utf8_lossy(&left.stdout));
    }
    Ok(())
}

fn upgrades(kubectl: &Kubectl, ctl: &Ctl, mesh: &Mesh) -> Result<()> {
    // The same again, and then with another value: an upgrade that keeps the rest.
    ctl.ok(&["install", "--wait", "--timeout", "90", "--reuse-values"])?;
    ctl.ok(&["install", "--wait", "--timeout", "90", "--reuse-values", "--set", "node.log=debug"])?;
    let arguments = daemons(kubectl)?;
    ensure!(arguments.contains("--log=debug"), "{arguments}");
    ensure!(mesh.helm(&["history", "mesh", "-o", "json"])?.matches("\"revision\"").count() == 3, "three revisions");
    let control = kubectl.get(&["-n", NAMESPACE, "deployment", "mesh-control"])?.to_string();
    ensure!(control.contains("--taint-nodes-of"), "the values of the first installation are kept: {control}");
    Ok(())
}

fn uninstalls(kubectl: &Kubectl, ctl: &Ctl) -> Result<()> {
    // A node that nobody will take the taint from any more.
    kubectl.run(&["-n", NAMESPACE, "scale", "deployment/mesh-control", "--replicas=0"])?;
    kubectl.run(&[
        "-n",
        NAMESPACE,
        "wait",
        "--for=delete",
        "--timeout=60s",
        "pod",
        "-l",
        "app.kubernetes.io/name=mesh-control",
    ])?;
    kubectl.run(&["taint", "node", "node-b", &format!("{TAINT}=:NoSchedule")])?;
    let planned = ctl.ok(&["uninstall", "--dry-run"])?;
    ensure!(
        planned.contains("taint mesh.dev/agent-not-ready of node node-b") && !planned.contains("removed"),
        "{planned}"
    );
    let said = ctl.run(&["uninstall"])?;
    ensure!(said.code == 0 && said.err.contains("Secret mesh-system/mesh-ca"), "{said:?}");
    ensure!(said.err.contains("installed/waypoint"), "the Gateway that nobody runs is told of: {said:?}");
    ensure!(!is_tainted(kubectl)?, "the taint stayed");
    Ok(())
}

/// Every object that the mesh could have left, by its full name; nodes with their taints.
fn everything(kubectl: &Kubectl) -> Result<Vec<String>> {
    let kinds = "customresourcedefinitions,clusterroles,clusterrolebindings,gatewayclasses,namespaces,\
                 validatingwebhookconfigurations,priorityclasses";
    let namespaced = "all,configmaps,secrets,serviceaccounts,roles,rolebindings,leases,poddisruptionbudgets";
    let mut names: Vec<String> = kubectl.run(&["get", kinds, "-o", "name"])?.lines().map(str::to_owned).collect();
    let columns = ["-A", "-o", "custom-columns=K:.kind,S:.metadata.namespace,N:.metadata.name", "--no-headers"];
    names.extend(kubectl.run(&[&["get", namespaced], &columns[..]].concat())?.lines().map(str::to_owned));
    for node in kubectl.get(&["nodes"])?["items"].as_array().into_iter().flatten() {
        names.push(format!("{} {}", node["metadata"]["name"], node["spec"]["taints"]));
    }
    names.sort();
    Ok(names)
}

fn daemons(kubectl: &Kubectl) -> Result<String> {
    let daemons = kubectl.get(&["-n", NAMESPACE, "daemonset", "mesh-node"])?;
    Ok(daemons["spec"]["template"]["spec"]["containers"][0]["args"].to_string())
}

fn is_tainted(kubectl: &Kubectl) -> Result<bool> {
    let taints = kubectl.get(&["node", "node-b"])?["spec"]["taints"].clone();
    Ok(taints.as_array().into_iter().flatten().any(|taint| taint["key"] == TAINT))
}

#[test]
fn precheck_says_what_a_cluster_lacks_and_what_to_do() -> Result<()> {
    let cluster = Cluster::of_tests()?;
    let (kubectl, ctl) = (cluster.kubectl(), Ctl::on(&cluster)?);
    let _purged = Purged(&ctl);
    ctl.ok(&["uninstall", "--purge"])?;
    kubectl.run(&["wait", "--for=delete", "--timeout=60s", &format!("namespace/{NAMESPACE}")])?;
    let found = ctl.json(&["precheck"])?;
    ensure!(state(&found, "Kubernetes") == "ok" && state(&found, "nodes") == "ok", "{found}");
    ensure!(state(&found, "rights") == "ok" && state(&found, "images") == "ok", "{found}");

    // What is not there to be pulled.
    let said = ctl.run(&["precheck", "--set", "image.tag=none", "--set", "image.pullPolicy=Never"])?;
    ensure!(
        said.code == 1 && line(&said, "images").contains("mesh.dev/mesh-node:none is not on node-a, node-b"),
        "{said:?}"
    );
    let said = ctl.run(&["precheck", "--helm", "/nowhere/helm"])?;
    ensure!(said.code == 1 && line(&said, "Helm").contains("install Helm"), "{said:?}");
    let said = ctl.run(&["install", "--helm", "/nowhere/helm"])?;
    ensure!(said.code == 2 && said.err.contains("install Helm"), "{said:?}");

    // A namespace that lets no privileged pod in.
    kubectl.run(&["create", "namespace", NAMESPACE])?;
    kubectl.run(&["label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=baseline"])?;
    let said = ctl.run(&["precheck"])?;
    ensure!(
        said.code == 1 && line(&said, "pods' admission").contains("pod-security.kubernetes.io/enforce=privileged"),
        "{said:?}"
    );
    let said = ctl.run(&["install"])?;
    ensure!(said.code == 1 && said.err.contains("nothing was installed"), "{said:?}");
    let releases = kubectl.run(&["-n", NAMESPACE, "get", "daemonsets,secrets", "-o", "name"])?;
    ensure!(releases.is_empty(), "{releases}");
    kubectl.run(&["label", "--overwrite", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=privileged"])?;

    others_are_told_of(&kubectl, &ctl)?;
    one_without_rights_is_told_which(&cluster, &ctl)
}

/// Webhooks that nobody answers, Cilium's and Istio's parts, as the API server shows them; nothing of them has to run for that.
fn others_are_told_of(kubectl: &Kubectl, ctl: &Ctl) -> Result<()> {
    let daemon_set = |namespace: &str, name: &str| {
        format!(
            "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  selector: {{matchLabels: \
             {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    spec:\n      nodeSelector: {{no: node}}\n      \
             containers: [{{name: x, image: mesh.dev/pause:1}}]\n---\n"
        )
    };
    let manifests = [
        daemon_set("kube-system", "cilium"),
        daemon_set("kube-system", "ztunnel"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cilium-config, namespace: kube-system}\ndata: {bpf-lb-sock: \"true\"}\n---\n".to_owned(),
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: ambient, labels: {istio.io/dataplane-mode: ambient}}\n---\n".to_owned(),
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: nobody}\nwebhooks:\n\
         - name: nobody.example.org\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  \
         objectSelector: {matchLabels: {asks: nobody}}\n  \
         clientConfig: {service: {namespace: nowhere, name: nobody, path: /}}\n  \
         rules: [{apiGroups: [\"\"], apiVersions: [v1], resources: [pods], operations: [CREATE]}]\n"
            .to_owned(),
    ]
    .concat();
    kubectl.apply(&manifests)?;
    let said = ctl.run(&["precheck"]);
    let mut delete = kubectl.command(&["delete", "--ignore-not-found", "-f", "-"]);
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &manifests)?;
    delete.stdin(std::fs::File::open(file.path())?).output().context("kubectl delete")?;
    let said = said?;
    ensure!(said.code == 1, "{said:?}");
    for (name, words) in [
        ("Cilium", "socketLB.hostNamespaceOnly=true"),
        ("Istio ambient", "ambient; take the agents away"),
        ("webhooks", "nobody answers at nowhere/nobody"),
    ] {
        ensure!(line(&said, name).contains(words), "{name}: {said:?}");
    }
    Ok(())
}

fn one_without_rights_is_told_which(cluster: &Cluster, ctl: &Ctl) -> Result<()> {
    let kubectl = cluster.kubectl();
    kubectl.run(&["-n", "default", "create", "serviceaccount", "reader"])?;
    kubectl.run(&[
        "create",
        "clusterrolebinding",
        "reader",
        "--clusterrole=view",
        "--serviceaccount=default:reader",
    ])?;
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: reader}\nrules:\n\
                - {apiGroups: [\"\"], resources: [nodes], verbs: [get, list]}\n\
                - {apiGroups: [apiextensions.k8s.io, admissionregistration.k8s.io, gateway.networking.k8s.io], resources: [\"*\"], verbs: [get, list]}\n";
    kubectl.apply(role)?;
    kubectl.run(&[
        "create",
        "clusterrolebinding",
        "reader-more",
        "--clusterrole=reader",
        "--serviceaccount=default:reader",
    ])?;
    let by = reader(&kubectl);
    let said = by.and_then(|file| ctl.by(file.path().to_owned()).run(&["precheck"]));
    for object in ["clusterrolebinding/reader", "clusterrolebinding/reader-more", "clusterrole/reader"] {
        kubectl.run(&["delete", object])?;
    }
    kubectl.run(&["-n", "default", "delete", "serviceaccount", "reader"])?;
    let said = said?;
    let rights = line(&said, "rights");
    ensure!(said.code == 1 && rights.contains("missing") && rights.contains("clusterroles"), "{said:?}");
    Ok(())
}

/// A kubeconfig of one who may look.
fn reader(kubectl: &Kubectl) -> Result<tempfile::NamedTempFile> {
    let token = kubectl.run(&["-n", "default", "create", "token", "reader"])?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::copy(kubectl.kubeconfig(), file.path())?;
    let by = Kubectl::new(kubectl.command(&[]).get_program().into(), file.path());
    let user = by.run(&["config", "view", "-o", "jsonpath={.contexts[0].context.user}"])?;
    let context = by.run(&["config", "current-context"])?;
    by.run(&["config", "delete-user", &user])?;
    by.run(&["config", "set-credentials", "reader", &format!("--token={}", token.trim())])?;
    by.run(&["config", "set-context", context.trim(), "--user=reader"])?;
    Ok(file)
}

fn state(found: &Value, name: &str) -> String {
    let all = found["requirements"].as_array();
    let found = all.into_iter().flatten().find(|it| it["name"] == name);
    found.and_then(|it| it["state"].as_str()).unwrap_or_default().to_owned()
}

/// The lines of the table that are about one requirement.
fn line(said: &Said, name: &str) -> String {
    said.out.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>().join("\n")
}
