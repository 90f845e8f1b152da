//! Trace context in headers.
#![allow(clippy::unwrap_used)]

use mesh_core::TraceContext;
use mesh_core::propagation::{Carried, Form, also, read};
use proptest::prelude::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

fn of(headers: &[(&str, &str)]) -> Option<Carried> {
    read(|name| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
}

#[test]
fn each_form_is_read() {
    let w3c = format!("00-{TRACE}-{SPAN}-01");
    let context: TraceContext = w3c.parse().unwrap();
    let single = format!("{TRACE}-{SPAN}-1-05e3ac9a4f6e3b90");
    let cases: [(&[(&str, &str)], Form); 4] = [
        (&[("traceparent", &w3c)], Form::W3c),
        (&[("b3", &single)], Form::B3Single),
        (&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")], Form::B3Multi),
        (&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-flags", "1")], Form::B3Multi),
    ];
    for (headers, form) in cases {
        assert_eq!(of(headers), Some(Carried { parent: Some(context), sampled: Some(true), form }), "{headers:?}");
    }
}

#[test]
fn a_decision_may_come_alone_or_not_at_all() {
    let not = |form| Some(Carried { parent: None, sampled: Some(false), form });
    assert_eq!(of(&[("b3", "0")]), not(Form::B3Single));
    assert_eq!(of(&[("x-b3-sampled", "0")]), not(Form::B3Multi));
    let deferred = of(&[("b3", &format!("{TRACE}-{SPAN}"))]).unwrap();
    assert_eq!((deferred.sampled, deferred.parent.is_some()), (None, true));
    assert_eq!(of(&[("b3", &format!("{TRACE}-{SPAN}-d"))]).unwrap().sampled, Some(true));
}

#[test]
fn w3c_goes_before_b3_unless_it_is_broken() {
    let b3 = format!("{TRACE}-{SPAN}-1");
    let w3c = format!("00-{TRACE}-{SPAN}-00");
    assert_eq!(of(&[("b3", &b3), ("traceparent", &w3c)]).unwrap().form, Form::W3c);
    assert_eq!(of(&[("b3", &b3), ("traceparent", "00-zero")]).unwrap().form, Form::B3Single);
}

#[test]
fn what_breaks_the_form_counts_as_nothing() {
    for b3 in ["", "x", "-", "0-0", "1-2-3", &format!("{TRACE}-{}-1", "0".repeat(16)), &format!("{TRACE}-{SPAN}-7")] {
        assert_eq!(of(&[("b3", b3)]), None, "{b3:?}");
    }
    assert_eq!(of(&[("x-b3-traceid", TRACE)]), None);
    assert_eq!(of(&[("x-b3-traceid", &TRACE[1..]), ("x-b3-spanid", SPAN)]), None);
    // Rust's own reader of numbers would take the sign.
    assert_eq!(of(&[("b3", &format!("+{}-{SPAN}-1", &TRACE[1..]))]), None);
}

#[test]
fn short_traces_are_the_same_with_zeros_before_them() {
    let carried = of(&[("b3", &format!("{SPAN}-{SPAN}-1"))]).unwrap();
    let trace = carried.parent.unwrap().trace_id;
    assert_eq!((&trace[..8], trace[8]), (&[0; 8][..], 0xb7));
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(trace in 1u128.., span in 1u64.., sampled in any::<bool>()) {
        let context = TraceContext::root(trace, span, sampled);
        for form in [Form::B3Single, Form::B3Multi] {
            let fields = also(&context, form);
            let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            prop_assert_eq!(of(&fields), Some(Carried { parent: Some(context), sampled: Some(sampled), form }));
        }
    }

    #[test]
    fn reading_never_panics(b3 in any::<String>(), trace in "[0-9a-fA-F+é]{0,40}", span in "[0-9a-f-]{0,20}") {
        let _ = of(&[("b3", &b3)]);
        let _ = of(&[("x-b3-traceid", &trace), ("x-b3-spanid", &span), ("x-b3-sampled", &b3)]);
        let _ = of(&[("b3", &format!("{trace}-{span}-1"))]);
    }
}
