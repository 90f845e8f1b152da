//! Between a socket and an HTTP/2 stream.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use ::h2::{Reason, RecvStream, SendStream};
use tokio::net::TcpStream;

use super::{Broken, End, Finished, Passing, both};
use crate::buffer::{Chunk, Sizing};
use crate::hbone::H2Tunnel;
use crate::socket::{broken, finish, poll_readable, read_now, write_all};

pub(super) async fn relay(app: &TcpStream, far: H2Tunnel, passing: Passing<'_>) -> End {
    let H2Tunnel { mut send, mut recv, place: _place, closing: _, socket: _ } = far;
    let finished = Finished::default();
    let end = {
        let up = up(app, &mut send, passing, &finished.up);
        let down = down(app, &mut recv, passing, &finished.down);
        let watch = async {
            broken(app).await;
            Broken::App
        };
        both(&finished, up, down, watch).await
    };
    if end != End::Closed {
        send.send_reset(Reason::CANCEL);
    }
    end
}

/// The application's bytes into the stream, then a watch for the stream's reset. Resolves only to what broke.
async fn up(app: &TcpStream, send: &mut SendStream<Chunk>, passing: Passing<'_>, finished: &Cell<bool>) -> Broken {
    let mut sizing = Sizing::default();
    loop {
        if let Err(broken) = poll_fn(|cx| poll_input(app, send, cx)).await {
            return broken;
        }
        send.reserve_capacity(sizing.capacity());
        let Ok(capacity) = poll_fn(|cx| poll_capacity(send, cx)).await else {
            return Broken::Far;
        };
        let mut buffer = sizing.buffer();
        let asked = capacity.min(buffer.len());
        let chunk = match read_now(app, &mut buffer[..asked]) {
            Ok(None) => {
                send.reserve_capacity(0);
                continue;
            }
            Ok(Some(0)) => break,
            Ok(Some(got)) => {
                sizing.learn(asked, got);
                passing.counters.sent.fetch_add(got as u64, Ordering::Relaxed);
                passing.show_sent(&buffer[..got]);
                Chunk::new(buffer, got)
            }
            Err(_) => return Broken::App,
        };
        if send.send_data(chunk, false).is_err() {
            return Broken::Far;
        }
        // What this stream does not use now, others of the connection may need.
        send.reserve_capacity(0);
    }
    if send.send_data(Chunk::empty(), true).is_err() {
        return Broken::Far;
    }
    finished.set(true);
    // Resolves on a reset or a broken connection, never on an orderly end.
    let _ = poll_fn(|cx| send.poll_reset(cx)).await;
    Broken::Far
}

fn poll_input(app: &TcpStream, send: &mut SendStream<Chunk>, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
    if send.poll_reset(cx).is_ready() {
        return Poll::Ready(Err(Broken::Far));
    }
    poll_readable(app, cx).map_err(|_| Broken::App)
}

fn poll_capacity(send: &mut SendStream<Chunk>, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
    if send.poll_reset(cx).is_ready() {
        return Poll::Ready(Err(Broken::Far));
    }
    match send.capacity() {
        0 => {}
        capacity => return Poll::Ready(Ok(capacity)),
    }
    match send.poll_capacity(cx) {
        Poll::Ready(Some(Ok(capacity))) => Poll::Ready(Ok(capacity)),
        Poll::Ready(_) => Poll::Ready(Err(Broken::Far)),
        Poll::Pending => Poll::Pending,
    }
}

/// The stream's bytes to the application. The window opens again only for what the application's socket took.
async fn down(app: &TcpStream, recv: &mut RecvStream, passing: Passing<'_>, finished: &Cell<bool>) -> Broken {
    loop {
        match poll_fn(|cx| recv.poll_data(cx)).await {
            Some(Ok(bytes)) => {
                passing.show_received(&bytes);
                if write_all(app, &bytes).await.is_err() {
                    return Broken::App;
                }
                passing.counters.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                if recv.flow_control().release_capacity(bytes.len()).is_err() {
                    return Broken::Far;
                }
            }
            Some(Err(_)) => return Broken::Far,
            None => break,
        }
    }
    if finish(app).is_err() {
        return Broken::App;
    }
    finished.set(true);
    pending().await
}
