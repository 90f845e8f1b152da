//! The header of the PROXY protocol with which connections at a gateway begin.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_transport::proxy_protocol::{MAX_HEADER, Parsed, parse};

fuzz_target!(|read: &[u8]| {
    match parse(read) {
        Ok(Parsed::Incomplete) => assert!(read.len() < MAX_HEADER, "whoever sends more is not waited for"),
        Ok(header @ Parsed::Header { length, .. }) => {
            assert!(length <= read.len() && length <= MAX_HEADER);
            assert_eq!(parse(&read[..length]), Ok(header), "what comes after it is no part of it");
            for end in 0..length {
                assert_eq!(parse(&read[..end]), Ok(Parsed::Incomplete), "its end is where it says");
            }
        }
        Err(error) => {
            let more = [read, b"\r\n"].concat();
            assert_eq!(parse(&more), Err(error), "nothing that follows makes one of it");
        }
    }
});
