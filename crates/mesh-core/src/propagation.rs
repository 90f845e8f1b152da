//! Trace context in a request's headers: W3C's (w3.org/TR/trace-context) and B3's, in one header or in several
//! (github.com/openzipkin/b3-propagation).
//!
//! What a client wrote is continued; W3C's form goes on in any case, and B3's goes on where it came, for servers that know nothing else.

use crate::TraceContext;

/// Headers of B3 that stand for those that are written, and would contradict them.
pub const REPLACED: [&str; 2] = ["x-b3-parentspanid", "x-b3-flags"];

/// In which headers the context is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `traceparent`.
    W3c,
    /// `b3`.
    B3Single,
    /// `x-b3-traceid` and others.
    B3Multi,
}

/// What a request says of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// The span above; none where only the decision is told.
    pub parent: Option<TraceContext>,
    /// Whether the trace is recorded, where that has been decided.
    pub sampled: Option<bool>,
    /// How it came.
    pub form: Form,
}

/// Reads the context; `header` gives a field's value. W3C's comes first, since it is what a mesh itself writes. What is malformed counts
/// as not there.
pub fn read<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Carried> {
    let w3c = header("traceparent").and_then(|text| text.trim().parse::<TraceContext>().ok());
    if let Some(parent) = w3c {
        return Some(Carried { parent: Some(parent), sampled: Some(parent.sampled), form: Form::W3c });
    }
    if let Some(carried) = header("b3").and_then(|text| single(text.trim())) {
        return Some(carried);
    }
    let sampled = match (header("x-b3-flags"), header("x-b3-sampled")) {
        (Some("1"), _) => Some(true),
        (_, Some(text)) => decision(text.trim()),
        (_, None) => None,
    };
    let ids = header("x-b3-traceid").zip(header("x-b3-spanid"));
    let parent = ids.and_then(|(trace, span)| context(trace.trim(), span.trim(), sampled));
    (parent.is_some() || sampled.is_some()).then_some(Carried { parent, sampled, form: Form::B3Multi })
}

/// `TRACE-SPAN`, `TRACE-SPAN-STATE`, `TRACE-SPAN-STATE-PARENT` or `STATE` alone.
fn single(text: &str) -> Option<Carried> {
    let mut parts = text.split('-');
    let (first, second, state) = (parts.next()?, parts.next(), parts.next());
    let Some(span) = second else {
        let sampled = decision(first)?;
        return Some(Carried { parent: None, sampled: Some(sampled), form: Form::B3Single });
    };
    let sampled = match state {
        None => None,
        Some(state) => Some(decision(state)?),
    };
    let parent = context(first, span, sampled)?;
    Some(Carried { parent: Some(parent), sampled, form: Form::B3Single })
}

fn decision(text: &str) -> Option<bool> {
    match text {
        // Debug asks for a record as well.
        "1" | "d" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// B3's ids; a trace's is of 64 or 128 bits.
fn context(trace: &str, span: &str, sampled: Option<bool>) -> Option<TraceContext> {
    let is_hex = |text: &str, lengths: &[usize]| {
        lengths.contains(&text.len()) && text.bytes().all(|digit| digit.is_ascii_hexdigit())
    };
    if !is_hex(trace, &[16, 32]) || !is_hex(span, &[16]) {
        return None;
    }
    let trace = u128::from_str_radix(trace, 16).ok().filter(|trace| *trace != 0)?;
    let span = u64::from_str_radix(span, 16).ok().filter(|span| *span != 0)?;
    Some(TraceContext::root(trace, span, sampled.unwrap_or(false)))
}

/// The fields by which `context` goes on, besides `traceparent`, which is the context's own text.
#[must_use]
pub fn also(context: &TraceContext, form: Form) -> Vec<(&'static str, String)> {
    let (trace, span) = (u128::from_be_bytes(context.trace_id), u64::from_be_bytes(context.span_id));
    let sampled = u8::from(context.sampled);
    match form {
        Form::W3c => Vec::new(),
        Form::B3Single => vec![("b3", format!("{trace:032x}-{span:016x}-{sampled}"))],
        Form::B3Multi => vec![
            ("x-b3-traceid", format!("{trace:032x}")),
            ("x-b3-spanid", format!("{span:016x}")),
            ("x-b3-sampled", sampled.to_string()),
        ],
    }
}
