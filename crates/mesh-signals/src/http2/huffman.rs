//! Strings in HPACK's Huffman code (RFC 7541, section 5.2 and appendix B).

use crate::Lost;

/// Bits of each octet's code. The code is canonical: codes of one length are consecutive, in the order of the octets.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26,
];
/// Bits of the longest code.
const MAX_BITS: usize = 30;

const TABLE: Table = Table::new();

/// For each length: the first code, how many codes there are, and where their octets begin in `octets`.
struct Table {
    first: [u32; MAX_BITS + 1],
    count: [u32; MAX_BITS + 1],
    offset: [u32; MAX_BITS + 1],
    /// By length of code, then by value.
    octets: [u8; 256],
}

impl Table {
    const fn new() -> Self {
        let mut table =
            Self { first: [0; MAX_BITS + 1], count: [0; MAX_BITS + 1], offset: [0; MAX_BITS + 1], octets: [0; 256] };
        let (mut bits, mut code, mut placed) = (1, 0, 0);
        while bits <= MAX_BITS {
            code <<= 1;
            table.first[bits] = code;
            table.offset[bits] = placed as u32;
            let mut octet = 0;
            while octet < 256 {
                if LENGTHS[octet] as usize == bits {
                    table.octets[placed] = octet as u8;
                    placed += 1;
                    code += 1;
                }
                octet += 1;
            }
            table.count[bits] = placed as u32 - table.offset[bits];
            bits += 1;
        }
        table
    }
}

/// Calls `each` with every octet of an encoded string.
pub(super) fn decode(encoded: &[u8], mut each: impl FnMut(u8)) -> Result<(), Lost> {
    let (mut code, mut bits) = (0_u32, 0_usize);
    for byte in encoded {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            bits += 1;
            let place = code.wrapping_sub(TABLE.first[bits]);
            if place < TABLE.count[bits] {
                each(TABLE.octets[(TABLE.offset[bits] + place) as usize]);
                (code, bits) = (0, 0);
            } else if bits == MAX_BITS {
                return Err(Lost);
            }
        }
    }
    // What is left is padding: fewer than eight ones.
    if bits < 8 && code == (1 << bits) - 1 { Ok(()) } else { Err(Lost) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoded: &[u8]) -> Result<String, Lost> {
        let mut text = Vec::new();
        decode(encoded, |octet| text.push(octet))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// RFC 7541, appendices C.4 and C.6.
    #[test]
    fn the_rfcs_examples_are_read() {
        let cases: [(&[u8], &str); 4] = [
            (&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], "www.example.com"),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x64, 0x02], "302"),
            (&[0xae, 0xc3, 0x77, 0x1a, 0x4b], "private"),
        ];
        for (encoded, text) in cases {
            assert_eq!(decoded(encoded).as_deref(), Ok(text));
        }
    }

    #[test]
    fn what_is_no_code_is_not_followed() {
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), Err(Lost), "the end of a string, within one");
        assert_eq!(decoded(&[0x64, 0x02, 0x00]), Err(Lost), "padding of zeroes");
        assert_eq!(decoded(&[]).as_deref(), Ok(""));
    }
}
