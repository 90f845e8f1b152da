//! What is filled into header fields, where a rule has operators in their values.

use std::borrow::Cow;

use http::{HeaderMap, StatusCode};
use mesh_core::l7::{
    RequestView as _,
    field_value::{AddressPart, Operator},
};

use super::{
    head::{Head, joined},
    ledger::Ledger,
};
use crate::telemetry::{protocol, put_address, put_of_arrival, put_start};

/// What a header is about.
pub(super) struct About<'a> {
    /// The request.
    pub(super) head: &'a Head,
    /// Its account.
    pub(super) ledger: &'a Ledger,
    /// The response, where it is a response's header.
    pub(super) response: Option<(StatusCode, &'a HeaderMap)>,
}

impl About<'_> {
    /// Writes what an operator stands for; nothing where there is nothing.
    pub(super) fn fill(&self, operator: &Operator, text: &mut String) {
        let (head, ledger) = (self.head, self.ledger);
        match operator {
            Operator::Protocol => text.push_str(protocol(head.parts.version)),
            Operator::Start(form) => put_start(ledger.began_at(), *form, text),
            Operator::RequestField(field) => field.value(|name| self.request_field(name), text),
            Operator::ResponseField(field) => {
                field.value(|name| self.response.and_then(|(_, headers)| joined(headers, name)), text);
            }
            Operator::Status => text.push_str(self.response.as_ref().map_or("", |(status, _)| status.as_str())),
            Operator::Endpoint => put_address(ledger.answered_by(), AddressPart::Whole, text),
            operator => {
                put_of_arrival(operator, &head.arrival, ledger.hostname(), text);
            }
        }
    }

    fn request_field(&self, name: &str) -> Option<Cow<'_, str>> {
        let head = self.head;
        match name {
            ":authority" | "host" => Some(head.authority.as_str().into()),
            ":method" => Some(head.method().into()),
            ":path" => Some(head.target.as_str().into()),
            ":scheme" => Some(head.scheme().into()),
            name => head.header(name),
        }
    }
}
