//! A pod's sandbox: network namespace, cgroups named as kubelet names them, a pause process with private mounts.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::addresses::Pair;
use crate::cgroup;
use crate::netns::{Netns, Role};
use crate::network;
use crate::node::{CgroupDriver, NodeState};
use crate::place::Context;
use crate::process::Process;
use crate::state::Shared;
use crate::wait::PATIENCE;

/// A random UUID, as a Pod's `metadata.uid` is.
pub(crate) fn new_uid() -> Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    Ok(fs::read_to_string(path).with_context(|| format!("reading {path}"))?.trim().to_owned())
}

/// A random container id, 64 hexadecimal digits as containerd makes them.
fn new_container_id() -> Result<String> {
    Ok((new_uid()? + &new_uid()?).replace('-', ""))
}

/// Where kubelet puts a pod of no particular QoS, below the node's cgroup.
fn pod_cgroup(driver: CgroupDriver, uid: &str) -> PathBuf {
    match driver {
        CgroupDriver::Cgroupfs => Path::new("kubepods/besteffort").join(format!("pod{uid}")),
        CgroupDriver::Systemd => Path::new("kubepods.slice/kubepods-besteffort.slice")
            .join(format!("kubepods-besteffort-pod{}.slice", uid.replace('-', "_"))),
    }
}

fn container_cgroup(driver: CgroupDriver, id: &str) -> String {
    match driver {
        CgroupDriver::Cgroupfs => id.to_owned(),
        CgroupDriver::Systemd => format!("cri-containerd-{id}.scope"),
    }
}

/// What a new sandbox is to be.
pub(crate) struct SandboxSpec<'a> {
    /// `<namespace>.<pod>`, for names that people read.
    pub(crate) name: &'a str,
    pub(crate) uid: &'a str,
    /// The pod's own addresses; none for one in the node's network namespace.
    pub(crate) own: Option<Pair>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) hosts: &'a str,
}

/// A pod's sandbox. Removing is explicit, as it may fail.
#[derive(Debug)]
pub(crate) struct Sandbox {
    netns: Netns,
    /// The pod's own addresses and the node's end of its link; none in the node's own namespace.
    link: Option<(Pair, String)>,
    cgroup: PathBuf,
    pause: Process,
    hosts: PathBuf,
    resolver: PathBuf,
    pub(crate) container_id: String,
    pub(crate) context: Context,
}

impl Sandbox {
    pub(crate) fn create(shared: &Shared, node: &NodeState, spec: &SandboxSpec<'_>) -> Result<Self> {
        let number = shared.next_number();
        let (netns, link) = match spec.own {
            None => (node.netns.clone(), None),
            Some(own) => {
                let netns = Netns::create(format!("{}.{}.{number}", shared.id, spec.name), Role::Host)?;
                let port = format!("veth{number}");
                network::set_up_pod(&netns, &node.netns, node.number, own, &port)?;
                (netns, Some((own, port)))
            }
        };
        let directory = shared.home.join("pods").join(format!("{}.{number}", spec.name));
        fs::create_dir_all(&directory).with_context(|| format!("making {}", directory.display()))?;
        let hosts = directory.join("hosts");
        fs::write(&hosts, spec.hosts).with_context(|| format!("writing {}", hosts.display()))?;

        let cgroup = node.cgroup.join(pod_cgroup(node.driver, spec.uid));
        let container_id = new_container_id()?;
        let pause_cgroup = cgroup.join(container_cgroup(node.driver, &new_container_id()?));
        let container = cgroup.join(container_cgroup(node.driver, &container_id));
        cgroup::create(&pause_cgroup)?;
        cgroup::create(&container)?;

        let mut context = Context {
            netns: netns.path(),
            mounts: None,
            cgroup: pause_cgroup,
            env: spec.env.clone(),
            logs: shared.logs(),
            name: spec.name.to_owned(),
            outlives_owner: shared.keep,
        };
        let resolver = directory.join("resolv.conf");
        let pause = start_pause(&context, &resolver, &hosts)?;
        context.mounts = Some(PathBuf::from(format!("/proc/{}/ns/mnt", pause.id())));
        context.cgroup = container;
        Ok(Self { netns, link, cgroup, pause, hosts, resolver, container_id, context })
    }

    /// Rewrites the pod's /etc/hosts in place: the bind mount is of this very file.
    pub(crate) fn set_hosts(&self, hosts: &str) -> Result<()> {
        overwrite(&self.hosts, hosts)
    }

    /// Has the pod's programs ask this DNS server; as [`Self::set_hosts`].
    pub(crate) fn set_resolver(&self, server: IpAddr) -> Result<()> {
        overwrite(&self.resolver, &resolver_file(server))
    }

    /// Kills what runs in the pod's container; the sandbox stays.
    pub(crate) fn kill_container(&self) -> Result<()> {
        cgroup::kill(&self.context.cgroup)
    }

    /// Whether a TCP socket listens at the port, of either family, at whatever address. Sends no packet.
    pub(crate) fn listens(&self, port: u16) -> bool {
        let suffix = format!(":{port:04X}");
        ["tcp", "tcp6"].iter().any(|table| {
            let text = fs::read_to_string(format!("/proc/{}/net/{table}", self.pause.id())).unwrap_or_default();
            text.lines().any(|line| {
                let fields: Vec<_> = line.split_whitespace().take(4).collect();
                matches!(fields[..], [_, local, _, "0A"] if local.ends_with(&suffix))
            })
        })
    }

    /// Kills everything in the pod and removes its link, namespace and cgroups.
    pub(crate) fn remove(mut self, node: &NodeState) -> Result<()> {
        cgroup::remove(&self.cgroup)?;
        self.pause.kill()?;
        if let Some((own, port)) = &self.link {
            network::remove_pod(&node.netns, *own, port)?;
            self.netns.delete();
        }
        Ok(())
    }
}

/// What a pod's /etc/resolv.conf says.
fn resolver_file(server: IpAddr) -> String {
    format!("nameserver {server}\noptions timeout:1 attempts:1\n")
}

fn overwrite(path: &Path, text: &str) -> Result<()> {
    let write = || {
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

/// Starts the process that holds the pod's mounts: everything as it is here, but for /etc/hosts and /etc/resolv.conf.
fn start_pause(context: &Context, resolv: &Path, hosts: &Path) -> Result<Process> {
    let nobody = resolver_file(Ipv4Addr::LOCALHOST.into());
    fs::write(resolv, nobody).with_context(|| format!("writing {}", resolv.display()))?;
    let script = "mount --bind \"$0\" /etc/hosts && { ! test -e /etc/resolv.conf || mount --bind \"$1\" /etc/resolv.conf; } \
                  && echo mounted && exec sleep infinity";
    let (hosts, resolv) = (hosts.display().to_string(), resolv.display().to_string());
    let argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, &hosts, &resolv];
    let mut pause = context.start(&argv)?;
    pause.wait_for_line("mounted", PATIENCE)?;
    Ok(pause)
}
