//! The TLS handshake, driven over a socket with rustls's unbuffered interface.
//!
//! rustls is shown one record at a time, so that it never reads beyond the handshake, and what came behind stays ours.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, InsufficientSizeError, UnbufferedStatus};
use rustls::{CommonState, Error, ExtractedSecrets};
use tokio::net::TcpStream;

use super::{HandshakeError, Input, PeerChain, Session};
use crate::buffer::{Buffer, Sizing};
use crate::record::{HEADER, Kernel, Keys, MAX_RECORD, RecordError};
use crate::socket::{read_now, write_all};
use crate::trust::Role;
use crate::verify::VerifyError;

/// The most that a peer may send before it has shaken hands: its certificates, with room to spare.
const MAX_INCOMING: usize = 64 << 10;
/// The most that we send in one flight.
const MAX_OUTGOING: usize = 256 << 10;

/// What both sides of rustls's unbuffered connections have in common.
pub(super) trait Unbuffered: Sized {
    type Data;
    /// On which side the other end stands.
    fn peer(&self) -> Role;
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
    fn common(&self) -> &CommonState;
    fn into_keys(self) -> Result<(ExtractedSecrets, Kernel), Error>;
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn peer(&self) -> Role {
        Role::Server
    }
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
    fn common(&self) -> &CommonState {
        self
    }
    fn into_keys(self) -> Result<(ExtractedSecrets, Kernel), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Kernel::Client(kernel)))
    }
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn peer(&self) -> Role {
        Role::Client
    }
    fn process<'c, 'i>(&'c mut self, input: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
    fn common(&self) -> &CommonState {
        self
    }
    fn into_keys(self) -> Result<(ExtractedSecrets, Kernel), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, Kernel::Server(kernel)))
    }
}

/// Bytes on their way in and out while hands are shaken.
struct Wire {
    socket: TcpStream,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// What to do after rustls was asked.
enum Next {
    /// Ask again: rustls has more to say.
    Again,
    /// Put the encoded bytes on the wire.
    Send,
    /// Show it another record.
    Receive,
    Done,
}

pub(super) async fn run(socket: TcpStream, mut connection: impl Unbuffered) -> Result<Box<Session>, HandshakeError> {
    let mut wire = Wire { socket, incoming: Incoming::default(), outgoing: Outgoing::default() };
    loop {
        match step(&mut connection, &mut wire) {
            Ok(Next::Again) => {}
            Ok(Next::Send) => wire.send().await?,
            Ok(Next::Receive) => wire.receive().await?,
            Ok(Next::Done) => break,
            Err(error) => {
                wire.send_alert(&mut connection).await;
                return Err(error.into());
            }
        }
    }
    let alpn = connection.common().alpn_protocol().map(<[u8]>::to_vec);
    let shown = connection.common().peer_certificates().unwrap_or(&[]);
    let peer = PeerChain::new(connection.peer(), shown).map_err(VerifyError::into_tls)?.map(Arc::new);
    let (secrets, kernel) = connection.into_keys()?;
    let keys = Keys::new(secrets, kernel)?.into();
    let input = Input::holding(wire.incoming.rest());
    Ok(Box::new(Session { socket: wire.socket.into(), keys, input, alpn, peer }))
}

/// One question to rustls.
fn step(connection: &mut impl Unbuffered, wire: &mut Wire) -> Result<Next, Error> {
    let UnbufferedStatus { discard, state, .. } = connection.process(wire.incoming.shown());
    let next = match state {
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            wire.outgoing.append(|room| data.encode(room))?;
            Next::Again
        }
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Next::Send
        }
        // A server may write before it has seen the client's Finished; we do not.
        Ok(ConnectionState::BlockedHandshake) => Next::Receive,
        Ok(ConnectionState::WriteTraffic(_)) => Next::Done,
        Ok(_) => return Err(Error::HandshakeNotComplete),
        Err(error) => {
            wire.incoming.discard(discard);
            return Err(error);
        }
    };
    wire.incoming.discard(discard);
    match next {
        Next::Done if connection.common().is_handshaking() => Ok(Next::Receive),
        next => Ok(next),
    }
}

impl Wire {
    async fn send(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.outgoing.0);
        write_all(&self.socket, &bytes).await
    }

    async fn receive(&mut self) -> Result<(), HandshakeError> {
        while !self.incoming.show_next()? {
            self.incoming.fill(&self.socket).await?;
        }
        Ok(())
    }

    /// Tells the peer what was wrong, as far as that still goes.
    async fn send_alert(&mut self, connection: &mut impl Unbuffered) {
        // What rustls had to say before the alert, such as a ServerHello, comes first. It is asked for nothing more: it
        // would judge the same bytes again.
        while connection.common().wants_write() {
            // rustls still points into the records that it was shown, so it has to see them again.
            let UnbufferedStatus { state, .. } = connection.process(self.incoming.shown());
            let Ok(ConnectionState::EncodeTlsData(mut data)) = state else { break };
            if self.outgoing.append(|room| data.encode(room)).is_err() {
                break;
            }
        }
        let _ = self.send().await;
    }
}

/// Records from the peer. The first `shown` bytes are whole records that rustls may look at.
#[derive(Default)]
struct Incoming {
    buffer: Option<Buffer>,
    len: usize,
    shown: usize,
}

impl Incoming {
    fn shown(&mut self) -> &mut [u8] {
        match &mut self.buffer {
            Some(buffer) => &mut buffer[..self.shown],
            None => &mut [],
        }
    }

    fn rest(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[..self.len])
    }

    fn discard(&mut self, count: usize) {
        let count = count.min(self.shown);
        if let Some(buffer) = &mut self.buffer {
            buffer.copy_within(count..self.len, 0);
        }
        self.len -= count;
        self.shown -= count;
    }

    /// Shows one more record, if it is there as a whole.
    fn show_next(&mut self) -> Result<bool, HandshakeError> {
        let next = self.rest().get(self.shown..).unwrap_or(&[]);
        let Some(&[kind, major, _, high, low]) = next.first_chunk::<HEADER>() else {
            return Ok(false);
        };
        // rustls judges the rest; these keep it from waiting for a length that was never one.
        if !(20..=23).contains(&kind) || major != 3 {
            return Err(not_tls());
        }
        let length = HEADER + usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_RECORD {
            return Err(not_tls());
        }
        let whole = next.len() >= length;
        if whole {
            self.shown += length;
        }
        Ok(whole)
    }

    async fn fill(&mut self, socket: &TcpStream) -> Result<(), HandshakeError> {
        if self.len >= MAX_INCOMING {
            return Err(RecordError::Length(self.len).into());
        }
        loop {
            socket.readable().await?;
            let mut buffer = match self.buffer.take() {
                Some(old) if old.len() > self.len => old,
                old => {
                    let mut new = Sizing::default().buffer_for(self.len + 1);
                    if let Some(old) = old {
                        new[..self.len].copy_from_slice(&old[..self.len]);
                    }
                    new
                }
            };
            let result = read_now(socket, &mut buffer[self.len..]);
            if self.len > 0 || matches!(result, Ok(Some(1..))) {
                self.buffer = Some(buffer);
            }
            match result? {
                Some(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Some(count) => {
                    self.len += count;
                    return Ok(());
                }
                None => {}
            }
        }
    }
}

fn not_tls() -> HandshakeError {
    Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType).into()
}

/// Records for the peer.
#[derive(Default)]
struct Outgoing(Vec<u8>);

impl Outgoing {
    fn append(&mut self, mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) -> Result<(), Error> {
        let used = self.0.len();
        loop {
            match encode(&mut self.0[used..]) {
                Ok(count) => {
                    self.0.truncate(used + count);
                    return Ok(());
                }
                Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size }))
                    if used + required_size <= MAX_OUTGOING =>
                {
                    self.0.resize(used + required_size, 0);
                }
                Err(_) => return Err(Error::General("cannot encode the handshake".to_owned())),
            }
        }
    }
}
