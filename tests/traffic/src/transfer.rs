//! Writing and reading sequences, and the agreement between `stream` and its clients.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::outcome::Failure;
use crate::sequence::Sequence;

/// Who does what on a connection to `stream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Script {
    /// Both directions at once; the client's FIN follows its last octet; the server reports, then ends.
    Exchange,
    /// The client sends all and FIN; only then does the server send.
    ClientFirst,
    /// The server sends all and FIN; only then does the client send.
    ServerFirst,
    /// The client sends and resets.
    ClientResets,
    /// The client sends; the server reads it all and resets.
    ServerResets,
}

impl Script {
    const ALL: [Self; 5] =
        [Self::Exchange, Self::ClientFirst, Self::ServerFirst, Self::ClientResets, Self::ServerResets];
}

/// What a client tells `stream` first: 40 octets, numbers big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) script: Script,
    /// Octets from the client, after the header.
    pub(crate) upload: u64,
    /// Octets from the server.
    pub(crate) download: u64,
    /// The seed of the upload; the download's is its complement.
    pub(crate) seed: u64,
}

impl Header {
    const MAGIC: [u8; 8] = *b"MESHTRAF";

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Self::MAGIC.to_vec();
        for number in [self.script as u64, self.upload, self.download, self.seed] {
            bytes.extend(number.to_be_bytes());
        }
        bytes
    }

    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Self, Failure> {
        let mut magic = [0; 8];
        from.read_exact(&mut magic).await?;
        let script = from.read_u64().await?;
        let script = Script::ALL.into_iter().find(|known| *known as u64 == script);
        match script {
            Some(script) if magic == Self::MAGIC => Ok(Self {
                script,
                upload: from.read_u64().await?,
                download: from.read_u64().await?,
                seed: from.read_u64().await?,
            }),
            _ => Err(Failure::Peer("no header of mesh-traffic".into())),
        }
    }
}

/// How fast to read: at most this many octets, then this pause.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) chunk: usize,
    pub(crate) pause: Duration,
}

impl Pace {
    /// As fast as possible.
    pub(crate) const FULL: Self = Self { chunk: 256 * 1024, pause: Duration::ZERO };
}

/// Octets moved so far, which a failure leaves to be reported.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moved {
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

/// Writes `length` octets of the seed's sequence in writes of `chunk`.
pub(crate) async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    seed: u64,
    length: u64,
    chunk: usize,
    sent: &mut u64,
) -> Result<(), Failure> {
    let mut sequence = Sequence::new(seed);
    let mut buffer = vec![0; chunk.clamp(1, 16 * 1024 * 1024)];
    while sequence.position() < length {
        let size = (length - sequence.position()).min(buffer.len() as u64) as usize;
        let piece = &mut buffer[..size];
        sequence.fill(piece);
        to.write_all(piece).await?;
        *sent = sequence.position();
    }
    Ok(to.flush().await?)
}

/// Reads and checks `length` octets of the seed's sequence.
pub(crate) async fn read(
    from: &mut (impl AsyncRead + Unpin),
    seed: u64,
    length: u64,
    pace: Pace,
    received: &mut u64,
) -> Result<(), Failure> {
    let mut sequence = Sequence::new(seed);
    let mut buffer = vec![0; pace.chunk.max(1)];
    while sequence.position() < length {
        let size = (length - sequence.position()).min(buffer.len() as u64) as usize;
        let count = from.read(&mut buffer[..size]).await?;
        if count == 0 {
            return Err(Failure::Short { received: sequence.position(), expected: length });
        }
        sequence.check(&buffer[..count])?;
        *received = sequence.position();
        if !pace.pause.is_zero() {
            tokio::time::sleep(pace.pause).await;
        }
    }
    Ok(())
}

/// Waits for the end of the stream, before which nothing may come.
pub(crate) async fn expect_end(from: &mut (impl AsyncRead + Unpin)) -> Result<(), Failure> {
    match from.read(&mut [0]).await? {
        0 => Ok(()),
        _ => Err(Failure::Long),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_header_is_read_as_it_was_written() {
        for script in Script::ALL {
            let header = Header { script, upload: 1, download: u64::MAX, seed: 42 };
            assert_eq!(Header::read(&mut header.encode().as_slice()).await.unwrap(), header);
        }
        assert!(Header::read(&mut [0; 40].as_slice()).await.is_err());
    }

    #[tokio::test]
    async fn a_stream_that_is_short_long_or_changed_is_told() {
        let mut bytes = Vec::new();
        write(&mut bytes, 5, 100, 7, &mut 0).await.unwrap();
        let mut received = 0;
        let short = read(&mut &bytes[..99], 5, 100, Pace::FULL, &mut received).await;
        assert!(matches!(short, Err(Failure::Short { received: 99, expected: 100 })));
        assert_eq!(received, 99);
        assert!(matches!(expect_end(&mut &bytes[..1]).await, Err(Failure::Long)));
        bytes[50] = !bytes[50];
        assert!(matches!(read(&mut bytes.as_slice(), 5, 100, Pace::FULL, &mut 0).await, Err(Failure::Mismatch(50))));
    }
}
