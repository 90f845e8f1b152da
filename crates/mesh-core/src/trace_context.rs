//! W3C Trace Context: the `traceparent` header (w3.org/TR/trace-context, section 3.2), by which a span names its parent.

use std::fmt;
use std::str::FromStr;

/// A text that is no `traceparent`. The trace begins anew then, as the specification asks (section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form 00-TRACE_ID-PARENT_ID-FLAGS in lower-case hexadecimal digits, with ids that are not all zero")]
pub struct TraceParentError;

/// A span's place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace; not all zero.
    pub trace_id: [u8; 16],
    /// The span; not all zero.
    pub span_id: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: bool,
}

impl TraceContext {
    /// The first span of a new trace, from random bits.
    #[must_use]
    pub fn root(trace: u128, span: u64, sampled: bool) -> Self {
        // All zero means "none"; one in 2^64 is not worth another draw.
        Self { trace_id: trace.max(1).to_be_bytes(), span_id: span.max(1).to_be_bytes(), sampled }
    }

    /// A span below this one, from random bits.
    #[must_use]
    pub fn child(&self, span: u64) -> Self {
        Self { span_id: span.max(1).to_be_bytes(), ..*self }
    }
}

impl FromStr for TraceContext {
    type Err = TraceParentError;

    /// Reads version 00 exactly, and of later versions what they have in common with it (section 3.2.4).
    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        const LENGTH: usize = 55;
        let bytes = text.as_bytes();
        let (head, rest) = bytes.split_at_checked(LENGTH).ok_or(TraceParentError)?;
        let version = hex::<1>(&head[..2])?;
        let separated = [2, 35, 52].iter().all(|at| head[*at] == b'-');
        let ends_well = match version {
            [0x00] => rest.is_empty(),
            [0xff] => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        if !separated || !ends_well {
            return Err(TraceParentError);
        }
        let (trace_id, span_id) = (hex::<16>(&head[3..35])?, hex::<8>(&head[36..52])?);
        if trace_id == [0; 16] || span_id == [0; 8] {
            return Err(TraceParentError);
        }
        let [flags] = hex::<1>(&head[53..])?;
        Ok(Self { trace_id, span_id, sampled: flags & 1 == 1 })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace_id), u64::from_be_bytes(self.span_id));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", u8::from(self.sampled))
    }
}

/// Lower-case digits only, as the specification has it.
fn hex<const N: usize>(digits: &[u8]) -> Result<[u8; N], TraceParentError> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(TraceParentError),
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Ok(bytes)
}
