//! Whether anybody is in charge of the node: whoever is answers at the admin socket.

use std::{io, path::Path, time::Duration};

use tokio::{net::UnixStream, time::sleep};

/// Pause before each look.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits until nobody has answered at `admin_socket` for so many looks, one a second.
pub async fn until_vacant(admin_socket: &Path, looks: u32) {
    let mut vacant = 0;
    while vacant < looks {
        sleep(PAUSE).await;
        vacant = if is_vacant(admin_socket).await { vacant + 1 } else { 0 };
    }
}

/// Only the kernel's word that nobody listens there counts.
async fn is_vacant(admin_socket: &Path) -> bool {
    let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    UnixStream::connect(admin_socket).await.is_err_and(|error| nobody.contains(&error.kind()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn nobody_is_in_charge_where_nobody_listens() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        assert!(is_vacant(&path).await);
        let listener = UnixListener::bind(&path).unwrap();
        assert!(!is_vacant(&path).await);
        drop(listener);
        assert!(is_vacant(&path).await);
    }
}
