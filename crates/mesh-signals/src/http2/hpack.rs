//! Header blocks (RFC 7541): of their fields, those that say what became of a request.

use super::{
    huffman,
    table::{Field, Name, Table, Value},
};
use crate::Lost;

/// What a header block says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) status: Option<u16>,
    pub(super) grpc_status: Option<u16>,
    pub(super) is_grpc: bool,
}

/// Octets of a string that are looked at; names and values that matter are shorter.
const LOOKED_AT: usize = 24;

/// Reads the blocks of one direction, all of them and in order.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    table: Table,
}

impl Decoder {
    /// Reads one block.
    pub(super) fn read(&mut self, mut block: &[u8]) -> Result<Facts, Lost> {
        let mut facts = Facts::default();
        while let Some(first) = block.first() {
            // RFC 7541, section 6.
            match first {
                0x80.. => note(&mut facts, self.table.get(integer(&mut block, 7)?)?),
                0x40.. => {
                    let field = self.literal(&mut block, 6)?;
                    self.table.add(field);
                    note(&mut facts, field);
                }
                0x20.. => self.table.resize(integer(&mut block, 5)?)?,
                _ => {
                    let field = self.literal(&mut block, 4)?;
                    note(&mut facts, field);
                }
            }
        }
        Ok(facts)
    }

    fn literal(&self, block: &mut &[u8], prefix: u32) -> Result<Field, Lost> {
        let (name, name_length) = match integer(block, prefix)? {
            0 => {
                let text = string(block)?;
                (name(text.looked_at()), text.length)
            }
            index => {
                let field = self.table.get(index)?;
                (field.name, field.name_length)
            }
        };
        let text = string(block)?;
        Ok(Field { name, name_length, value: value(name, text.looked_at()), value_length: text.length })
    }
}

fn note(facts: &mut Facts, field: Field) {
    match (field.name, field.value) {
        (Name::Status, Value::Number(status)) => facts.status = Some(status),
        (Name::GrpcStatus, Value::Number(status)) => facts.grpc_status = Some(status),
        (Name::ContentType, Value::Grpc) => facts.is_grpc = true,
        _ => {}
    }
}

fn name(text: &[u8]) -> Name {
    match text {
        b":status" => Name::Status,
        b"content-type" => Name::ContentType,
        b"grpc-status" => Name::GrpcStatus,
        _ => Name::Other,
    }
}

fn value(name: Name, text: &[u8]) -> Value {
    match name {
        Name::Status | Name::GrpcStatus => {
            let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            number.map_or(Value::Other, Value::Number)
        }
        Name::ContentType if text.starts_with(b"application/grpc") => Value::Grpc,
        Name::ContentType | Name::Other => Value::Other,
    }
}

/// A string's beginning, and its whole length.
struct Text {
    start: [u8; LOOKED_AT],
    length: usize,
}

impl Text {
    fn looked_at(&self) -> &[u8] {
        &self.start[..self.length.min(LOOKED_AT)]
    }

    fn push(&mut self, octet: u8) {
        if let Some(place) = self.start.get_mut(self.length) {
            *place = octet;
        }
        self.length += 1;
    }
}

fn string(block: &mut &[u8]) -> Result<Text, Lost> {
    let is_encoded = block.first().ok_or(Lost)? & 0x80 != 0;
    let length = integer(block, 7)?;
    let (bytes, rest) = block.split_at_checked(length).ok_or(Lost)?;
    *block = rest;
    let mut text = Text { start: [0; LOOKED_AT], length: 0 };
    if is_encoded {
        huffman::decode(bytes, |octet| text.push(octet))?;
    } else {
        let looked_at = length.min(LOOKED_AT);
        text.start[..looked_at].copy_from_slice(&bytes[..looked_at]);
        text.length = length;
    }
    Ok(text)
}

/// An integer with a prefix of so many bits (RFC 7541, section 5.1).
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Lost> {
    let (first, rest) = block.split_first().ok_or(Lost)?;
    *block = rest;
    let most = (1_usize << prefix) - 1;
    let mut number = usize::from(*first) & most;
    if number < most {
        return Ok(number);
    }
    // Four octets more make numbers beyond what is held of a block.
    for shift in [0, 7, 14, 21] {
        let (next, rest) = block.split_first().ok_or(Lost)?;
        *block = rest;
        number += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(Lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541, appendix C.6: three responses with Huffman's code, and a table of 256 octets that is too small for all.
    #[test]
    fn the_rfcs_responses_are_read() {
        let blocks: [(&[u8], u16); 3] = [
            (
                &[
                    0x48, 0x82, 0x64, 0x02, 0x58, 0x85, 0xae, 0xc3, 0x77, 0x1a, 0x4b, 0x61, 0x96, 0xd0, 0x7a, 0xbe,
                    0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b, 0x81, 0x66, 0xe0, 0x82, 0xa6,
                    0x2d, 0x1b, 0xff, 0x6e, 0x91, 0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8,
                    0xe9, 0xae, 0x82, 0xae, 0x43, 0xd3,
                ],
                302,
            ),
            (&[0x48, 0x83, 0x64, 0x0e, 0xff, 0xc1, 0xc0, 0xbf], 307),
            (&[0x88, 0xc1, 0xc0, 0xbf], 200),
        ];
        let mut decoder = Decoder::default();
        decoder.table.resize(256).expect("a small table");
        for (block, status) in blocks {
            assert_eq!(decoder.read(block).map(|facts| facts.status), Ok(Some(status)));
        }
    }

    #[test]
    fn fields_that_matter_are_found_by_name_and_by_index() {
        let mut decoder = Decoder::default();
        // content-type by the static table's name, and grpc-status as a new one: both added.
        let block = [&[0x5f, 16][..], b"application/grpc", &[0x40, 11], b"grpc-status", &[2], b"14"].concat();
        let facts = decoder.read(&block).expect("a block");
        assert_eq!((facts.is_grpc, facts.grpc_status), (true, Some(14)));
        // The newest has index 62.
        assert_eq!(decoder.read(&[0xbe]).expect("a block").grpc_status, Some(14));
        assert!(decoder.read(&[0xbf]).expect("a block").is_grpc);
        assert_eq!(decoder.read(&[0xc0]), Err(Lost), "an index beyond the tables");
    }
}
