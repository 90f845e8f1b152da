//! How lines at standard output are written where the mesh configuration says it (`accessLogFormat`), in Envoy's notation
//! (envoyproxy.io, configuration/observability/access_log/usage).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::l7::field_value::{self, FieldValueError, NamedField, Operator, WrittenOperator};

mod time;

pub use time::TimePart;

/// What Istio's proxies write as text where nothing is said of it (`accessLogEncoding: TEXT`).
pub const ISTIOS_TEXT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%";
/// Parts of one format: more are refused where it is read.
const MAX_PARTS: usize = 256;
/// The field in which Envoy tells how long the answer's head took, which it is not sent with here.
const SERVICE_TIME: &str = "x-envoy-upstream-service-time";

/// How a line is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineFormat {
    /// As text.
    Text(Vec<LinePart>),
    /// As a JSON object with these fields, in this order.
    Json(Vec<(Box<str>, LineField)>),
}

/// A field of JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineField {
    /// Its value; one operator alone keeps its type.
    Parts(Vec<LinePart>),
    /// An object.
    Object(Vec<(Box<str>, Self)>),
    /// A list.
    List(Vec<Self>),
    /// JSON that is as it is.
    Literal(Box<str>),
}

/// A part of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinePart {
    /// As it is.
    Text(Box<str>),
    /// What is known at the end.
    Value(LineValue),
}

/// What an operator stands for in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineValue {
    /// What can be filled into headers, too.
    Operator(Operator),
    /// When it began, written so.
    Start(Vec<TimePart>),
    /// The response flags.
    Flags,
    /// Why the answer is what it is.
    Details,
    /// Why the connection ended.
    Termination,
    /// Octets of the client.
    Received,
    /// Octets for the client.
    Sent,
    /// How long it took, in milliseconds.
    Duration,
    /// How long the answer's head took, in milliseconds.
    AnsweredAfter,
    /// Where it was sent on to.
    Cluster,
    /// The rule that it belongs to.
    Route,
    /// gRPC's status.
    GrpcStatus,
    /// The trace that it belongs to.
    Trace,
    /// What is not known here.
    Nothing,
}

/// What a format names that is not known here: written as `-`, or `null` in JSON.
pub type Unknown = BTreeSet<String>;

impl LineFormat {
    /// Text with operators. What is unknown is added to `unknown`.
    ///
    /// # Errors
    /// A per cent sign begins nothing, or an operator is not written as its kind is.
    pub fn text(text: &str, unknown: &mut Unknown) -> Result<Self, FieldValueError> {
        parts(text.trim_end_matches('\n'), unknown).map(Self::Text)
    }

    /// The fields of requests that it asks for, and those of responses, by their names in lower case.
    pub fn headers(&self, of_requests: &mut Vec<Arc<str>>, of_responses: &mut Vec<Arc<str>>) {
        let mut parts = |all: &[LinePart]| {
            for part in all {
                let (field, names) = match part {
                    LinePart::Value(LineValue::Operator(Operator::RequestField(field))) => (field, &mut *of_requests),
                    LinePart::Value(LineValue::Operator(Operator::ResponseField(field))) => (field, &mut *of_responses),
                    _ => continue,
                };
                let asked = [Some(&field.name), field.otherwise.as_ref()].into_iter().flatten();
                names.extend(asked.filter(|name| !name.starts_with(':')).map(|name| Arc::from(&**name)));
            }
        };
        match self {
            Self::Text(all) => parts(all),
            Self::Json(fields) => fields.iter().for_each(|(_, field)| field.each(&mut parts)),
        }
    }
}

impl LineField {
    /// A value with operators. What is unknown is added to `unknown`.
    ///
    /// # Errors
    /// As [`LineFormat::text`].
    pub fn parts(text: &str, unknown: &mut Unknown) -> Result<Self, FieldValueError> {
        parts(text, unknown).map(Self::Parts)
    }

    fn each(&self, look: &mut impl FnMut(&[LinePart])) {
        match self {
            Self::Parts(parts) => look(parts),
            Self::Object(fields) => fields.iter().for_each(|(_, field)| field.each(look)),
            Self::List(all) => all.iter().for_each(|field| field.each(look)),
            Self::Literal(_) => {}
        }
    }
}

impl LineValue {
    /// Whether it is a number in JSON.
    #[must_use]
    pub const fn is_number(&self) -> bool {
        matches!(
            self,
            Self::Operator(Operator::Status)
                | Self::Received
                | Self::Sent
                | Self::Duration
                | Self::AnsweredAfter
                | Self::GrpcStatus
        )
    }

    fn of(written: &WrittenOperator<'_>, unknown: &mut Unknown) -> Result<Self, FieldValueError> {
        Ok(match (written.name, written.arguments) {
            ("START_TIME", Some(form)) => match time::parts(form) {
                Some(parts) => Self::Start(parts),
                None => return Err(written.malformed()),
            },
            ("RESPONSE_FLAGS", None) => Self::Flags,
            ("RESPONSE_CODE_DETAILS", None) => Self::Details,
            ("CONNECTION_TERMINATION_DETAILS", None) => Self::Termination,
            ("BYTES_RECEIVED", None) => Self::Received,
            ("BYTES_SENT", None) => Self::Sent,
            ("DURATION", None) => Self::Duration,
            ("RESPONSE_DURATION", None) => Self::AnsweredAfter,
            ("UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW", None) => Self::Cluster,
            ("UPSTREAM_REMOTE_ADDRESS", None) => Self::Operator(Operator::Endpoint),
            ("ROUTE_NAME", None) => Self::Route,
            ("GRPC_STATUS_NUMBER", None) => Self::GrpcStatus,
            ("TRACE_ID", None) => Self::Trace,
            ("UPSTREAM_LOCAL_ADDRESS" | "UPSTREAM_TRANSPORT_FAILURE_REASON", None) => Self::Nothing,
            _ => match Operator::of(written) {
                Ok(Operator::ResponseField(NamedField { name, .. })) if *name == *SERVICE_TIME => Self::AnsweredAfter,
                Ok(operator) => Self::Operator(operator),
                Err(FieldValueError::Unknown(text)) => {
                    unknown.insert(text);
                    Self::Nothing
                }
                Err(error) => return Err(error),
            },
        })
    }
}

fn parts(text: &str, unknown: &mut Unknown) -> Result<Vec<LinePart>, FieldValueError> {
    field_value::parts(text, LinePart::Text, |written, before| {
        let value = LineValue::of(written, unknown)?;
        if before >= MAX_PARTS { Err(FieldValueError::TooManyParts(MAX_PARTS)) } else { Ok(LinePart::Value(value)) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::field_value::AddressPart;

    fn read(text: &str) -> Result<(Vec<LinePart>, Vec<String>), FieldValueError> {
        let mut unknown = Unknown::new();
        match LineFormat::text(text, &mut unknown)? {
            LineFormat::Text(parts) => Ok((parts, unknown.into_iter().collect())),
            LineFormat::Json(_) => panic!("it is text"),
        }
    }

    fn value(value: LineValue) -> LinePart {
        LinePart::Value(value)
    }

    #[test]
    fn operators_and_text_are_read_in_their_order() {
        let text = |text: &str| LinePart::Text(text.into());
        let address = LineValue::Operator(Operator::ClientAddress(AddressPart::Whole));
        let (parts, unknown) = read("100%% %RESPONSE_FLAGS%%DURATION% at %DOWNSTREAM_REMOTE_ADDRESS%\n").unwrap();
        assert_eq!(
            parts,
            [text("100% "), value(LineValue::Flags), value(LineValue::Duration), text(" at "), value(address)]
        );
        assert!(unknown.is_empty());
        let (parts, _) = read("%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%").unwrap();
        assert_eq!(parts, [value(LineValue::AnsweredAfter)]);
    }

    #[test]
    fn all_of_istios_own_text_is_known() {
        let (parts, unknown) = read(ISTIOS_TEXT).unwrap();
        assert_eq!((parts.iter().filter(|part| matches!(part, LinePart::Value(_))).count(), unknown), (24, vec![]));
    }

    #[test]
    fn what_is_unknown_is_told_once_and_written_as_nothing() {
        let (parts, unknown) = read("%FILTER_STATE(a:PLAIN)%%TRAILER(x)%%TRAILER(x)%").unwrap();
        assert_eq!(parts, [value(LineValue::Nothing), value(LineValue::Nothing), value(LineValue::Nothing)]);
        assert_eq!(unknown, ["FILTER_STATE(a:PLAIN)", "TRAILER(x)"]);
    }

    #[test]
    fn what_is_no_operator_is_refused() {
        for text in ["50%", "%REQ(a b)%", "%REQ(a%", "%START_TIME(%Q)%", &"%DURATION%".repeat(MAX_PARTS + 1)] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_headers_that_it_asks_for_are_known_before() {
        let mut unknown = Unknown::new();
        let inner = LineField::parts("%RESP(X-B)% %REQ(:PATH)%", &mut unknown).unwrap();
        let fields = vec![
            ("a".into(), LineField::parts("%REQ(X-A?x-c):7%", &mut unknown).unwrap()),
            ("o".into(), LineField::Object(vec![("b".into(), inner)])),
        ];
        let (mut requests, mut responses) = (Vec::new(), Vec::new());
        LineFormat::Json(fields).headers(&mut requests, &mut responses);
        assert_eq!((requests, responses), (vec!["x-a".into(), "x-c".into()], vec!["x-b".into()]));
    }
}
