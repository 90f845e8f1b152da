//! The pcap file format, as tcpdump writes it (pcap-savefile(5)).

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Link type of Ethernet frames.
const ETHERNET: u32 = 1;

/// A captured frame, and when after the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) time: Duration,
    pub(crate) bytes: &'a [u8],
}

/// Reads a whole file. A record that is not whole yet ends it.
pub(crate) fn read(file: &[u8]) -> Result<Vec<Frame<'_>>> {
    let magic = file.first_chunk::<4>().context("a pcap file begins with 24 octets")?;
    // Microseconds or nanoseconds, in the byte order of the writer.
    let (number, nanos): (fn([u8; 4]) -> u32, bool) = match (u32::from_le_bytes(*magic), u32::from_be_bytes(*magic)) {
        (0xa1b2_c3d4, _) => (u32::from_le_bytes, false),
        (0xa1b2_3c4d, _) => (u32::from_le_bytes, true),
        (_, 0xa1b2_c3d4) => (u32::from_be_bytes, false),
        (_, 0xa1b2_3c4d) => (u32::from_be_bytes, true),
        (other, _) => bail!("{other:#x} is no pcap file's beginning"),
    };
    let link = file.get(20..).and_then(<[u8]>::first_chunk).context("a pcap file begins with 24 octets")?;
    ensure!(number(*link) & 0xffff == ETHERNET, "the capture is not of Ethernet frames");
    let mut rest = &file[24..];
    let mut frames = Vec::new();
    while let Some((frame, after)) = record(rest, number, nanos) {
        frames.push(frame);
        rest = after;
    }
    Ok(frames)
}

fn record(bytes: &[u8], number: fn([u8; 4]) -> u32, nanos: bool) -> Option<(Frame<'_>, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<16>()?;
    let word = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).map(|word| number(*word));
    let (seconds, fraction, length) = (word(0)?, word(4)?, usize::try_from(word(8)?).ok()?);
    let (bytes, rest) = rest.split_at_checked(length)?;
    let fraction = if nanos { Duration::from_nanos(fraction.into()) } else { Duration::from_micros(fraction.into()) };
    Some((Frame { time: Duration::from_secs(seconds.into()) + fraction, bytes }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(number: fn(u32) -> [u8; 4], magic: u32) -> Vec<u8> {
        let mut bytes: Vec<u8> = [magic, 0, 0, 0, 262_144, ETHERNET].into_iter().flat_map(number).collect();
        bytes.extend([7, 5, 3, 3].into_iter().flat_map(number));
        bytes.extend(*b"abc");
        bytes
    }

    #[test]
    fn both_byte_orders_and_both_units_are_read() {
        for (number, magic, time) in [
            (u32::to_le_bytes as fn(u32) -> [u8; 4], 0xa1b2_c3d4, Duration::new(7, 5000)),
            (u32::to_be_bytes, 0xa1b2_c3d4, Duration::new(7, 5000)),
            (u32::to_le_bytes, 0xa1b2_3c4d, Duration::new(7, 5)),
        ] {
            assert_eq!(read(&file(number, magic)).unwrap(), [Frame { time, bytes: b"abc" }]);
        }
    }

    #[test]
    fn a_record_cut_short_is_left_out() {
        let bytes = file(u32::to_le_bytes, 0xa1b2_c3d4);
        assert_eq!(read(&bytes[..bytes.len() - 1]).unwrap(), []);
        assert!(read(&bytes[..20]).is_err());
    }
}
