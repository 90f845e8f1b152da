//! Between a socket and a sidecar's mutual TLS: a record for what was read at once, close_notify for an end of stream.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;

use super::{Broken, End, Finished, Passing, both};
use crate::buffer::Sizing;
use crate::record::{HEADER, Keys, MAX_CONTENT, OVERHEAD, Opened, RecordError};
use crate::session::{Input, Session};
use crate::sidecar::SidecarTls;
use crate::socket::{broken, finish, poll_readable, read_now, write_all};

pub(super) async fn relay(app: &TcpStream, far: SidecarTls, passing: Passing<'_>) -> End {
    let mut session = far.session;
    let finished = Finished::default();
    let end = {
        let Session { socket, keys, input, .. } = &mut *session;
        let (socket, keys) = (&*socket, &*keys);
        let up = async {
            if let Err(broken) = send_all(app, (socket, keys), passing).await {
                return broken;
            }
            finished.up.set(true);
            pending().await
        };
        let down = down(app, (socket, keys), input, passing, &finished.down);
        let watch = async {
            tokio::select! {
                () = broken(app) => Broken::App,
                () = broken(socket) => Broken::Far,
            }
        };
        both(&finished, up, down, watch).await
    };
    if end != End::Closed {
        // Where that fails, the peer reads an end without close_notify, which is none.
        let _ = session.socket.set_zero_linger();
    }
    end
}

/// The application's bytes to the sidecar.
async fn send_all(
    app: &TcpStream,
    (socket, keys): (&TcpStream, &RefCell<Keys>),
    passing: Passing<'_>,
) -> Result<(), Broken> {
    let far = |_: RecordError| Broken::Far;
    loop {
        poll_fn(|cx| poll_readable(app, cx)).await.map_err(|_| Broken::App)?;
        // The smallest: a record is not longer.
        let mut buffer = Sizing::default().buffer();
        let got = match read_now(app, &mut buffer[HEADER..HEADER + MAX_CONTENT]).map_err(|_| Broken::App)? {
            None => continue,
            Some(0) => break,
            Some(got) => got,
        };
        passing.show_sent(&buffer[HEADER..HEADER + got]);
        let update = keys.borrow_mut().key_update().map_err(far)?;
        if let Some(update) = update {
            write_all(socket, &update).await.map_err(|_| Broken::Far)?;
        }
        let record = &mut buffer[..got + OVERHEAD];
        keys.borrow_mut().seal(record).map_err(far)?;
        write_all(socket, record).await.map_err(|_| Broken::Far)?;
        passing.counters.sent.fetch_add(got as u64, Ordering::Relaxed);
    }
    let last = keys.borrow_mut().close_notify().map_err(far)?;
    write_all(socket, &last).await.map_err(|_| Broken::Far)?;
    finish(socket).map_err(|_| Broken::Far)
}

/// The sidecar's bytes to the application. Resolves only to what broke.
async fn down(
    app: &TcpStream,
    (socket, keys): (&TcpStream, &RefCell<Keys>),
    input: &mut Input,
    passing: Passing<'_>,
    finished: &Cell<bool>,
) -> Broken {
    loop {
        let opened = keys.borrow_mut().open(input.bytes());
        match opened {
            Ok(Opened::Handled { length }) => input.consume(length),
            Ok(Opened::Data { content, length }) => {
                let bytes = &input.bytes()[content];
                passing.show_received(bytes);
                if write_all(app, bytes).await.is_err() {
                    return Broken::App;
                }
                passing.counters.received.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                input.consume(length);
            }
            Ok(Opened::Closed) => break,
            Ok(Opened::Incomplete) => match input.fill(socket).await {
                Ok(1..) => {}
                // Without close_notify somebody may have cut the stream short.
                Ok(0) | Err(_) => return Broken::Far,
            },
            Err(_) => return Broken::Far,
        }
    }
    if finish(app).is_err() {
        return Broken::App;
    }
    finished.set(true);
    pending().await
}
