//! The target of a CONNECT and the `Forwarded` header that travels with it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_transport::hbone::{forwarded_header, parse_authority, parse_forwarded};

fuzz_target!(|text: &str| {
    if let Ok(address) = parse_authority(text) {
        assert_ne!(address.port(), 0);
        assert_eq!(parse_authority(&address.to_string()), Ok(address), "an accepted target has one meaning");
    }
    if let Some(client) = parse_forwarded(text) {
        let again = parse_forwarded(&forwarded_header(client)).expect("what we write, we read");
        assert_eq!((again.ip(), again.port()), (client.ip(), client.port()));
    }
});
