//! A Pod's uid.

use std::fmt;
use std::sync::Arc;

/// A Pod's `metadata.uid`. Unlike a name or an address, it is never used again.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadUid(Held);

/// Each text has one form.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Held {
    /// A UUID in the form that Kubernetes writes: by its octets, which take less than half of the text's memory.
    Uuid([u8; 16]),
    /// Any other text.
    Text(Arc<str>),
}

impl WorkloadUid {
    /// The uid that is written so.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(octets(text).map_or_else(|| Held::Text(text.into()), Held::Uuid))
    }
}

impl<T: AsRef<str>> From<T> for WorkloadUid {
    fn from(text: T) -> Self {
        Self::new(text.as_ref())
    }
}

impl fmt::Display for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Held::Text(text) => f.write_str(text),
            Held::Uuid(octets) => {
                let number = u128::from_be_bytes(*octets);
                let part = |from: u32, digits: u32| number >> from & ((1 << (4 * digits)) - 1);
                let (low, middle, high) = (part(96, 8), part(80, 4), part(64, 4));
                write!(f, "{low:08x}-{middle:04x}-{high:04x}-{:04x}-{:012x}", part(48, 4), part(0, 12))
            }
        }
    }
}

impl fmt::Debug for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkloadUid({self})")
    }
}

/// A UUID's octets: 32 lower-case digits with a hyphen before the 9th, 13th, 17th and 21st (RFC 9562, section 4).
fn octets(text: &str) -> Option<[u8; 16]> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    if text.len() != 36 {
        return None;
    }
    let mut number = 0;
    for (index, octet) in text.bytes().enumerate() {
        let digit = match octet {
            b'-' if HYPHENS.contains(&index) => continue,
            _ if HYPHENS.contains(&index) => return None,
            b'0'..=b'9' => octet - b'0',
            b'a'..=b'f' => octet - b'a' + 10,
            _ => return None,
        };
        number = number << 4 | u128::from(digit);
    }
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_kubernetes_writes_takes_no_memory_of_its_own() {
        let is_short = |text: &str| matches!(WorkloadUid::new(text).0, Held::Uuid(_));
        assert!(is_short("8dbc7577-d0e2-4706-8787-57d52c03ddf2"));
        let others = ["8DBC7577-d0e2-4706-8787-57d52c03ddf2", "8dbc7577d0e2470687875-7d52c03ddf2---", "uid-cart", ""];
        assert!(!others.into_iter().any(is_short));
    }

    proptest! {
        #[test]
        fn it_is_written_as_it_was_read(text in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-fA-F-]{34,37}|.*") {
            prop_assert_eq!(WorkloadUid::new(&text).to_string(), text);
        }
    }
}
