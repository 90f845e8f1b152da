//! Between a socket and a sidecar's mutual TLS, which has nothing but the application's bytes in it: close_notify for an end of
//! stream, without which a stream was cut.

use std::cell::Cell;

use tokio::net::TcpStream;

use super::records::{Received, Wire, receive_all, send_all};
use super::{Broken, End, Finished, Passing, both, conclude, prepare, until_broken};
use crate::direct::{Burst, Parts};
use crate::record::{Keys, Opened, RecordError};
use crate::session::{Input, Session};
use crate::sidecar::SidecarTls;
use crate::socket::{broken, finish};

pub(super) async fn relay(app: &TcpStream, far: SidecarTls, passing: Passing<'_>) -> End {
    let mut session = far.session;
    prepare(&session.socket);
    let Session { socket, keys, input, .. } = &mut *session;
    let socket = &**socket;
    let wire = Wire { socket, keys, within_record: Cell::default() };
    let finished = Finished::default();
    let up = until_broken(up(app, &wire, passing), &finished.up);
    let down = until_broken(down(app, &wire, input, passing), &finished.down);
    let watch = async {
        tokio::select! {
            () = broken(app) => Broken::App,
            () = broken(socket) => Broken::Far,
        }
    };
    let end = both(&finished, up, down, watch).await;
    if end == End::Closed {
        conclude(socket);
    }
    end
}

/// The application's bytes into TLS.
async fn up(app: &TcpStream, wire: &Wire<'_>, passing: Passing<'_>) -> Result<(), Broken> {
    send_all(app, wire, passing, Burst::bare).await?;
    wire.update_keys().await?;
    let goodbye = wire.keys.borrow_mut().close_notify().map_err(|_| Broken::Far)?;
    wire.write(&goodbye).await?;
    finish(wire.socket).map_err(|_| Broken::Far)
}

/// What comes by TLS to the application.
async fn down(app: &TcpStream, wire: &Wire<'_>, input: &mut Input, passing: Passing<'_>) -> Result<(), Broken> {
    receive_all(app, wire, input, passing, open_all).await?;
    finish(app).map_err(|_| Broken::App)
}

fn open_all(keys: &mut Keys, bytes: &mut [u8]) -> Result<Received, RecordError> {
    let (mut parts, mut used) = (Parts::default(), 0);
    while parts.has_room() {
        match keys.open(&mut bytes[used..])? {
            Opened::Incomplete => break,
            Opened::Handled { length } => used += length,
            Opened::Closed => return Ok(Received { parts, used, ended: true }),
            Opened::Data { content, length } => {
                parts.push(used + content.start..used + content.end);
                used += length;
            }
        }
    }
    Ok(Received { parts, used, ended: false })
}
