//! A deterministic sequence of octets in which every position can be checked: what is lost, repeated, moved or changed shows.

/// The first octet that was not as the sequence has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Octets from the sequence's beginning.
    pub(crate) offset: u64,
}

/// A place in the sequence of a seed: the output of SplitMix64, least significant octet first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sequence {
    seed: u64,
    position: u64,
}

impl Sequence {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, position: 0 }
    }

    /// How many octets were made or checked.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// Fills the buffer with the octets that come next.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        let mut rest = buffer;
        while !rest.is_empty() {
            let (word, length) = self.next(rest.len());
            let (now, later) = rest.split_at_mut(length);
            now.copy_from_slice(&word[..length]);
            rest = later;
        }
    }

    /// Checks that these octets come next.
    pub(crate) fn check(&mut self, buffer: &[u8]) -> Result<(), Mismatch> {
        let mut rest = buffer;
        while !rest.is_empty() {
            let before = self.position;
            let (word, length) = self.next(rest.len());
            let (now, later) = rest.split_at(length);
            if now != &word[..length] {
                let good = now.iter().zip(word).take_while(|(got, expected)| *got == expected).count();
                return Err(Mismatch { offset: before + good as u64 });
            }
            rest = later;
        }
        Ok(())
    }

    /// The next octets, up to the end of a word or `limit`, and how many.
    fn next(&mut self, limit: usize) -> ([u8; 8], usize) {
        let word = word(self.seed, self.position / 8);
        let skipped = (self.position % 8) as usize;
        let length = limit.min(8 - skipped);
        self.position += length as u64;
        ((word >> (8 * skipped)).to_le_bytes(), length)
    }
}

/// SplitMix64's output at an index.
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_are_the_same_sequence() {
        let mut whole = vec![0; 1000];
        Sequence::new(7).fill(&mut whole);
        for size in [1, 3, 8, 13, 999] {
            let (mut made, mut checked) = (Sequence::new(7), Sequence::new(7));
            let mut pieces = vec![0; 1000];
            for piece in pieces.chunks_mut(size) {
                made.fill(piece);
                assert_eq!(checked.check(piece), Ok(()));
            }
            assert_eq!(pieces, whole, "{size}");
        }
    }

    #[test]
    fn the_first_wrong_octet_is_named() {
        let mut bytes = vec![0; 100];
        Sequence::new(7).fill(&mut bytes);
        bytes[42] ^= 1;
        assert_eq!(Sequence::new(7).check(&bytes), Err(Mismatch { offset: 42 }));
        assert!(Sequence::new(8).check(&bytes).is_err());
    }
}
