//! Memory that start-up and configuration leave free goes back to the kernel: loading eBPF parses the kernel's whole BTF,
//! and each configuration all manifests, in many small pieces that the allocator would keep.

/// Gives free memory back to the kernel. Takes some hundred microseconds; not for a thread that carries connections.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes the allocator's own locks and moves no memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
