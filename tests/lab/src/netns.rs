//! Network namespaces, named as `ip netns` names them so that a person can enter them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// Where `ip netns` keeps namespaces.
pub(crate) const DIRECTORY: &str = "/run/netns";

/// What a namespace is for decides its sysctls.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Forwards between its interfaces.
    Router,
    /// Has its own traffic alone.
    Host,
}

/// A named network namespace. It stays until [`Netns::delete`].
#[derive(Clone, Debug)]
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    /// Makes the namespace and sets its sysctls, before any interface is there to inherit others.
    pub(crate) fn create(name: String, role: Role) -> Result<Self> {
        let netns = Self { name };
        fs::create_dir_all(DIRECTORY).with_context(|| format!("making {DIRECTORY}"))?;
        File::create_new(netns.path()).with_context(|| format!("making {}", netns.path().display()))?;
        on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace (unshare)")?;
            set_sysctls(role)?;
            mount(Some("/proc/thread-self/ns/net"), &netns.path(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .with_context(|| format!("mounting a network namespace at {}", netns.path().display()))
        })?;
        Ok(netns)
    }

    /// The name for `ip netns`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The file that `nsenter --net` takes.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Runs `work` on a thread inside the namespace. Programs that it starts are inside as well.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        on_own_thread(|| {
            let file = File::open(self.path()).with_context(|| format!("opening {}", self.path().display()))?;
            setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("entering {}", self.path().display()))?;
            work()
        })
    }

    /// Takes the name away; the kernel frees the namespace once no process or socket is in it.
    pub(crate) fn delete(&self) {
        delete(&self.path());
    }
}

/// Unmounts and removes a namespace's file, in other mount namespaces too. What is gone already is fine.
pub(crate) fn delete(path: &Path) {
    let _ = umount2(path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(path);
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| scope.spawn(work).join()).map_err(|_| anyhow!("a thread in a network namespace panicked"))?
}

fn set_sysctls(role: Role) -> Result<()> {
    // Duplicate address detection would hold addresses back for a second. Redirects would let pods go around the node.
    set("ipv6/conf/all/disable_ipv6", "0")?;
    for scope in ["all", "default"] {
        set(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
        set(&format!("ipv6/conf/{scope}/accept_redirects"), "0")?;
        set(&format!("ipv6/conf/{scope}/accept_ra"), "0")?;
        set(&format!("ipv4/conf/{scope}/accept_redirects"), "0")?;
        set(&format!("ipv4/conf/{scope}/rp_filter"), "0")?;
        set(&format!("ipv4/conf/{scope}/send_redirects"), "0")?;
    }
    // Where br_netfilter is loaded: rules are for what is routed, not for what a bridge passes on.
    if Path::new("/proc/sys/net/bridge").exists() {
        set("bridge/bridge-nf-call-iptables", "0")?;
        set("bridge/bridge-nf-call-ip6tables", "0")?;
    }
    if role == Role::Router {
        set("ipv4/ip_forward", "1")?;
        set("ipv6/conf/all/forwarding", "1")?;
    }
    Ok(())
}

/// Writes a sysctl of the calling thread's network namespace.
fn set(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{key}");
    fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))
}
