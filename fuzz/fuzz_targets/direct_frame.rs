//! What an authenticated peer says in a record of mesh-tunnel/1: a frame, and the request or the status in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_transport::fuzzing::{encode_request, parse_frame};

fuzz_target!(|content: &[u8]| {
    let Some(mut request) = parse_frame(content) else { return };
    // What cannot be written is left out when it is sent on.
    for value in [&mut request.baggage, &mut request.traceparent] {
        value.take_if(|value| value.contains(char::is_control));
    }
    let text = encode_request(&request);
    assert_eq!(parse_frame(&[&[1][..], &text].concat()), Some(request), "a request has one meaning");
});
