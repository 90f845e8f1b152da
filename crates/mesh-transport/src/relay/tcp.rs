//! Between two plain sockets.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::TcpStream;

use super::{Broken, End, Finished, Passing, both, conclude, prepare};
use crate::buffer::Sizing;
use crate::socket::{broken, finish, poll_readable, read_now, write_all};

pub(super) async fn relay(app: &TcpStream, far: &TcpStream, passing: Passing<'_>) -> End {
    prepare(far);
    let finished = Finished::default();
    let (app_end, far_end) = ((app, Broken::App), (far, Broken::Far));
    let up = direction(app_end, far_end, (&passing.counters.sent, |bytes| passing.show_sent(bytes)), &finished.up);
    let down =
        direction(far_end, app_end, (&passing.counters.received, |bytes| passing.show_received(bytes)), &finished.down);
    let watch = async {
        tokio::select! {
            () = broken(app) => Broken::App,
            () = broken(far) => Broken::Far,
        }
    };
    let end = both(&finished, up, down, watch).await;
    if end == End::Closed {
        conclude(far);
    }
    end
}

/// Copies one way until the source's end, which it passes on. Resolves only to what broke.
async fn direction(
    (from, from_side): (&TcpStream, Broken),
    (to, to_side): (&TcpStream, Broken),
    (count, show): (&AtomicU64, impl Fn(&[u8])),
    finished: &Cell<bool>,
) -> Broken {
    let mut sizing = Sizing::default();
    loop {
        if poll_fn(|cx| poll_readable(from, cx)).await.is_err() {
            return from_side;
        }
        let mut buffer = sizing.buffer();
        match read_now(from, &mut buffer) {
            Ok(None) => {}
            Ok(Some(0)) => break,
            Ok(Some(got)) => {
                sizing.learn(buffer.len(), got);
                show(&buffer[..got]);
                if write_all(to, &buffer[..got]).await.is_err() {
                    return to_side;
                }
                count.fetch_add(got as u64, Ordering::Relaxed);
            }
            Err(_) => return from_side,
        }
    }
    if finish(to).is_err() {
        return to_side;
    }
    finished.set(true);
    pending().await
}
