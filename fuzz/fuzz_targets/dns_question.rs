//! Questions to DNS that pods send, as the kernel's programs read and answer them: an answer is of the question, and no longer than its
//! room, whatever was sent.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_abi::{
    AskerRecord, Exchange, HostRecord,
    dns::{EVERYBODY, HEADER, SHOWN},
};

const HOST: HostRecord = HostRecord { v6_be: [1, 2, 3, 4], v4_be: 5 };
const ASKER: AskerRecord = AskerRecord { scope: EVERYBODY, has_v4: 1, has_v6: 1 };
/// A datagram that no fragment has to carry.
const MOST: usize = 512;

fuzz_target!(|data: &[u8]| {
    let shown = &data[..data.len().min(SHOWN)];
    let mut exchange = Exchange::default();
    exchange.message[..shown.len()].copy_from_slice(shown);
    exchange.length = shown.len() as u32;
    let octets = |from: u32, length: u32| data.get(from as usize..(from + length) as usize);
    let question = exchange.question(|name, length| {
        name[..length as usize].copy_from_slice(octets(HEADER, length)?);
        Some(())
    });
    let Some(question) = question else { return };
    let name = exchange.key.name;
    assert!(!name.iter().any(u8::is_ascii_uppercase) && name[254..] == [0, 0]);
    let answered = exchange.answer(question, (&HOST, &ASKER), |to, from, length| {
        to[..length as usize].copy_from_slice(octets(from, length)?);
        Some(())
    });
    assert!(answered.is_some());
    let answer = &exchange.message[..exchange.length as usize];
    assert!(answer.len() <= MOST && answer[..2] == data[..2] && answer[2] & 0x80 != 0);
    // The question is as it was, in whatever case.
    let end = HEADER as usize + name.iter().rposition(|octet| *octet != 0).map_or(0, |last| last + 1) + 5;
    assert_eq!(answer[HEADER as usize..end], data[HEADER as usize..end]);
});
