//! HPACK's tables (RFC 7541, section 2.3), of which only what matters here is kept: no text, a few octets an entry.

use std::collections::VecDeque;

use crate::Lost;

/// A field's name, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Status,
    ContentType,
    GrpcStatus,
    Other,
}

/// A field's value, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value {
    Number(u16),
    /// A content type of gRPC's.
    Grpc,
    Other,
}

/// A field of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) name: Name,
    /// Octets of the name.
    pub(super) name_length: usize,
    pub(super) value: Value,
    /// Octets of the value; zero of the static table's, where nobody asks.
    pub(super) value_length: usize,
}

/// Octets that an entry counts beyond its text (RFC 7541, section 4.1).
const OVERHEAD: usize = 32;
/// The size of a table where nothing else is agreed on.
const DEFAULT: usize = 4096;
/// The largest table that is followed. It counts what the endpoints keep; here it is a fraction of that.
const LARGEST: usize = 64 << 10;
/// Lengths of the names of the static table (RFC 7541, appendix A), from its first entry on.
const STATIC_NAMES: [u8; 61] = [
    10, 7, 7, 5, 5, 7, 7, 7, 7, 7, 7, 7, 7, 7, 14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4,
    4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8, 12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];
/// The entries of `:status`, from the eighth on.
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// One direction's tables.
#[derive(Debug)]
pub(super) struct Table {
    /// The newest first.
    entries: VecDeque<Field>,
    size: usize,
    most: usize,
}

impl Default for Table {
    fn default() -> Self {
        Self { entries: VecDeque::new(), size: 0, most: DEFAULT }
    }
}

impl Table {
    /// The field at an index, of the static or the dynamic table.
    pub(super) fn get(&self, index: usize) -> Result<Field, Lost> {
        let Some(name_length) = STATIC_NAMES.get(index.checked_sub(1).ok_or(Lost)?) else {
            return self.entries.get(index - 1 - STATIC_NAMES.len()).copied().ok_or(Lost);
        };
        let status = index.checked_sub(8).and_then(|index| STATUSES.get(index));
        let (name, value) = match (index, status) {
            (_, Some(status)) => (Name::Status, Value::Number(*status)),
            (31, _) => (Name::ContentType, Value::Other),
            _ => (Name::Other, Value::Other),
        };
        Ok(Field { name, name_length: usize::from(*name_length), value, value_length: 0 })
    }

    /// Adds a field, and drops the oldest for it.
    pub(super) fn add(&mut self, field: Field) {
        let size = size(&field);
        self.shrink(self.most.saturating_sub(size));
        // One that is larger than the table empties it (RFC 7541, section 4.4).
        if size <= self.most {
            self.size += size;
            self.entries.push_front(field);
        }
    }

    /// The encoder uses a table of that size from now on.
    pub(super) fn resize(&mut self, most: usize) -> Result<(), Lost> {
        if most > LARGEST {
            return Err(Lost);
        }
        self.most = most;
        self.shrink(most);
        Ok(())
    }

    fn shrink(&mut self, most: usize) {
        while self.size > most {
            let Some(oldest) = self.entries.pop_back() else { return };
            self.size -= size(&oldest);
        }
    }
}

const fn size(field: &Field) -> usize {
    field.name_length + field.value_length + OVERHEAD
}
