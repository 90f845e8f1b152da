//! What a server has said.

use std::collections::BTreeMap;

use super::{ACK, END_STREAM};

/// What a server has said on one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status, where HPACK's own table has it: 200, 204, 206, 304, 400, 404 or 500; else 0.
    pub status: u16,
    /// Octets of DATA.
    pub octets: usize,
    /// Its last frame has come.
    pub ended: bool,
}

/// What a server has said so far.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// By stream, what began with HEADERS.
    pub answers: BTreeMap<u32, Answer>,
    /// By stream, the error code of RST_STREAM.
    pub resets: BTreeMap<u32, u32>,
    /// The error code of the last GOAWAY.
    pub goaway: Option<u32>,
    /// PING frames that answer ours.
    pub pongs: u64,
    /// SETTINGS frames that answer ours.
    pub settings_acked: u64,
    /// Parameters of its own SETTINGS.
    pub settings: BTreeMap<u16, u32>,
    /// The connection has ended.
    pub ended: bool,
}

impl Heard {
    pub(super) fn hear(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let number = |at: usize| {
            payload.get(at..at + 4).map_or(0, |code| u32::from_be_bytes([code[0], code[1], code[2], code[3]]))
        };
        match kind {
            0 | 1 => {
                let answer = self.answers.entry(stream).or_default();
                if kind == 0 {
                    answer.octets += payload.len();
                } else if answer.status == 0 {
                    answer.status = payload.first().map_or(0, |first| status(*first));
                }
                answer.ended |= flags & END_STREAM != 0;
            }
            3 => drop(self.resets.insert(stream, number(0))),
            4 if flags & ACK != 0 => self.settings_acked += 1,
            4 => self.settings.extend(payload.chunks_exact(6).map(|parameter| {
                let value = u32::from_be_bytes([parameter[2], parameter[3], parameter[4], parameter[5]]);
                (u16::from_be_bytes([parameter[0], parameter[1]]), value)
            })),
            6 if flags & ACK != 0 => self.pongs += 1,
            7 => self.goaway = Some(number(4)),
            _ => {}
        }
    }
}

/// RFC 7541, appendix A.
fn status(first: u8) -> u16 {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    let index = first.checked_sub(0x88).map(usize::from);
    index.and_then(|index| KNOWN.get(index)).copied().unwrap_or(0)
}
