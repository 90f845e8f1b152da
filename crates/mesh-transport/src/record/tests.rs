//! Two ends of real handshakes made by rustls in memory, and everything that can happen to records between them.

use std::sync::Arc;

use mesh_core::{SpiffeId, TrustDomain};
use proptest::prelude::*;
use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, UnbufferedStatus};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use super::*;
use crate::ca::CertificateAuthority;
use crate::tls::{Carriers, TlsIdentity, provider};

fn configs(suite: usize) -> (Arc<ClientConfig>, Arc<ServerConfig>) {
    let (domain, now) = (TrustDomain::default(), std::time::SystemTime::now());
    let authority = CertificateAuthority::generate(&domain, now).expect("authority");
    let identity = SpiffeId::new(&domain, "shop", "cart").expect("valid");
    let certificate = authority.issue(&identity, crate::identities::CERTIFICATE_LIFETIME, now);
    let peers = Arc::new(crate::trust::PeerVerifier::new(authority.trust().clone()).expect("roots"));
    let tls =
        TlsIdentity::new(certificate.expect("issued"), peers.clone(), &domain, Carriers::default()).expect("usable");
    let certified = tls.client(&identity).expect("config").client_auth_cert_resolver.clone();
    let mut only = rustls::crypto::CryptoProvider::clone(&provider());
    only.cipher_suites = vec![only.cipher_suites[suite]];
    let verifier = crate::verify::ExpectedServer::new(peers, identity);
    let mut client = ClientConfig::builder_with_provider(Arc::new(only))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(certified);
    client.enable_secret_extraction = true;
    client.alpn_protocols = vec![crate::direct::ALPN.to_vec()];
    (Arc::new(client), tls.server.clone())
}

/// Takes one step of a handshake: reads from `input`, appends to `output`. True when there is nothing more to do now.
macro_rules! step {
    ($connection:expr, $input:expr, $output:expr) => {{
        let UnbufferedStatus { discard, state, .. } = $connection.process_tls_records($input);
        let blocked = match state.expect("handshake") {
            ConnectionState::EncodeTlsData(mut data) => {
                let mut room = vec![0; 20_000];
                let count = data.encode(&mut room).expect("encoded");
                $output.extend_from_slice(&room[..count]);
                false
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                false
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => true,
            other => panic!("{other:?}"),
        };
        $input.drain(..discard);
        blocked
    }};
}

/// The keys of both ends after a handshake with the given cipher suite.
fn ends(suite: usize) -> (Keys, Keys) {
    let (client, server) = configs(suite);
    let name = ServerName::IpAddress(std::net::IpAddr::from([127, 0, 0, 1]).into());
    let mut client = UnbufferedClientConnection::new(client, name).expect("client");
    let mut server = UnbufferedServerConnection::new(server).expect("server");
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    while client.is_handshaking() || server.is_handshaking() || !to_server.is_empty() {
        while !step!(client, &mut to_client, to_server) {}
        while !step!(server, &mut to_server, to_client) {}
    }
    let (secrets, kernel) = client.dangerous_into_kernel_connection().expect("client's secrets");
    let client = Keys::new(secrets, Kernel::Client(kernel)).expect("client's keys");
    let (secrets, kernel) = server.dangerous_into_kernel_connection().expect("server's secrets");
    (client, Keys::new(secrets, Kernel::Server(kernel)).expect("server's keys"))
}

/// A sealed record of `content`, with a KeyUpdate before it when one is due.
fn sealed(keys: &mut Keys, content: &[u8]) -> Vec<u8> {
    let mut wire = keys.key_update().expect("update").map_or_else(Vec::new, |update| update.to_vec());
    let start = wire.len();
    wire.resize(start + content.len() + OVERHEAD, 0);
    wire[start + HEADER..][..content.len()].copy_from_slice(content);
    keys.seal(&mut wire[start..]).expect("sealed");
    wire
}

/// Everything that `keys` opens in `wire`, and how many bytes were left.
fn opened(keys: &mut Keys, wire: &mut [u8]) -> Result<(Vec<u8>, usize), RecordError> {
    let (mut plain, mut used) = (Vec::new(), 0);
    loop {
        match keys.open(&mut wire[used..])? {
            Opened::Incomplete => return Ok((plain, wire.len() - used)),
            Opened::Closed => return Err(RecordError::Alert(0)),
            Opened::Handled { length } => used += length,
            Opened::Data { content, length } => {
                plain.extend_from_slice(&wire[used..][content]);
                used += length;
            }
        }
    }
}

#[test]
fn records_pass_both_ways_with_every_cipher_suite() {
    for suite in 0..3 {
        let (mut client, mut server) = ends(suite);
        for content in [&[][..], b"x", &[7; MAX_CONTENT]] {
            let mut wire = sealed(&mut client, content);
            assert_eq!(opened(&mut server, &mut wire), Ok((content.to_vec(), 0)));
            let mut wire = sealed(&mut server, content);
            assert_eq!(opened(&mut client, &mut wire), Ok((content.to_vec(), 0)));
        }
    }
}

#[test]
fn keys_are_renewed_before_their_limit_and_on_request() {
    let (mut client, mut server) = ends(0);
    client.update_every(3);
    for round in 0..20_u8 {
        let mut wire = sealed(&mut client, &[round; 100]);
        let renewed = wire.len() > 100 + OVERHEAD;
        assert_eq!(renewed, round > 0 && round % 3 == 0, "round {round}");
        assert_eq!(opened(&mut server, &mut wire), Ok((vec![round; 100], 0)));
    }
    // update_requested: the answer comes with the next record.
    let mut asking = client.handshake_record(&[24, 0, 0, 1, 1]);
    client.renew_tx();
    assert_eq!(opened(&mut server, &mut asking), Ok((vec![], 0)));
    let mut wire = sealed(&mut server, b"answer");
    assert!(wire.len() > 6 + OVERHEAD, "no KeyUpdate in answer to one");
    assert_eq!(opened(&mut client, &mut wire), Ok((b"answer".to_vec(), 0)));
    let mut wire = sealed(&mut client, b"on");
    assert_eq!(opened(&mut server, &mut wire), Ok((b"on".to_vec(), 0)));
}

#[test]
fn tickets_are_passed_over_even_in_pieces_and_only_by_clients() {
    let ticket: Vec<u8> = [&[4, 0, 0, 200][..], &[9; 200]].concat();
    let (mut client, mut server) = ends(0);
    for piece in [&ticket[..], &ticket[..50], &ticket[50..], &[&ticket[..], &ticket[..]].concat()] {
        let mut wire = server.handshake_record(piece);
        assert_eq!(opened(&mut client, &mut wire), Ok((vec![], 0)));
    }
    let mut wire = sealed(&mut server, b"data");
    assert_eq!(opened(&mut client, &mut wire), Ok((b"data".to_vec(), 0)));
    let mut wire = client.handshake_record(&ticket);
    assert_eq!(opened(&mut server, &mut wire), Err(RecordError::Handshake(4)));
}

#[test]
fn other_handshake_messages_end_the_connection() {
    for message in [&[1, 0, 0, 0][..], &[24, 0, 0, 1, 2], &[24, 0, 0, 2, 0, 0], &[24, 0, 0, 1, 0, 4], &[24, 0], &[4, 0]]
    {
        let (mut client, mut server) = ends(0);
        let mut wire = server.handshake_record(message);
        assert_eq!(opened(&mut client, &mut wire), Err(RecordError::Handshake(message[0])), "{message:?}");
    }
}

#[test]
fn close_notify_is_an_end_and_another_alert_an_error() {
    let (mut client, mut server) = ends(0);
    let mut wire = server.close_notify().expect("sealed");
    assert_eq!(client.open(&mut wire), Ok(Opened::Closed));
    let mut wire = server.alert_record(&[2, 80]);
    assert_eq!(client.open(&mut wire), Err(RecordError::Alert(80)));
}

#[test]
fn lengths_and_types_outside_of_tls_are_refused_before_anything_is_opened() {
    let (mut client, _) = ends(0);
    for (header, error) in [
        ([20, 3, 3, 0, 1], RecordError::Type(20)),
        ([22, 3, 3, 0, 40], RecordError::Type(22)),
        ([23, 3, 3, 0, 16], RecordError::Length(21)),
        ([23, 3, 3, 0x41, 0x01], RecordError::Length(5 + 0x4101)),
        ([23, 3, 3, 0xff, 0xff], RecordError::Length(5 + 0xffff)),
    ] {
        assert_eq!(client.open(&mut header.clone()), Err(error));
    }
}

#[test]
fn a_record_that_is_repeated_left_out_or_swapped_is_refused() {
    let (mut client, mut server) = ends(0);
    let (first, second) = (sealed(&mut client, b"first"), sealed(&mut client, b"second"));
    assert_eq!(opened(&mut server, &mut second.clone()), Err(RecordError::Authentication));
    let (mut client, mut server) = ends(0);
    let again = sealed(&mut client, b"first");
    assert!(opened(&mut server, &mut again.clone()).is_ok());
    assert_eq!(opened(&mut server, &mut again.clone()), Err(RecordError::Authentication));
    drop(first);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_contents_in_any_pieces_arrive_as_they_were(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..8),
        cut in 1..2000_usize, suite in 0..3_usize, every in 1..5_u64,
    ) {
        let (mut client, mut server) = ends(suite);
        client.update_every(every);
        let wire: Vec<u8> = contents.iter().flat_map(|content| sealed(&mut client, content)).collect();
        let (mut pending, mut got) = (Vec::new(), Vec::new());
        for piece in wire.chunks(cut) {
            pending.extend_from_slice(piece);
            let (plain, rest) = opened(&mut server, &mut pending).expect("opens");
            got.extend(plain);
            pending.drain(..pending.len() - rest);
        }
        prop_assert!(pending.is_empty());
        prop_assert_eq!(got, contents.concat());
    }

    #[test]
    fn a_changed_bit_is_never_data(content in prop::collection::vec(any::<u8>(), 0..200), at: prop::sample::Index, bit in 0..8_u8) {
        let (mut client, mut server) = ends(0);
        let mut wire = sealed(&mut client, &content);
        let at = at.index(wire.len());
        wire[at] ^= 1 << bit;
        // A longer length waits for bytes that never come; everything else is an error.
        if let Ok((plain, rest)) = opened(&mut server, &mut wire) {
            prop_assert!(plain.is_empty() && rest > 0);
        }
    }

    #[test]
    fn no_bytes_make_opening_panic(mut bytes: Vec<u8>) {
        let (mut client, _) = ends(0);
        let _ = opened(&mut client, &mut bytes);
        let mut framed = [&[23, 3, 3, 0, 40][..], &bytes].concat();
        let _ = opened(&mut client, &mut framed);
    }
}
