//! Values of header fields as rules write them: as they are, or with what is filled in for each request. The notation is that of
//! Envoy's command operators, which Istio's `headers` have: `%PROTOCOL%`, `%REQ(x-user?x-name):20%`, and `%%` for a per cent sign.

use std::fmt;
use std::sync::Arc;

/// Operators in one value; more are refused where it is read.
const MAX_OPERATORS: usize = 16;
/// Octets of a value with what is filled in. Larger ones are none: servers refuse such fields.
const MAX_FILLED: usize = 8 << 10;

/// The value of a header field.
#[derive(Clone, PartialEq, Eq)]
pub enum FieldValue {
    /// As it is.
    Text(Arc<str>),
    /// With something to fill in.
    Filled(Arc<[Part]>),
}

/// A part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// As it is.
    Text(Box<str>),
    /// What the operator stands for.
    Operator(Operator),
}

/// What is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// The client's address, as proxies that are believed tell of it.
    ClientAddress(AddressPart),
    /// The address of who has connected.
    PeerAddress(AddressPart),
    /// The address at which the request came in.
    LocalAddress(AddressPart),
    /// The URIs that the client's verified certificate names, joined by commas.
    ClientUris,
    /// The server that the client asked for in TLS.
    ServerName,
    /// The version of HTTP that the client speaks.
    Protocol,
    /// The name of the proxy's host, which in a cluster is its pod's.
    Hostname,
    /// When the request began.
    Start(TimeForm),
    /// A field of the request.
    RequestField(NamedField),
    /// A field of the response.
    ResponseField(NamedField),
    /// The response's status.
    Status,
    /// The address of the endpoint that answered.
    Endpoint,
}

/// How much of an address is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressPart {
    /// The address and the port.
    Whole,
    /// The address alone.
    Address,
    /// The port alone.
    Port,
}

/// How a moment is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeForm {
    /// As RFC 3339 has it, in UTC and with milliseconds.
    Rfc3339,
    /// In seconds since the epoch.
    Seconds,
    /// In seconds since the epoch, with milliseconds after a point.
    Milliseconds,
}

/// A field whose value is filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedField {
    /// Its name in lower case; of a request also `:authority`, `:method`, `:path` (with the query) and `:scheme`.
    pub name: Box<str>,
    /// The one that is taken where that is not there.
    pub otherwise: Option<Box<str>>,
    /// Octets of it at most.
    pub most: Option<usize>,
}

/// Which message's header a value is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// A request's.
    Request,
    /// A response's.
    Response,
}

/// Why a value cannot be filled in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldValueError {
    /// Nobody knows the operator.
    #[error("%{0}% is no operator that is known here")]
    Unknown(String),
    /// It is about something that is not there yet.
    #[error("%{0}% is known of responses alone")]
    OfResponses(String),
    /// It is not written as it has to be.
    #[error("%{0}% is not written as its kind of operator is")]
    Malformed(String),
    /// A per cent sign that begins nothing.
    #[error("a per cent sign begins an operator, and no operator follows; write %% for the sign itself")]
    NoOperator,
    /// There are too many.
    #[error("it has more than {MAX_OPERATORS} operators")]
    TooMany,
    /// There are too many of them, and of texts between them.
    #[error("it has more than {0} operators and texts between them")]
    TooManyParts(usize),
}

impl FieldValue {
    /// Reads a value in which operators may be.
    ///
    /// # Errors
    /// It has an operator that cannot be filled in.
    pub fn parse(text: &str, of: Message) -> Result<Self, FieldValueError> {
        let mut operators = 0;
        let read = |written: &WrittenOperator<'_>, _| {
            let operator = operator(written, of)?;
            operators += 1;
            if operators > MAX_OPERATORS { Err(FieldValueError::TooMany) } else { Ok(Part::Operator(operator)) }
        };
        let mut parts = parts(text, Part::Text, read)?;
        Ok(match &mut parts[..] {
            [] => Self::Text("".into()),
            [Part::Text(text)] => Self::Text(std::mem::take(text).into()),
            _ => Self::Filled(parts.into()),
        })
    }

    /// The text, with what `fill` writes for each operator; empty where it would be too large.
    pub fn text(&self, mut fill: impl FnMut(&Operator, &mut String)) -> Arc<str> {
        let parts = match self {
            Self::Text(text) => return text.clone(),
            Self::Filled(parts) => parts,
        };
        let mut text = String::new();
        for part in &**parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Operator(operator) => fill(operator, &mut text),
            }
            if text.len() > MAX_FILLED {
                return "".into();
            }
        }
        text.into()
    }
}

impl NamedField {
    /// What there is of it, where `find` finds a value by its name.
    pub fn value<T: AsRef<str>>(&self, find: impl Fn(&str) -> Option<T>, text: &mut String) {
        let found = find(&self.name).or_else(|| find(self.otherwise.as_deref()?));
        let Some(found) = found else { return };
        let found = found.as_ref();
        let end = found.floor_char_boundary(self.most.unwrap_or(usize::MAX));
        text.push_str(found.get(..end).unwrap_or(found));
    }

    fn parse(arguments: &str, most: Option<usize>, of: Message) -> Option<Self> {
        let mut names = arguments.split('?');
        let name = field_name(names.next()?, of)?;
        let otherwise = names.next().map(|name| field_name(name, of).ok_or(())).transpose().ok()?;
        names.next().is_none().then_some(Self { name, otherwise, most })
    }
}

/// A field's name in lower case, or of a request what HTTP/2 has in place of a field (RFC 9113, section 8.3.1).
fn field_name(name: &str, of: Message) -> Option<Box<str>> {
    let lower = name.to_ascii_lowercase();
    let is_token = |name: &str| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&b))
    };
    let is_pseudo = of == Message::Request && matches!(&*lower, ":authority" | ":method" | ":path" | ":scheme");
    (is_token(&lower) || is_pseudo).then(|| lower.into())
}

/// Reads text in which operators may be: what `literal` makes of the texts between them, and `operator` of each of them, which is told
/// how many parts are before it.
pub(crate) fn parts<P>(
    text: &str,
    literal: fn(Box<str>) -> P,
    mut operator: impl FnMut(&WrittenOperator<'_>, usize) -> Result<P, FieldValueError>,
) -> Result<Vec<P>, FieldValueError> {
    let mut parts = Vec::new();
    let (mut between, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('%') {
        between.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            between.push('%');
            rest = after;
            continue;
        }
        let (written, after) = WrittenOperator::read(after)?;
        if !between.is_empty() {
            parts.push(literal(std::mem::take(&mut between).into()));
        }
        parts.push(operator(&written, parts.len())?);
        rest = after;
    }
    between.push_str(rest);
    if !between.is_empty() {
        parts.push(literal(between.into()));
    }
    Ok(parts)
}

/// What an operator means in a header of that message.
fn operator(written: &WrittenOperator<'_>, of: Message) -> Result<Operator, FieldValueError> {
    let operator = Operator::of(written)?;
    let is_of_responses = matches!(operator, Operator::ResponseField(_) | Operator::Status | Operator::Endpoint);
    if is_of_responses && of == Message::Request {
        return Err(FieldValueError::OfResponses(written.text.to_owned()));
    }
    Ok(operator)
}

/// An operator as it is written: `%NAME(ARGUMENTS):MOST%`.
pub(crate) struct WrittenOperator<'a> {
    pub(crate) name: &'a str,
    pub(crate) arguments: Option<&'a str>,
    pub(crate) most: Option<usize>,
    /// All of it, without its per cent signs.
    pub(crate) text: &'a str,
}

impl<'a> WrittenOperator<'a> {
    /// The one that begins after a per cent sign, and what follows the one that ends it.
    ///
    /// # Errors
    /// It has no name or no end, or more than a length follows its arguments.
    pub(crate) fn read(text: &'a str) -> Result<(Self, &'a str), FieldValueError> {
        let named = text.find(|c: char| !c.is_ascii_uppercase() && !c.is_ascii_digit() && c != '_');
        let (name, rest) = text.split_at_checked(named.unwrap_or(text.len())).unwrap_or((text, ""));
        if name.is_empty() {
            return Err(FieldValueError::NoOperator);
        }
        // Arguments end at the bracket: a form of time has per cent signs in it.
        let (arguments, rest) = match rest.strip_prefix('(').map(|rest| rest.split_once(')')) {
            Some(Some((arguments, rest))) => (Some(arguments), rest),
            Some(None) => return Err(FieldValueError::Malformed(text.to_owned())),
            None => (None, rest),
        };
        let Some((length, rest)) = rest.split_once('%') else { return Err(FieldValueError::NoOperator) };
        let written = text.strip_suffix(rest).and_then(|text| text.strip_suffix('%')).unwrap_or(text);
        let malformed = || FieldValueError::Malformed(written.to_owned());
        let most = match length {
            "" => None,
            length => {
                Some(length.strip_prefix(':').and_then(|digits| digits.parse::<usize>().ok()).ok_or_else(malformed)?)
            }
        };
        Ok((Self { name, arguments, most, text: written }, rest))
    }

    pub(crate) fn malformed(&self) -> FieldValueError {
        FieldValueError::Malformed(self.text.to_owned())
    }
}

impl Operator {
    /// What an operator of any message means.
    ///
    /// # Errors
    /// Nobody knows it, or its arguments are none for it.
    pub(crate) fn of(written: &WrittenOperator<'_>) -> Result<Self, FieldValueError> {
        let unknown = || FieldValueError::Unknown(written.text.to_owned());
        let field = |arguments, of| NamedField::parse(arguments, written.most, of).ok_or_else(|| written.malformed());
        match (written.name, written.arguments) {
            ("REQ", Some(arguments)) => field(arguments, Message::Request).map(Self::RequestField),
            ("RESP", Some(arguments)) => field(arguments, Message::Response).map(Self::ResponseField),
            ("START_TIME", Some(form)) if written.most.is_none() => {
                time_form(form).map(Self::Start).ok_or_else(|| written.malformed())
            }
            (name, None) if written.most.is_none() => plain(name).ok_or_else(unknown),
            _ => Err(unknown()),
        }
    }
}

fn time_form(written: &str) -> Option<TimeForm> {
    match written {
        "%s" => Some(TimeForm::Seconds),
        "%s.%3f" => Some(TimeForm::Milliseconds),
        _ => None,
    }
}

/// An operator without arguments.
fn plain(name: &str) -> Option<Operator> {
    use AddressPart::{Address, Port, Whole};
    Some(match name {
        "DOWNSTREAM_REMOTE_ADDRESS" => Operator::ClientAddress(Whole),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::ClientAddress(Address),
        "DOWNSTREAM_REMOTE_PORT" => Operator::ClientAddress(Port),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => Operator::PeerAddress(Whole),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => Operator::PeerAddress(Address),
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => Operator::PeerAddress(Port),
        "DOWNSTREAM_LOCAL_ADDRESS" => Operator::LocalAddress(Whole),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => Operator::LocalAddress(Address),
        "DOWNSTREAM_LOCAL_PORT" => Operator::LocalAddress(Port),
        "DOWNSTREAM_PEER_URI_SAN" => Operator::ClientUris,
        "REQUESTED_SERVER_NAME" => Operator::ServerName,
        "PROTOCOL" => Operator::Protocol,
        "HOSTNAME" => Operator::Hostname,
        "START_TIME" => Operator::Start(TimeForm::Rfc3339),
        "RESPONSE_CODE" => Operator::Status,
        "UPSTREAM_HOST" => Operator::Endpoint,
        _ => return None,
    })
}

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for FieldValue {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl fmt::Debug for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Filled(parts) => f.debug_list().entries(parts.iter()).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<FieldValue, FieldValueError> {
        FieldValue::parse(text, Message::Request)
    }

    fn field(name: &str, otherwise: Option<&str>, most: Option<usize>) -> NamedField {
        NamedField { name: name.into(), otherwise: otherwise.map(Into::into), most }
    }

    #[test]
    fn operators_are_read_and_text_between_them_stays() {
        let parts = |text: &str| match FieldValue::parse(text, Message::Response).unwrap() {
            FieldValue::Filled(parts) => parts.to_vec(),
            FieldValue::Text(text) => vec![Part::Text((*text).into())],
        };
        let text = |text: &str| Part::Text(text.into());
        assert_eq!(parts("100 %%"), [text("100 %")]);
        assert_eq!(
            parts("%%a%REQ(X-A?:PATH):5%%%%PROTOCOL%"),
            [
                text("%a"),
                Part::Operator(Operator::RequestField(field("x-a", Some(":path"), Some(5)))),
                text("%"),
                Part::Operator(Operator::Protocol)
            ]
        );
        assert_eq!(
            parts("t=%START_TIME(%s.%3f)%"),
            [text("t="), Part::Operator(Operator::Start(TimeForm::Milliseconds))]
        );
        assert_eq!(parts("%RESP(x-a)%"), [Part::Operator(Operator::ResponseField(field("x-a", None, None)))]);
    }

    #[test]
    fn what_cannot_be_filled_in_is_refused() {
        let refused = |text: &str| request(text).unwrap_err();
        let malformed = |text: &str| FieldValueError::Malformed(text.to_owned());
        assert_eq!(refused("%UPSTREAM_CLUSTER%"), FieldValueError::Unknown("UPSTREAM_CLUSTER".to_owned()));
        assert_eq!(refused("%PROTOCOL(x)%"), FieldValueError::Unknown("PROTOCOL(x)".to_owned()));
        assert_eq!(refused("%RESPONSE_CODE%"), FieldValueError::OfResponses("RESPONSE_CODE".to_owned()));
        assert_eq!(refused("50%"), FieldValueError::NoOperator);
        assert_eq!(refused("50% of"), FieldValueError::NoOperator);
        assert_eq!(refused("%PROTOCOL"), FieldValueError::NoOperator);
        assert_eq!(refused("%REQ(a"), malformed("REQ(a"));
        for text in ["REQ()", "REQ(a b)", "REQ(a?b?c)", "REQ(a):x", "REQ(a)x", "REQ(:status)", "START_TIME(%Y)"] {
            assert_eq!(refused(&format!("%{text}%")), malformed(text));
        }
        assert_eq!(FieldValue::parse("%RESP(:path)%", Message::Response).unwrap_err(), malformed("RESP(:path)"));
        assert_eq!(refused(&"%PROTOCOL%".repeat(MAX_OPERATORS + 1)), FieldValueError::TooMany);
    }

    #[test]
    fn what_is_filled_in_is_bounded() {
        let value = request("<%PROTOCOL%>").unwrap();
        let filled = |with: &str| value.text(|_, text| text.push_str(with));
        assert_eq!(&*filled("HTTP/2"), "<HTTP/2>");
        assert_eq!(&*filled(&"x".repeat(MAX_FILLED)), "");
        let mut text = String::new();
        field("a", Some("b"), Some(3)).value(|name| (name == "b").then_some("aé€"), &mut text);
        assert_eq!(text, "aé");
    }
}
