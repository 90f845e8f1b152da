//! Header blocks (RFC 7541).

/// A field as HPACK's literal without indexing, with a new name (RFC 7541, section 6.2.2).
#[must_use]
pub fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        push_length(&mut block, text.len());
        block.extend(text);
    }
    block
}

/// A field that is in the table (RFC 7541, section 6.1), up to 126.
#[must_use]
pub fn indexed(index: u8) -> Vec<u8> {
    vec![0x80 | index]
}

/// The block of a request of this method, for `/`, with further fields.
#[must_use]
pub fn request(method: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", method), (":scheme", "http"), (":authority", "cart.shop"), (":path", "/")];
    with_fields(&[&usual[..], fields].concat())
}

/// A block of these fields and no other.
#[must_use]
pub fn with_fields(fields: &[(&str, &str)]) -> Vec<u8> {
    fields.iter().flat_map(|(name, value)| field(name.as_bytes(), value.as_bytes())).collect()
}

/// An integer with a prefix of seven bits (RFC 7541, section 5.1).
fn push_length(block: &mut Vec<u8>, length: usize) {
    let Some(mut rest) = length.checked_sub(127) else {
        return block.push(u8::try_from(length).unwrap_or(127));
    };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap_or(0) | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap_or(0));
}
