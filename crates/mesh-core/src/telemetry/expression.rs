//! CEL's text to a [`Filter`]: comparisons of Envoy's attributes with constants, `has()`, `in request.headers`, the functions of texts, and
//! `!`, `&&`, `||`, parentheses. All else is told as what it is.

use regex::RegexBuilder;

use super::filter::{Filter, Number, Order, Test, Text};

/// Bytes of an expression.
const MAX_LENGTH: usize = 4_096;
/// Parentheses and negations within each other.
const MAX_DEPTH: usize = 32;
/// Bytes of a compiled pattern.
const MAX_PATTERN: usize = 1 << 20;

/// An expression that is not evaluated here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It is too long or too deep.
    #[error("longer than {MAX_LENGTH} bytes, or deeper than {MAX_DEPTH} levels")]
    TooLarge,
    /// It ends too early, or goes on too long.
    #[error("at byte {at}: {wanted} is expected")]
    Syntax {
        /// Where.
        at: usize,
        /// What would go on there.
        wanted: &'static str,
    },
    /// An attribute that is not known of a request here.
    #[error(
        "{0} is not known here; what is: request.method, .path, .url_path, .query, .host, .scheme, .protocol, .useragent, .id, .size, .headers['NAME'], response.code, .grpc_status, .size, source.address, .port, destination.port, upstream.address, connection.mtls, .requested_server_name, .uri_san_peer_certificate"
    )]
    Attribute(String),
    /// A number asked as a text, or the other way.
    #[error("{0} is compared with what it is not")]
    Type(String),
    /// A pattern that is none.
    #[error("{0:?} is no pattern, or too large a one")]
    Pattern(String),
}

/// Reads an expression.
///
/// # Errors
/// What of it is not evaluated here.
pub fn parse(text: &str) -> Result<Filter, ExpressionError> {
    let mut parser = Parser::new(text)?;
    let filter = parser.any()?;
    if parser.is_at_end() { Ok(filter) } else { Err(parser.wanted("&&, || or the end")) }
}

pub(super) struct Parser<'a> {
    text: &'a str,
    pub(super) at: usize,
    pub(super) depth: usize,
}

/// An attribute.
pub(super) enum Attribute {
    Number(Number),
    Text(Text),
    Mtls,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, ExpressionError> {
        if text.len() > MAX_LENGTH { Err(ExpressionError::TooLarge) } else { Ok(Self { text, at: 0, depth: 0 }) }
    }

    /// Notes that something is within something.
    pub(super) fn deeper(&mut self) -> Result<(), ExpressionError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(ExpressionError::TooLarge) } else { Ok(()) }
    }

    pub(super) fn is_at_end(&mut self) -> bool {
        self.space();
        self.rest().is_empty()
    }

    pub(super) fn wanted(&self, wanted: &'static str) -> ExpressionError {
        ExpressionError::Syntax { at: self.at, wanted }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    pub(super) fn takes(&mut self, token: &str) -> bool {
        self.space();
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    pub(super) fn any(&mut self) -> Result<Filter, ExpressionError> {
        let mut parts = vec![self.all()?];
        while self.takes("||") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::Any(parts) })
    }

    fn all(&mut self) -> Result<Filter, ExpressionError> {
        let mut parts = vec![self.one()?];
        while self.takes("&&") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Filter::All(parts) })
    }

    fn one(&mut self) -> Result<Filter, ExpressionError> {
        self.deeper()?;
        self.space();
        let filter = if self.takes("(") {
            let inner = self.any()?;
            if !self.takes(")") {
                return Err(self.wanted("a closing parenthesis"));
            }
            inner
        } else if self.rest().starts_with('!') && !self.rest().starts_with("!=") {
            self.at += 1;
            Filter::Not(Box::new(self.one()?))
        } else {
            self.condition()?
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn condition(&mut self) -> Result<Filter, ExpressionError> {
        if self.rest().starts_with(['\'', '"']) {
            let name = self.literal()?;
            let among = self.takes("in") && self.path() == "request.headers";
            let header = || Filter::HasText(Text::Header(name.to_ascii_lowercase().into()));
            return if among { Ok(header()) } else { Err(self.wanted("in request.headers")) };
        }
        let began = self.at;
        match self.path() {
            "" => Err(self.wanted("an attribute, such as response.code")),
            "true" => Ok(Filter::Constant(true)),
            "false" => Ok(Filter::Constant(false)),
            "has" => {
                let opened = self.takes("(");
                self.space();
                let path = self.path();
                let attribute = self.attribute(path)?;
                if !opened || !self.takes(")") {
                    return Err(self.wanted("has(ATTRIBUTE)"));
                }
                Ok(match attribute {
                    Attribute::Number(number) => Filter::HasNumber(number),
                    Attribute::Text(text) => Filter::HasText(text),
                    Attribute::Mtls => Filter::Constant(true),
                })
            }
            path => {
                // A function of a text is written as its last step.
                let (path, function) = match path.rsplit_once('.') {
                    Some((path, function @ ("startsWith" | "endsWith" | "contains" | "matches"))) => {
                        (path, Some(function))
                    }
                    _ => (path, None),
                };
                let attribute = self.attribute(path)?;
                let function = function.or_else(|| self.takes(".").then(|| self.path()));
                let name = self.text[began..self.at].trim();
                self.comparison(attribute, function, name)
            }
        }
    }

    fn comparison(
        &mut self,
        attribute: Attribute,
        function: Option<&str>,
        name: &str,
    ) -> Result<Filter, ExpressionError> {
        let wrong = || ExpressionError::Type(name.to_owned());
        if let Some(function) = function {
            if !self.takes("(") {
                return Err(self.wanted("the function's argument"));
            }
            self.space();
            let argument = self.literal()?;
            if !self.takes(")") {
                return Err(self.wanted("a closing parenthesis"));
            }
            let Attribute::Text(text) = attribute else { return Err(wrong()) };
            return Ok(Filter::Text(text, self.test(function, argument)?));
        }
        let Some(order) = self.order() else {
            return if matches!(attribute, Attribute::Mtls) {
                Ok(Filter::Mtls)
            } else {
                Err(self.wanted("a comparison"))
            };
        };
        self.space();
        match attribute {
            Attribute::Number(number) => Ok(Filter::Number(number, order, self.number().ok_or_else(wrong)?)),
            Attribute::Mtls => {
                let value = match self.path() {
                    "true" => true,
                    "false" => false,
                    _ => return Err(wrong()),
                };
                match order {
                    Order::Equal if value => Ok(Filter::Mtls),
                    Order::NotEqual if !value => Ok(Filter::Mtls),
                    Order::Equal | Order::NotEqual => Ok(Filter::Not(Box::new(Filter::Mtls))),
                    _ => Err(wrong()),
                }
            }
            Attribute::Text(text) => {
                let literal = self.literal().map_err(|_| wrong())?;
                match order {
                    Order::Equal => Ok(Filter::Text(text, Test::Is(literal.into()))),
                    Order::NotEqual => Ok(Filter::Text(text, Test::IsNot(literal.into()))),
                    _ => Err(wrong()),
                }
            }
        }
    }

    fn test(&self, function: &str, argument: &str) -> Result<Test, ExpressionError> {
        Ok(match function {
            "startsWith" => Test::Begins(argument.into()),
            "endsWith" => Test::Ends(argument.into()),
            "contains" => Test::Contains(argument.into()),
            "matches" => {
                let pattern = RegexBuilder::new(argument).size_limit(MAX_PATTERN).build();
                Test::Matches(pattern.map_err(|_| ExpressionError::Pattern(argument.to_owned()))?)
            }
            _ => return Err(self.wanted("startsWith, endsWith, contains or matches")),
        })
    }

    fn order(&mut self) -> Option<Order> {
        let orders = [
            ("==", Order::Equal),
            ("!=", Order::NotEqual),
            ("<=", Order::AtMost),
            (">=", Order::AtLeast),
            ("<", Order::Less),
            (">", Order::More),
        ];
        orders.into_iter().find(|(token, _)| self.takes(token)).map(|(_, order)| order)
    }

    /// Names with dots between them.
    pub(super) fn path(&mut self) -> &'a str {
        self.space();
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
        let path = rest[..end].trim_end_matches('.');
        self.at += path.len();
        path
    }

    /// A whole number.
    fn number(&mut self) -> Option<i64> {
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let length = rest.len() - digits.len() + end;
        let number = rest[..length].parse().ok()?;
        self.at += length;
        Some(number)
    }

    /// A name in brackets.
    pub(super) fn index(&mut self) -> Result<&'a str, ExpressionError> {
        if !self.takes("[") {
            return Err(self.wanted("['NAME']"));
        }
        self.space();
        let name = self.literal()?;
        if self.takes("]") { Ok(name) } else { Err(self.wanted("a closing bracket")) }
    }

    /// A text between quotes, without escapes.
    pub(super) fn literal(&mut self) -> Result<&'a str, ExpressionError> {
        let rest = self.rest();
        let wanted = "a text in quotes, without backslashes";
        let quote = rest.chars().next().filter(|c| ['\'', '"'].contains(c)).ok_or_else(|| self.wanted(wanted))?;
        let inner = &rest[1..];
        let end = inner.find(quote).ok_or_else(|| self.wanted("a closing quote"))?;
        if inner[..end].contains('\\') {
            return Err(self.wanted(wanted));
        }
        self.at += end + 2;
        Ok(&inner[..end])
    }

    pub(super) fn attribute(&mut self, path: &str) -> Result<Attribute, ExpressionError> {
        let number = |number| Ok(Attribute::Number(number));
        let text = |text| Ok(Attribute::Text(text));
        match path {
            "response.code" => number(Number::ResponseCode),
            "response.grpc_status" => number(Number::ResponseGrpcStatus),
            "request.size" => number(Number::RequestSize),
            "response.size" => number(Number::ResponseSize),
            "source.port" => number(Number::SourcePort),
            "destination.port" => number(Number::DestinationPort),
            "request.method" => text(Text::Method),
            "request.path" => text(Text::Path),
            "request.url_path" => text(Text::UrlPath),
            "request.query" => text(Text::Query),
            "request.host" => text(Text::Host),
            "request.scheme" => text(Text::Scheme),
            "request.protocol" => text(Text::Protocol),
            "request.useragent" => text(Text::UserAgent),
            "request.id" => text(Text::RequestId),
            "source.address" => text(Text::SourceAddress),
            "upstream.address" => text(Text::UpstreamAddress),
            "connection.uri_san_peer_certificate" => text(Text::PeerIdentity),
            "connection.requested_server_name" => text(Text::ServerName),
            "connection.mtls" => Ok(Attribute::Mtls),
            "request.headers" => {
                let name = self.index()?.to_ascii_lowercase();
                text(Text::Header(name.into()))
            }
            other => Err(ExpressionError::Attribute(other.to_owned())),
        }
    }
}
