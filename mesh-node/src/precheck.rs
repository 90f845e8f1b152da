//! `mesh-node precheck`: what this machine has of what the daemon needs, in the words in which a start would complain.

mod ports;

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use mesh_admin::{Found, Precheck, Requirement};

use crate::{
    args::Machine,
    bpf,
    kubelet::{FALLBACK, HostNetns, Kubelet},
};

/// Looks, prints what it found, and says by the exit code whether something is missing.
pub fn run(machine: &Machine) -> ExitCode {
    let precheck = look(machine);
    let text = match serde_json::to_string_pretty(&precheck) {
        Ok(json) if machine.json => json,
        _ => precheck.requirements.iter().map(|it| format!("{:8} {}: {}\n", it.state, it.name, it.detail)).collect(),
    };
    // A reader that has left needs no more of it.
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
    if precheck.nothing_is_missing() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn look(machine: &Machine) -> Precheck {
    let Machine { bpf_dir, cgroup_root, proc, .. } = machine;
    let found = bpf::requirements(cgroup_root.as_deref(), bpf_dir, proc);
    let cgroup = found.iter().find(|(name, _)| *name == "cgroup v2").and_then(|(_, root)| root.as_ref().ok()).cloned();
    let mut requirements: Vec<_> = found
        .into_iter()
        .map(|(name, found)| match found {
            Ok(detail) => requirement(name, Found::Ok, detail),
            Err(error) => requirement(name, Found::Missing, error.to_string()),
        })
        .collect();
    requirements.push(pod_hooks());
    if let Some(cgroup) = cgroup {
        requirements.push(connect_hooks(Path::new(&cgroup), bpf_dir));
        requirements.push(probes(machine, Path::new(&cgroup)));
    }
    requirements.extend(ports::look(proc));
    Precheck { requirements }
}

fn requirement(name: &str, state: Found, detail: impl Into<String>) -> Requirement {
    Requirement { name: name.to_owned(), state, detail: detail.into() }
}

fn pod_hooks() -> Requirement {
    let detail = match bpf::pod_hooks() {
        "tcx" => "tcx links",
        _ => {
            "clsact filters, as tcx links came with Linux 6.6 (CONFIG_NET_CLS_BPF and CONFIG_NET_SCH_INGRESS are needed)"
        }
    };
    requirement("hooks on pods' interfaces", Found::Ok, detail)
}

/// Whether kubelet's probes can be told from what else the node's processes do.
fn probes(machine: &Machine, cgroup: &Path) -> Requirement {
    const NAME: &str = "kubelet's probes";
    let host = match HostNetns::own() {
        Ok(host) => host,
        Err(error) => return requirement(NAME, Found::Missing, error.to_string()),
    };
    match Kubelet::new(machine.kubelet_cgroup.as_deref(), cgroup, &machine.proc, host).cgroup_id() {
        Ok(cgroup) => requirement(NAME, Found::Ok, format!("known by kubelet's cgroup, {cgroup}")),
        Err(error) => requirement(NAME, Found::Warning, format!("{error}; {FALLBACK}")),
    }
}

/// Who else sees connections before the mesh does.
fn connect_hooks(cgroup: &Path, bpf_dir: &Path) -> Requirement {
    const NAME: &str = "connect hooks";
    let foreign = match bpf::foreign_connect_hooks(cgroup, bpf_dir) {
        Ok(foreign) if foreign.is_empty() => return requirement(NAME, Found::Ok, "nobody else's at the cgroup's root"),
        Ok(foreign) => foreign,
        Err(error) => {
            let detail = format!("the kernel does not say who has them: {error}; ask as root");
            return requirement(NAME, Found::Missing, detail);
        }
    };
    let named: Vec<_> = foreign.iter().map(|it| format!("{} (program {} at {})", it.program, it.id, it.hook)).collect();
    let remedy = if foreign.iter().any(|it| it.program.starts_with("cil_") || it.program.starts_with("sock4_")) {
        "Cilium's socket load balancer hides Services' addresses from the mesh: set socketLB.hostNamespaceOnly=true"
    } else {
        "if they rewrite Services' addresses, the mesh sees those of endpoints in their place: keep them from pods' connections"
    };
    requirement(NAME, Found::Warning, format!("others have programs there: {}; {remedy}", named.join(", ")))
}
