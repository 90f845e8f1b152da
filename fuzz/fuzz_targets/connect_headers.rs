//! The target of a CONNECT and the `Forwarded` header that travels with it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_transport::hbone::{Authority, forwarded_header, parse_forwarded};

fuzz_target!(|text: &str| {
    if let Ok(authority) = Authority::parse(text) {
        assert_ne!(authority.port(), 0);
        assert_eq!(Authority::parse(&authority.to_string()), Ok(authority), "an accepted target has one meaning");
    }
    if let Some(client) = parse_forwarded(text) {
        let again = parse_forwarded(&forwarded_header(client)).expect("what we write, we read");
        assert_eq!((again.ip(), again.port()), (client.ip(), client.port()));
    }
});
