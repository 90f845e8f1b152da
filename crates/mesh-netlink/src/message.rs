//! How datagrams of netlink are cut into messages, and messages into attributes.

/// `struct nlmsghdr`
pub(crate) const HEADER: usize = 16;
/// `struct nlattr`
const ATTRIBUTE_HEADER: usize = 4;

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) sequence: u32,
    pub(crate) payload: &'a [u8],
}

/// The messages of a datagram, up to one that is malformed.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = datagram.first_chunk::<HEADER>()?;
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let message = Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            payload: datagram.get(HEADER..length)?,
        };
        datagram = after(datagram, length);
        Some(message)
    })
}

/// The attributes of a message (`struct nlattr`; rtnetlink calls it `rtattr`), each by its type with its payload, up to one that
/// is malformed.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<ATTRIBUTE_HEADER>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let payload = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = after(bytes, length);
        Some((u16::from_ne_bytes([header[2], header[3]]), payload))
    })
}

/// The payload of the first attribute of this type.
#[must_use]
pub fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, payload)| payload)
}

/// What is behind the first `length` bytes: messages and attributes begin at multiples of four, and the last one may be without
/// the bytes that fill it up.
fn after(bytes: &[u8], length: usize) -> &[u8] {
    bytes.get(length.next_multiple_of(4)..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    fn message(length: u32, kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn a_datagram_is_cut_into_messages_and_what_is_malformed_ends_it() {
        let datagram = [message(18, 7, &[1, 2, 0, 0]), message(16, 8, &[]), message(400, 9, &[1])].concat();
        let read: Vec<_> = messages(&datagram).map(|message| (message.kind, message.payload)).collect();
        assert_eq!(read, [(7, &[1, 2][..]), (8, &[])]);
        assert!(messages(&message(3, 1, &[])).next().is_none());
    }

    #[test]
    fn the_first_attribute_of_a_type_counts() {
        let bytes = written(&[(1, vec![1]), (2, vec![2, 2, 2, 2, 2]), (1, vec![3])]);
        assert_eq!(attribute(&bytes, 1), Some(&[1][..]));
        assert_eq!(attribute(&bytes, 2), Some(&[2; 5][..]));
        assert_eq!(attribute(&bytes, 3), None);
        // A length that does not reach over its own header leads nowhere, and not round in a circle.
        assert_eq!(attributes(&[3, 0, 1, 0, 4, 0, 1, 0]).count(), 0);
    }

    /// As the kernel writes them.
    fn written(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, payload) in attributes {
            let length = u16::try_from(ATTRIBUTE_HEADER + payload.len()).unwrap();
            bytes.extend(length.to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(payload);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    proptest! {
        #[test]
        fn attributes_are_read_as_they_were_written(all in vec((any::<u16>(), vec(any::<u8>(), 0..40)), 0..20)) {
            let bytes = written(&all);
            let read: Vec<_> = attributes(&bytes).map(|(kind, payload)| (kind, payload.to_vec())).collect();
            prop_assert_eq!(read, all);
        }

        #[test]
        fn whatever_comes_is_read_to_an_end_and_no_byte_twice(bytes in vec(any::<u8>(), 0..400)) {
            let read: usize = attributes(&bytes).map(|(_, payload)| ATTRIBUTE_HEADER + payload.len()).sum();
            prop_assert!(read <= bytes.len());
            let read: usize = messages(&bytes).map(|message| HEADER + message.payload.len()).sum();
            prop_assert!(read <= bytes.len());
        }

        #[test]
        fn what_is_cut_short_loses_its_end_alone(
            all in vec((any::<u16>(), vec(any::<u8>(), 0..40)), 1..8),
            cut in any::<Index>(),
        ) {
            let bytes = written(&all);
            let kept = &bytes[..cut.index(bytes.len())];
            for ((kind, payload), (whole_kind, whole)) in attributes(kept).zip(&all) {
                prop_assert_eq!((kind, payload), (*whole_kind, whole.as_slice()));
            }
        }
    }
}
