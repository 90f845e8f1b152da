//! Log lines of the eBPF programs, for debugging.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

/// The programs' log buffer could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The object was built without logging.
    #[error("the eBPF programs have no log: {0}")]
    Logger(#[from] aya_log::Error),
    /// The buffer could not be watched.
    #[error("cannot watch the eBPF programs' log: {0}")]
    Watch(std::io::Error),
}

/// Forwards the programs' log lines to the daemon's own log, from a task of its own.
///
/// # Errors
/// There is no log, or it cannot be watched.
pub fn forward_logs(ebpf: &mut Ebpf) -> Result<(), LogError> {
    let logger = EbpfLogger::init(ebpf)?;
    // SAFETY: the logger owns its descriptor and keeps the same one for as long as it lives.
    let registered = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) };
    let mut logger = registered.map_err(|error| LogError::Watch(error.into_parts().1))?;
    tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(())
}
