//! Answers of our own: by HTTP's statuses and by gRPC's, with the reason in Envoy's words, which people search for.

use std::{borrow::Cow, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, WWW_AUTHENTICATE},
};

use mesh_core::{policy::Denial, rate_limit::RateLimit};
use mesh_ext_authz::Denied;

use super::{body::ReplyBody, edits, ledger::Ledger};
use crate::{
    inbound::Stalled,
    telemetry::{BadInput, Sender},
    upstream::UpstreamError,
};

/// Why a response is what it is, by Envoy's response flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    /// `-`: as the upstream gave it.
    None,
    /// `NC`: a route to what is not there.
    NoCluster,
    /// `NR`: no rule of a route matches.
    NoRoute,
    /// `UT`: the upstream took too long.
    UpstreamTimeout,
    /// `URX`: it was tried as often as it may.
    RetriesExhausted,
    /// `FI`: a fault was injected.
    FaultInjected,
    /// `DI`: a delay was injected.
    DelayInjected,
    /// `RBAC`: a policy refuses it.
    Denied,
    /// `RL`: a limit has no token left.
    RateLimited,
    /// `UAEX`: an external authorizer refuses it, or gives no answer.
    Unauthorized,
    /// `UH`: no healthy upstream.
    NoHealthyUpstream,
    /// `UF`: the upstream cannot be connected.
    UpstreamFailure,
    /// `UO`: a bound is reached.
    Overflow,
    /// `UC`: the upstream closed the connection.
    UpstreamTermination,
    /// `UPE`: the upstream broke its protocol.
    UpstreamProtocol,
    /// `DC`: the client went away.
    DownstreamTermination,
    /// `DPE`: the client broke its protocol.
    DownstreamProtocol,
    /// `SI`: nothing moved for too long.
    StreamIdle,
    /// `OM`: there is no room for more.
    Overload,
}

impl Flag {
    /// Why an upstream cannot be asked.
    pub(crate) const fn of(error: &UpstreamError) -> Self {
        match error {
            UpstreamError::NoEndpoint => Self::NoHealthyUpstream,
            UpstreamError::NoCluster(_) => Self::NoCluster,
            UpstreamError::Overflow(_) => Self::Overflow,
            UpstreamError::Denied(_) => Self::Denied,
            UpstreamError::NoProtocols => Self::UpstreamProtocol,
            UpstreamError::Refused(_)
            | UpstreamError::Connect(_)
            | UpstreamError::Unanswered(_)
            | UpstreamError::ConnectTimeout => Self::UpstreamFailure,
        }
    }

    /// As Istio's metrics and logs have it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::NoCluster => "NC",
            Self::NoRoute => "NR",
            Self::UpstreamTimeout => "UT",
            Self::RetriesExhausted => "URX",
            Self::FaultInjected => "FI",
            Self::DelayInjected => "DI",
            Self::Denied => "RBAC",
            Self::RateLimited => "RL",
            Self::Unauthorized => "UAEX",
            Self::NoHealthyUpstream => "UH",
            Self::UpstreamFailure => "UF",
            Self::Overflow => "UO",
            Self::UpstreamTermination => "UC",
            Self::UpstreamProtocol => "UPE",
            Self::DownstreamTermination => "DC",
            Self::DownstreamProtocol => "DPE",
            Self::StreamIdle => "SI",
            Self::Overload => "OM",
        }
    }
}

impl Flag {
    /// Why a response is what it is, in Envoy's words (`response_code_details`).
    pub(super) const fn details(self, is_upstreams: bool) -> &'static str {
        match self {
            Self::NoCluster => "cluster_not_found",
            Self::NoRoute => "route_not_found",
            Self::UpstreamTimeout | Self::RetriesExhausted => "response_timeout",
            Self::FaultInjected => "fault_filter_abort",
            Self::Denied => "rbac_access_denied_matched_policy",
            Self::RateLimited => "local_rate_limited",
            Self::Unauthorized => "ext_authz_denied",
            Self::NoHealthyUpstream => "no_healthy_upstream",
            Self::UpstreamFailure => "upstream_reset_before_response_started{connection_failure}",
            Self::Overflow => "overflow",
            Self::UpstreamTermination => "upstream_reset_before_response_started{connection_termination}",
            Self::UpstreamProtocol => "upstream_reset_before_response_started{protocol_error}",
            Self::DownstreamTermination => "downstream_remote_disconnect",
            Self::DownstreamProtocol => "http1.codec_error",
            Self::StreamIdle => "stream_idle_timeout",
            Self::Overload => "overload",
            Self::None | Self::DelayInjected if is_upstreams => "via_upstream",
            Self::None | Self::DelayInjected => "direct_response",
        }
    }
}

/// An answer that no upstream gave.
#[derive(Debug)]
pub(super) struct Refusal {
    status: u16,
    text: Cow<'static, str>,
    flag: Flag,
    /// gRPC's status, where it is not that of HTTP's.
    grpc: Option<u32>,
    /// What the client did to be refused, where it broke HTTP's rules.
    bad_input: Option<BadInput>,
    /// Which policy refuses it.
    denial: Option<String>,
    /// How the client may show who it is.
    challenge: Option<HeaderValue>,
    /// What an authorizer has written for the client.
    written: Option<Box<Denied>>,
    /// The limit that has no token left.
    limit: Option<Arc<RateLimit>>,
}

impl Refusal {
    pub(super) fn new(status: u16, text: impl Into<Cow<'static, str>>, flag: Flag) -> Self {
        Self {
            status,
            text: text.into(),
            flag,
            grpc: None,
            bad_input: None,
            denial: None,
            challenge: None,
            written: None,
            limit: None,
        }
    }

    /// What a client is told that broke HTTP's rules.
    pub(super) fn of_bad_input(status: u16, text: impl Into<Cow<'static, str>>, what: BadInput) -> Self {
        Self { bad_input: Some(what), ..Self::new(status, text, Flag::DownstreamProtocol) }
    }

    /// One by gRPC's status, whoever asks.
    pub(super) fn of_grpc(status: u32, text: impl Into<Cow<'static, str>>, flag: Flag) -> Self {
        Self { grpc: Some(status), ..Self::new(200, text, flag) }
    }

    /// Whether a connection of HTTP/1 ends with it: the client broke HTTP's rules, or has not sent what it began.
    pub(super) fn ends_connection(&self) -> bool {
        self.bad_input.is_some() || self.flag == Flag::StreamIdle
    }

    /// Why, by its flag.
    pub(super) const fn flag(&self) -> Flag {
        self.flag
    }

    /// Why, in words that are not for the client.
    pub(super) fn reason(&self) -> &str {
        self.denial.as_deref().unwrap_or(&self.text)
    }

    /// The same for another reason.
    pub(super) fn because(self, flag: Flag) -> Self {
        Self { flag, ..self }
    }

    /// The same with what tells a client how to show who it is.
    pub(super) fn with_challenge(self, challenge: Option<HeaderValue>) -> Self {
        Self { challenge, ..self }
    }

    /// What a limit refuses, in Envoy's words.
    pub(super) fn of_limit(limit: Arc<RateLimit>) -> Self {
        let refusal = Self::new(limit.answer.status, "local_rate_limited", Flag::RateLimited);
        let denial = Some(format!("{}: {limit}", limit.at));
        Self { denial, limit: Some(limit), ..refusal }
    }

    /// What policies refuse. Who is refused is not told which of them it was.
    pub(super) fn of_denial(denial: &Denial) -> Self {
        tracing::info!(%denial, "request denied");
        Self { denial: Some(denial.to_string()), ..Self::new(403, "RBAC: access denied", Flag::Denied) }
    }

    /// What an authorizer refuses, in its own words.
    pub(super) fn of_authorizer(denied: Denied, provider: &str) -> Self {
        let text = String::from_utf8_lossy(&denied.body).into_owned();
        let denial = Some(format!("authorizer {provider} denies it"));
        let refusal = Self::new(denied.status.as_u16(), text, Flag::Unauthorized);
        Self { denial, written: Some(Box::new(denied)), ..refusal }
    }

    /// The response: to a client of gRPC 200 with gRPC's status, since it looks at no other (gRPC over HTTP/2, Responses).
    pub(super) fn into_response(self, ledger: Rc<Ledger>) -> Response<ReplyBody> {
        ledger.note_flag(self.flag);
        if let Some(what) = self.bad_input {
            ledger.note_bad_input(Sender::Client, what);
        }
        ledger.note_refusal(&self);
        let is_grpc = ledger.is_grpc() || self.grpc.is_some();
        let body = match &self.written {
            _ if is_grpc => Bytes::new(),
            Some(written) => written.body.clone(),
            None => Bytes::from(self.text.clone().into_owned()),
        };
        let has_body = !body.is_empty();
        let mut response = Response::new(ReplyBody::text(body, ledger));
        let headers = response.headers_mut();
        if let Some(written) = self.written {
            headers.clone_from(&written.headers);
        }
        if let Some(limit) = &self.limit {
            edits::apply_as_written(&limit.answer.headers, headers);
        }
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if is_grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            let status = self.grpc.or_else(|| Some(self.limit.as_ref()?.answer.grpc));
            headers.insert("grpc-status", HeaderValue::from(status.unwrap_or_else(|| grpc_status(self.status))));
            if let Ok(message) = HeaderValue::try_from(percent_encoded(&self.text)) {
                headers.insert("grpc-message", message);
            }
            return response;
        }
        if has_body && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        *response.status_mut() = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response
    }
}

/// What a client is told of an upstream that cannot be asked.
pub(super) fn of_upstream(error: &UpstreamError) -> Refusal {
    let unreached =
        |reason: &str| format!("upstream connect error or disconnect/reset before headers. reset reason: {reason}");
    let text = match error {
        UpstreamError::NoEndpoint | UpstreamError::NoCluster(_) | UpstreamError::NoProtocols => error.to_string(),
        UpstreamError::Overflow(_) => unreached("overflow"),
        UpstreamError::Refused(refusal) => refusal.to_string(),
        UpstreamError::Denied(denial) => return Refusal::of_denial(denial),
        UpstreamError::Connect(_) | UpstreamError::Unanswered(_) | UpstreamError::ConnectTimeout => {
            tracing::debug!(%error, "endpoint not connected");
            let timed_out = !matches!(error, UpstreamError::Connect(_));
            unreached(if timed_out { "connection timeout" } else { "connection failure" })
        }
    };
    Refusal::new(503, text, Flag::of(error))
}

/// What a client is told of an upstream that takes too long.
pub(super) fn timed_out() -> Refusal {
    Refusal::new(504, "upstream request timeout", Flag::UpstreamTimeout)
}

/// What a client is told that let its request wait, or that waited for an answer that nobody gave.
pub(super) fn stalled(why: Stalled) -> Refusal {
    Refusal::new(if why == Stalled::Quiet { 504 } else { 408 }, "stream timeout", Flag::StreamIdle)
}

/// What a client is told while there is no room for more.
pub(super) fn overloaded() -> Refusal {
    Refusal::new(503, "overloaded", Flag::Overload)
}

/// By gRPC's table of HTTP statuses (doc/http-grpc-status-mapping.md).
const fn grpc_status(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// `grpc-message` is percent-encoded (gRPC over HTTP/2, Status-Message).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
