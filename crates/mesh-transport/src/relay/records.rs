//! Between a socket and TLS records, sealed where they were read, opened where they arrived: what direct tunnels and plain TLS
//! have in common.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::sync::atomic::Ordering;

use tokio::net::TcpStream;
use tokio::task::yield_now;

use super::{Broken, Passing};
use crate::buffer::Sizing;
use crate::direct::{Burst, Parts};
use crate::record::{Keys, RecordError};
use crate::session::Input;
use crate::socket::{poll_readable, write_all};

/// Bytes in one direction before other connections of the thread get their turn.
const TURN: usize = 1 << 20;

/// The records' connection as both directions see it.
pub(super) struct Wire<'a> {
    pub(super) socket: &'a TcpStream,
    pub(super) keys: &'a RefCell<Keys>,
    /// Part of a record is out and the rest is not: nothing else can be sent.
    pub(super) within_record: Cell<bool>,
}

impl Wire<'_> {
    pub(super) async fn write(&self, sealed: &[u8]) -> Result<(), Broken> {
        self.within_record.set(true);
        write_all(self.socket, sealed).await.map_err(|_| Broken::Far)?;
        self.within_record.set(false);
        Ok(())
    }

    pub(super) async fn update_keys(&self) -> Result<(), Broken> {
        let update = self.keys.borrow_mut().key_update().map_err(|_| Broken::Far)?;
        match update {
            Some(update) => self.write(&update).await,
            None => Ok(()),
        }
    }
}

/// The application's bytes into records, until its end.
pub(super) async fn send_all(
    app: &TcpStream,
    wire: &Wire<'_>,
    passing: Passing<'_>,
    burst_of: impl Fn(&Sizing) -> Burst,
) -> Result<(), Broken> {
    let mut sizing = Sizing::default();
    let mut turn = 0;
    loop {
        poll_fn(|cx| poll_readable(app, cx)).await.map_err(|_| Broken::App)?;
        let mut burst = burst_of(&sizing);
        let got = match burst.read(app).map_err(|_| Broken::App)? {
            None => continue,
            Some(0) => return Ok(()),
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
}

/// What the start of an input holds, all whole records opened in place.
pub(super) struct Received {
    /// Where the application's bytes are.
    pub(super) parts: Parts,
    /// How much input that was.
    pub(super) used: usize,
    /// Whether the peer has ended its direction.
    pub(super) ended: bool,
}

/// What comes in records to the application, until the peer's end.
pub(super) async fn receive_all(
    app: &TcpStream,
    wire: &Wire<'_>,
    input: &mut Input,
    passing: Passing<'_>,
    open: impl Fn(&mut Keys, &mut [u8]) -> Result<Received, RecordError>,
) -> Result<(), Broken> {
    let mut turn = 0;
    loop {
        let opened = open(&mut wire.keys.borrow_mut(), input.bytes());
        let Received { mut parts, used, ended } = opened.map_err(|_| Broken::Far)?;
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
