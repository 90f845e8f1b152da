//! Enrolled pods.

/// One enrolled pod, found by its network-namespace cookie. Its presence is the enrolment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodRecord {
    /// IPv4 address in mapped form, big-endian words; all zero when the pod has none.
    pub v4_words_be: [u32; 4],
    /// IPv6 address, big-endian words; all zero when the pod has none.
    pub v6_words_be: [u32; 4],
}

const _: () = assert!(size_of::<PodRecord>() == 32);
