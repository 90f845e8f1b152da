//! Between a socket and a direct tunnel: sealed where they were read, opened where they arrived.

use std::cell::Cell;
use std::future::pending;

use tokio::net::TcpStream;

use super::records::{Received, Wire, receive_all, send_all};
use super::{Broken, End, Finished, Passing, both, until_broken};
use crate::direct::{Burst, DirectTunnel, Frame, Parts, reset, split};
use crate::record::{HEADER, Keys, OVERHEAD, Opened, RecordError};
use crate::session::{Input, Session};
use crate::socket::{broken, finish};

pub(super) async fn relay(app: &TcpStream, far: DirectTunnel, passing: Passing<'_>) -> End {
    let DirectTunnel { mut session, closing, home } = far;
    let finished = Finished::default();
    let (end, within_record) = {
        let Session { socket, keys, input, .. } = &mut *session;
        let (socket, keys) = (&**socket, &*keys);
        let wire = Wire { socket, keys, within_record: Cell::default() };
        let up = until_broken(up(app, &wire, passing), &finished.up);
        let down = down(app, &wire, input, passing, &finished);
        let watch = async {
            tokio::select! {
                () = broken(app) => Broken::App,
                () = broken(socket) => Broken::Far,
                () = closing.closed() => Broken::Far,
            }
        };
        (both(&finished, up, down, watch).await, wire.within_record.get())
    };
    match end {
        End::Closed => home.give_back(session),
        End::ResetByApp => reset(session, within_record),
        End::ResetByFar => {
            // Without this the peer would read an orderly end.
            let _ = session.socket.set_zero_linger();
        }
    }
    end
}

/// Says that the application has no more to say.
async fn write_fin(wire: &Wire<'_>) -> Result<(), Broken> {
    wire.update_keys().await?;
    let mut record = [0; OVERHEAD + 1];
    record[HEADER] = Frame::Fin as u8;
    wire.keys.borrow_mut().seal(&mut record).map_err(|_| Broken::Far)?;
    wire.write(&record).await
}

/// The application's bytes into the tunnel.
async fn up(app: &TcpStream, wire: &Wire<'_>, passing: Passing<'_>) -> Result<(), Broken> {
    send_all(app, wire, passing, Burst::new).await?;
    write_fin(wire).await
}

/// The tunnel's bytes to the application, then a watch for a RESET. Resolves only to what broke.
async fn down(
    app: &TcpStream,
    wire: &Wire<'_>,
    input: &mut Input,
    passing: Passing<'_>,
    finished: &Finished,
) -> Broken {
    if let Err(broken) = receive_all(app, wire, input, passing, open_all).await {
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

/// Opens every whole record, up to FIN.
fn open_all(keys: &mut Keys, bytes: &mut [u8]) -> Result<Received, RecordError> {
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
                    Ok((Frame::Fin, [])) => return Ok(Received { parts, used, ended: true }),
                    _ => return Err(RecordError::Type(0)),
                }
            }
        }
    }
    Ok(Received { parts, used, ended: false })
}
