//! What is filled into header fields, where a rule has operators in their values.

use std::{borrow::Cow, fmt::Write as _, net::SocketAddr, time::UNIX_EPOCH};

use http::{HeaderMap, StatusCode};
use mesh_core::l7::{
    RequestView as _,
    field_value::{AddressPart, Operator, TimeForm},
};

use super::{
    head::{Head, joined},
    ledger::Ledger,
};
use crate::telemetry::{Moment, protocol};

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
        let (head, ledger, arrival) = (self.head, self.ledger, &self.head.arrival);
        match operator {
            Operator::ClientAddress(part) => address(Some(arrival.client.address), *part, text),
            Operator::PeerAddress(part) => address(Some(arrival.client.peer), *part, text),
            Operator::LocalAddress(part) => address(arrival.local(), *part, text),
            Operator::ClientUris => text.push_str(arrival.client.uris().unwrap_or_default()),
            Operator::ServerName => text.push_str(arrival.target.server_name().unwrap_or_default()),
            Operator::Protocol => text.push_str(protocol(head.parts.version)),
            Operator::Hostname => text.push_str(ledger.hostname()),
            Operator::Start(form) => self.start(*form, text),
            Operator::RequestField(field) => field.value(|name| self.request_field(name), text),
            Operator::ResponseField(field) => {
                field.value(|name| self.response.and_then(|(_, headers)| joined(headers, name)), text);
            }
            Operator::Status => text.push_str(self.response.as_ref().map_or("", |(status, _)| status.as_str())),
            Operator::Endpoint => address(ledger.answered_by(), AddressPart::Whole, text),
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

    fn start(&self, form: TimeForm, text: &mut String) {
        let began = self.ledger.began_at();
        let since = began.duration_since(UNIX_EPOCH).unwrap_or_default();
        // A text takes all that is written.
        let _ = match form {
            TimeForm::Rfc3339 => write!(text, "{}", Moment(began)),
            TimeForm::Seconds => write!(text, "{}", since.as_secs()),
            TimeForm::Milliseconds => write!(text, "{}.{:03}", since.as_secs(), since.subsec_millis()),
        };
    }
}

fn address(address: Option<SocketAddr>, part: AddressPart, text: &mut String) {
    let Some(address) = address else { return };
    // A text takes all that is written.
    let _ = match part {
        AddressPart::Whole => write!(text, "{address}"),
        AddressPart::Address => write!(text, "{}", address.ip()),
        AddressPart::Port => write!(text, "{}", address.port()),
    };
}
