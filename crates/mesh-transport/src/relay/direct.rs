//! Between a socket and a direct tunnel: sealed where they were read, opened where they arrived.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;
use tokio::task::yield_now;

use super::{Broken, End, Finished, Passing, both};
use crate::buffer::Sizing;
use crate::direct::{Burst, DirectTunnel, Frame, Parts, reset, split};
use crate::record::{HEADER, Keys, OVERHEAD, Opened, RecordError};
use crate::session::{Input, Session};
use crate::socket::{broken, finish, poll_readable, write_all};

/// Bytes in one direction before other connections of the thread get their turn.
const TURN: usize = 1 << 20;

pub(super) async fn relay(app: &TcpStream, far: DirectTunnel, passing: Passing<'_>) -> End {
    let DirectTunnel { mut session, closing, home } = far;
    let finished = Finished::default();
    let within_record = Cell::new(false);
    let end = {
        let Session { socket, keys, input, .. } = &mut *session;
        let (socket, keys) = (&*socket, &*keys);
        let wire = Wire { socket, keys, within_record: &within_record };
        let up = up(app, &wire, passing, &finished.up);
        let down = down(app, &wire, input, passing, &finished);
        let watch = async {
            tokio::select! {
                () = broken(app) => Broken::App,
                () = broken(socket) => Broken::Far,
                () = closing.closed() => Broken::Far,
            }
        };
        both(&finished, up, down, watch).await
    };
    match end {
        End::Closed => home.give_back(session),
        End::ResetByApp => reset(session, within_record.get()),
        End::ResetByFar => {
            // Without this the peer would read an orderly end.
            let _ = session.socket.set_zero_linger();
        }
    }
    end
}

/// The tunnel's connection as the direction towards it sees it.
struct Wire<'a> {
    socket: &'a TcpStream,
    keys: &'a RefCell<Keys>,
    /// Part of a record is out and the rest is not: nothing else can be sent.
    within_record: &'a Cell<bool>,
}

impl Wire<'_> {
    async fn write(&self, sealed: &[u8]) -> Result<(), Broken> {
        self.within_record.set(true);
        write_all(self.socket, sealed).await.map_err(|_| Broken::Far)?;
        self.within_record.set(false);
        Ok(())
    }

    async fn update_keys(&self) -> Result<(), Broken> {
        let update = self.keys.borrow_mut().key_update().map_err(|_| Broken::Far)?;
        match update {
            Some(update) => self.write(&update).await,
            None => Ok(()),
        }
    }

    async fn write_fin(&self) -> Result<(), Broken> {
        self.update_keys().await?;
        let mut record = [0; OVERHEAD + 1];
        record[HEADER] = Frame::Fin as u8;
        self.keys.borrow_mut().seal(&mut record).map_err(|_| Broken::Far)?;
        self.write(&record).await
    }
}

/// The application's bytes into the tunnel. Resolves only to what broke.
async fn up(app: &TcpStream, wire: &Wire<'_>, passing: Passing<'_>, finished: &Cell<bool>) -> Broken {
    if let Err(broken) = send_all(app, wire, passing).await {
        return broken;
    }
    finished.set(true);
    pending().await
}

async fn send_all(app: &TcpStream, wire: &Wire<'_>, passing: Passing<'_>) -> Result<(), Broken> {
    let mut sizing = Sizing::default();
    let mut turn = 0;
    loop {
        poll_fn(|cx| poll_readable(app, cx)).await.map_err(|_| Broken::App)?;
        let mut burst = Burst::new(&sizing);
        let got = match burst.read(app).map_err(|_| Broken::App)? {
            None => continue,
            Some(0) => break,
            Some(got) => got,
        };
        sizing.learn(burst.capacity(), got);
        if passing.watcher.is_some() {
            burst.parts(got).for_each(|part| passing.show_sent(part));
        }
        wire.update_keys().await?;
        let sealed = burst.seal(got, &mut wire.keys.borrow_mut()).map_err(|_| Broken::Far)?;
        wire.write(sealed).await?;
        passing.counters.sent.fetch_add(got as u64, Ordering::Relaxed);
        turn += got;
        if turn >= TURN {
            turn = 0;
            drop(burst);
            yield_now().await;
        }
    }
    wire.write_fin().await
}

/// The tunnel's bytes to the application, then a watch for a RESET. Resolves only to what broke.
async fn down(
    app: &TcpStream,
    wire: &Wire<'_>,
    input: &mut Input,
    passing: Passing<'_>,
    finished: &Finished,
) -> Broken {
    if let Err(broken) = receive_all(app, wire, input, passing).await {
        return broken;
    }
    if finish(app).is_err() {
        return Broken::App;
    }
    finished.down.set(true);
    // While our side still sends, only a RESET can come. Afterwards the connection is the next tunnel's.
    while !finished.up.get() {
        let opened = wire.keys.borrow_mut().open(input.bytes());
        match opened {
            Ok(Opened::Handled { length }) => input.consume(length),
            Ok(Opened::Incomplete) => match input.fill(wire.socket).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Broken::Far,
            },
            Ok(Opened::Data { .. } | Opened::Closed) | Err(_) => return Broken::Far,
        }
    }
    pending().await
}

async fn receive_all(app: &TcpStream, wire: &Wire<'_>, input: &mut Input, passing: Passing<'_>) -> Result<(), Broken> {
    let mut turn = 0;
    loop {
        let (mut parts, used, ended) = open_all(&mut wire.keys.borrow_mut(), input.bytes()).map_err(|_| Broken::Far)?;
        let got = parts.len();
        if passing.watcher.is_some() {
            parts.each(input.bytes()).for_each(|part| passing.show_received(part));
        }
        while parts.len() > 0 {
            if parts.write(app, input.bytes()).map_err(|_| Broken::App)?.is_none() {
                poll_fn(|cx| app.poll_write_ready(cx)).await.map_err(|_| Broken::App)?;
            }
        }
        passing.counters.received.fetch_add(got as u64, Ordering::Relaxed);
        input.consume(used);
        if ended {
            return Ok(());
        }
        turn += got;
        if turn >= TURN {
            turn = 0;
            yield_now().await;
        }
        if used == 0 && input.fill(wire.socket).await.map_err(|_| Broken::Far)? == 0 {
            return Err(Broken::Far);
        }
    }
}

/// Opens every whole record in place: where the application's bytes are, how much input that was, whether FIN came.
fn open_all(keys: &mut Keys, bytes: &mut [u8]) -> Result<(Parts, usize, bool), RecordError> {
    let (mut parts, mut used) = (Parts::default(), 0);
    while parts.has_room() {
        match keys.open(&mut bytes[used..])? {
            Opened::Incomplete => break,
            Opened::Handled { length } => used += length,
            // An end without FIN is no end.
            Opened::Closed => return Err(RecordError::Alert(0)),
            Opened::Data { content, length } => {
                let content = used + content.start..used + content.end;
                used += length;
                match split(&bytes[content.clone()]) {
                    Ok((Frame::Data, _)) => parts.push(content.start + 1..content.end),
                    Ok((Frame::Fin, [])) => return Ok((parts, used, true)),
                    _ => return Err(RecordError::Type(0)),
                }
            }
        }
    }
    Ok((parts, used, false))
}
