//! The text of REQUEST and RESPONSE.

use std::fmt::Write as _;

use http::StatusCode;

use super::TunnelError;
use crate::hbone::{Authority, TunnelRequest, forwarded_header, parse_forwarded};

/// The target, then the headers, a line each. A value with a control character is left out.
pub(crate) fn encode_request(request: &TunnelRequest) -> Vec<u8> {
    let mut text = request.authority.to_string();
    let forwarded = request.forwarded.map(forwarded_header);
    for (name, value) in
        [("forwarded", &forwarded), ("baggage", &request.baggage), ("traceparent", &request.traceparent)]
    {
        if let Some(value) = value.as_ref().filter(|value| !value.contains(char::is_control)) {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{name}: {value}");
        }
    }
    text.into_bytes()
}

/// Reads what [`encode_request`] writes. Headers of other names are passed over, for later versions.
pub(crate) fn parse_request(payload: &[u8]) -> Result<TunnelRequest, TunnelError> {
    let text = str::from_utf8(payload).map_err(|_| TunnelError::Malformed("REQUEST: not text"))?;
    let mut lines = text.split('\n');
    let authority = Authority::parse(lines.next().unwrap_or(""))
        .map_err(|_| TunnelError::Malformed("REQUEST: the target is neither IP:PORT nor HOST:PORT"))?;
    let mut request = TunnelRequest { authority, forwarded: None, baggage: None, traceparent: None };
    for line in lines {
        let (name, value) = line.split_once(": ").ok_or(TunnelError::Malformed("REQUEST: a header without a value"))?;
        match name {
            "forwarded" => request.forwarded = parse_forwarded(value),
            "baggage" => request.baggage = Some(value.to_owned()),
            "traceparent" => request.traceparent = Some(value.to_owned()),
            _ => {}
        }
    }
    Ok(request)
}

/// Reads a RESPONSE.
pub(crate) fn parse_status(payload: &[u8]) -> Result<StatusCode, TunnelError> {
    StatusCode::from_bytes(payload).map_err(|_| TunnelError::Malformed("RESPONSE: no status"))
}

#[cfg(test)]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_request_survives_its_text(
            ip: std::net::IpAddr, port in 1_u16..,
            forwarded in option::of(any::<(std::net::IpAddr, u16)>()),
            baggage in option::of("[ -~]{0,200}"), traceparent in option::of("[0-9a-f-]{55}"),
        ) {
            let request =
                TunnelRequest { authority: std::net::SocketAddr::new(ip, port).into(), forwarded: forwarded.map(Into::into), baggage, traceparent };
            let parsed = parse_request(&encode_request(&request)).expect("own text");
            prop_assert_eq!(parsed, request);
        }

        #[test]
        fn no_bytes_make_the_parsers_panic(bytes: Vec<u8>) {
            let _ = (parse_request(&bytes), parse_status(&bytes));
        }
    }

    #[test]
    fn a_value_cannot_smuggle_a_line() {
        let request = TunnelRequest {
            authority: Authority::parse("10.1.0.5:80").expect("valid"),
            forwarded: None,
            baggage: Some("a\ntraceparent: forged".to_owned()),
            traceparent: None,
        };
        let parsed = parse_request(&encode_request(&request)).expect("own text");
        assert_eq!((parsed.baggage, parsed.traceparent), (None, None));
    }

    #[test]
    fn targets_that_are_neither_address_nor_name_are_malformed() {
        for bad in ["", "cart.shop", "10.1.0.5", "10.1.0.5:0", "10.1.0.5:80\nbaggage", "10.1.0.5:80\n"] {
            assert!(parse_request(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
