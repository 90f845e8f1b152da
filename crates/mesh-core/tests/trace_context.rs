//! W3C Trace Context.
#![allow(clippy::unwrap_used)]

use mesh_core::TraceContext;
use proptest::prelude::*;

const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[test]
fn the_specifications_example_is_read() {
    let context: TraceContext = EXAMPLE.parse().unwrap();
    assert_eq!(context.trace_id[..4], [0x0a, 0xf7, 0x65, 0x19]);
    assert_eq!(context.span_id[..4], [0xb7, 0xad, 0x6b, 0x71]);
    assert!(context.sampled);
    assert_eq!(context.to_string(), EXAMPLE);
}

#[test]
fn later_versions_are_read_as_far_as_they_are_known() {
    for text in [EXAMPLE.replacen("00", "cc", 1), format!("{}-more", EXAMPLE.replacen("00", "01", 1))] {
        assert!(text.parse::<TraceContext>().is_ok(), "{text}");
    }
}

#[test]
fn what_breaks_the_form_is_refused() {
    let cases = [
        String::new(),
        EXAMPLE.to_uppercase(),
        EXAMPLE.replacen("00", "ff", 1),
        format!("{EXAMPLE}-more"),
        format!("{}more", EXAMPLE.replacen("00", "01", 1)),
        EXAMPLE[..54].to_owned(),
        EXAMPLE.replace('-', "_"),
        EXAMPLE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
        EXAMPLE.replace("b7ad6b7169203331", &"0".repeat(16)),
        EXAMPLE.replacen("0a", "0g", 1),
        EXAMPLE.replacen("0a", "é", 1),
    ];
    for case in cases {
        assert!(case.parse::<TraceContext>().is_err(), "{case:?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(trace in any::<u128>(), span in any::<u64>(), sampled in any::<bool>()) {
        let context = TraceContext::root(trace, span, sampled);
        prop_assert_eq!(context.to_string().parse(), Ok(context));
        let child = context.child(span.wrapping_add(1));
        prop_assert_eq!((child.trace_id, child.sampled), (context.trace_id, sampled));
    }

    #[test]
    fn reading_never_panics(text in any::<String>(), like in "[0-9a-f-]{50,60}") {
        let _ = text.parse::<TraceContext>();
        let _ = like.parse::<TraceContext>();
    }
}
