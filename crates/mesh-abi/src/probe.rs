//! Where kubelet knocks at pods.

/// A port of a pod at which kubelet's probes or lifecycle hooks knock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProbePort {
    /// The pod's network namespace, by its cookie.
    pub netns_cookie: u64,
    /// In host order.
    pub port: u32,
    /// Always zero.
    pub padding: u32,
}

const _: () = assert!(size_of::<ProbePort>() == 16);

impl ProbePort {
    /// The port of a pod.
    #[inline(always)]
    #[must_use]
    pub const fn new(netns_cookie: u64, port: u16) -> Self {
        Self { netns_cookie, port: port as u32, padding: 0 }
    }
}
