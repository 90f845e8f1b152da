//! CEL's text to a [`Value`]: texts in quotes, attributes, `string()`, what is known of both workloads, and `condition ? this : that`.

use super::expression::{Attribute, ExpressionError, Parser};
use super::filter::Filter;
use super::value::{Peer, PeerAttribute, Value};

/// Reads the value of a label.
///
/// # Errors
/// What of it is not evaluated here.
pub fn parse_value(text: &str) -> Result<Value, ExpressionError> {
    let mut parser = Parser::new(text)?;
    let value = parser.value()?;
    if parser.is_at_end() { Ok(value) } else { Err(parser.wanted("the end")) }
}

impl Parser<'_> {
    fn value(&mut self) -> Result<Value, ExpressionError> {
        self.deeper()?;
        let began = self.at;
        let plain = self.operand();
        if plain.is_ok() && self.is_over() {
            self.depth -= 1;
            return plain;
        }
        let ended = std::mem::replace(&mut self.at, began);
        let condition = match self.any() {
            Ok(condition) if self.takes("?") => condition,
            _ => {
                self.at = ended;
                return plain.and_then(|_| Err(self.wanted("the end")));
            }
        };
        let first = self.value()?;
        if !self.takes(":") {
            return Err(self.wanted("a colon"));
        }
        let second = self.value()?;
        self.depth -= 1;
        Ok(Value::If(Box::new(condition), Box::new(first), Box::new(second)))
    }

    /// Whether a value can end here.
    fn is_over(&mut self) -> bool {
        self.is_at_end() || self.rest().starts_with([')', ':'])
    }

    fn operand(&mut self) -> Result<Value, ExpressionError> {
        self.space();
        if self.rest().starts_with(['\'', '"']) {
            return Ok(Value::Literal(self.literal()?.into()));
        }
        if self.takes("(") {
            return self.value().and_then(|value| self.closed(value));
        }
        let path = self.path();
        match path {
            "" => return Err(self.wanted("a text in quotes or an attribute, such as request.host")),
            "true" | "false" => return Ok(Value::Literal(path.into())),
            "string" if self.takes("(") => return self.value().and_then(|value| self.closed(value)),
            _ => {}
        }
        if let Some((peer, attribute)) = peer(path) {
            let attribute = match attribute {
                Some(attribute) => attribute,
                None => PeerAttribute::Label(self.index()?.into()),
            };
            return Ok(Value::Peer(peer, attribute));
        }
        Ok(match self.attribute(path)? {
            Attribute::Number(number) => Value::Number(number),
            Attribute::Text(text) => Value::Text(text),
            Attribute::Mtls => {
                let [yes, no] = ["true", "false"].map(|text| Box::new(Value::Literal(text.into())));
                Value::If(Box::new(Filter::Mtls), yes, no)
            }
        })
    }

    fn closed(&mut self, value: Value) -> Result<Value, ExpressionError> {
        if self.takes(")") { Ok(value) } else { Err(self.wanted("a closing parenthesis")) }
    }
}

/// The side and what of it a path names; none for what for a label, whose name follows.
fn peer(path: &str) -> Option<(Peer, Option<PeerAttribute>)> {
    let path = path.strip_prefix("filter_state.").unwrap_or(path);
    let (peer, rest) = match path.split_once('.')? {
        ("downstream_peer" | "source", rest) => (Peer::Source, rest),
        ("upstream_peer" | "destination", rest) => (Peer::Destination, rest),
        _ => return None,
    };
    let attribute = match rest {
        "name" => PeerAttribute::Name,
        "namespace" | "workload.namespace" => PeerAttribute::Namespace,
        "workload" | "workload.name" => PeerAttribute::Workload,
        "service" | "canonical_service" => PeerAttribute::Service,
        "revision" | "canonical_revision" => PeerAttribute::Revision,
        "app" => PeerAttribute::App,
        "version" => PeerAttribute::Version,
        "principal" => PeerAttribute::Principal,
        "labels" => return Some((peer, None)),
        _ => return None,
    };
    Some((peer, Some(attribute)))
}
