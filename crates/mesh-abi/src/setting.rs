//! Numbers that the daemon sets and the programs read.

/// Index into the settings map.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// Until when direct connections may begin by the tables as they are (`CLOCK_MONOTONIC`, nanoseconds).
    /// The daemon renews it; afterwards every connection goes by the daemon, and so none while there is no daemon.
    DirectLease = 0,
    /// Id of the cgroup whose connections from the node's own namespace are kubelet's probes; 0: not known.
    KubeletCgroup = 1,
    /// The node's own network namespace, by its cookie, where kubelet cannot be told from its other processes: then every
    /// connection from there to a [`crate::ProbePort`] is taken for a probe. 0 where kubelet is known.
    ProbesFromNetns = 2,
}

impl Setting {
    /// Number of settings: the size of the map.
    pub const COUNT: u32 = 3;
}
