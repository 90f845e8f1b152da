//! Questions about hosts of the mesh that pods ask of DNS, and the answers that the kernel gives in place of their resolver
//! (RFC 1035).

use core::hint::black_box;

/// Most hosts, each counted once for every namespace that it is told to alone, that one node answers for.
pub const MAX_HOSTS: usize = 131_072;
/// The scope of hosts that are told to every pod.
pub const EVERYBODY: u64 = 1;
/// How long an answer may be kept, in seconds.
pub const LIFETIME: u32 = 30;
/// The port that DNS is asked at.
pub const PORT: u16 = 53;
/// Octets of a name's labels, each after its length; it has 254 at most, without the root's (RFC 1035, section 2.3.4).
pub const NAME_ROOM: usize = 256;
/// Octets of a question's message that are looked at: a power of two.
pub const SHOWN: usize = 512;
/// Octets before the question (RFC 1035, section 4.1.1).
pub const HEADER: u32 = 12;
/// Most octets of a COOKIE option of both sides, with its kind and length (RFC 7873, section 4).
const MOST_COOKIE: u32 = 4 + 40;
/// Least octets of one: of the client's part alone there is nothing to give back.
const LEAST_COOKIE: u32 = 4 + 16;
/// Room for a message: a place among the octets that are shown, and what is appended there, are each bounded by themselves.
const MESSAGE_ROOM: usize = SHOWN + 64;
/// Most labels of a name.
const MAX_LABELS: u32 = 128;
const MAX_LABEL: u8 = 63;

const A: u16 = 1;
const AAAA: u16 = 28;
/// SVCB and HTTPS (RFC 9460): they may give addresses that nobody of the mesh has given.
const SVCB: u16 = 64;
const HTTPS: u16 = 65;
/// OPT (RFC 6891), its octets without options, and the kind of an option that is a cookie.
const OPT: u16 = 41;
const OPT_LENGTH: u32 = 11;
const COOKIE: u16 = 10;
const CLASS_IN: u16 = 1;

/// A host by its name, for those whom it is told to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostKey {
    /// [`EVERYBODY`], or that of the pods which it is told to ([`AskerRecord::scope`]).
    pub scope: u64,
    /// The labels in lower case as in a message, each after its length, without the root's; zeroes follow.
    pub name: [u8; NAME_ROOM],
}

const _: () = assert!(size_of::<HostKey>() == 264);

impl HostKey {
    /// The key of a host by its name with dots; none where that is no name.
    #[must_use]
    pub fn new(scope: u64, host: &str) -> Option<Self> {
        let mut key = Self { scope, name: [0; NAME_ROOM] };
        let mut place = 0;
        for label in host.split('.') {
            let length = u8::try_from(label.len()).ok().filter(|length| (1..=MAX_LABEL).contains(length))?;
            let end = place + 1 + label.len();
            // Not the last octet, which is the root's.
            let room = key.name.get_mut(place..end).filter(|_| end < NAME_ROOM - 1)?;
            room[0] = length;
            room[1..].copy_from_slice(label.as_bytes());
            room[1..].make_ascii_lowercase();
            place = end;
        }
        Some(key)
    }
}

/// The addresses of a host; all zero where it has none of that family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostRecord {
    /// IPv6, big-endian words.
    pub v6_be: [u32; 4],
    /// IPv4, big-endian.
    pub v4_be: u32,
}

const _: () = assert!(size_of::<HostRecord>() == 20);

/// A pod that is told of hosts, found by its network-namespace cookie.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskerRecord {
    /// Of whose hosts it is told beside everybody's.
    pub scope: u64,
    /// Whether it has an IPv4 address: 0 or 1.
    pub has_v4: u32,
    /// Whether it has an IPv6 address: 0 or 1.
    pub has_v6: u32,
}

const _: () = assert!(size_of::<AskerRecord>() == 16);

/// Memory of a CPU in which a question is read and answered.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What is asked for.
    pub key: HostKey,
    /// The question's message, and then its answer's.
    pub message: [u8; MESSAGE_ROOM],
    /// Octets of the message.
    pub length: u32,
    /// What [`Exchange::forget`] needs.
    number: u32,
}

const _: () = assert!(size_of::<Exchange>() == 848);
const _: () = assert!(MOST_COOKIE as usize <= MESSAGE_ROOM - SHOWN);

/// A question for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The octets up to its end.
    end: u32,
    kind: u16,
    has_opt: bool,
    /// Octets of the cookie that is to be given back.
    cookie: u32,
}

impl Default for Exchange {
    fn default() -> Self {
        let key = HostKey { scope: 0, name: [0; NAME_ROOM] };
        Self { key, message: [0; MESSAGE_ROOM], length: 0, number: 0 }
    }
}

impl Exchange {
    /// Finds what is asked, in the message's first [`SHOWN`] octets, and puts its name into the key; none where it is no
    /// question that could be answered here: it goes to whom it was sent. `read` puts so many octets of the message there, from
    /// [`HEADER`] on; 254 at most.
    #[inline(always)]
    pub fn question(&mut self, read: impl FnOnce(&mut [u8; NAME_ROOM], u32) -> Option<()>) -> Option<Question> {
        // What an answer has, or a question of another sort.
        const ANSWER_OR_OPCODE: u8 = 0b1111_1000;
        let [_, _, flags, _, questions, one, answers, more, authorities, others, additional, few, ..] = self.message;
        if flags & ANSWER_OR_OPCODE != 0 || (questions, one) != (0, 1) {
            return None;
        }
        if answers | more | authorities | others | additional != 0 || few > 1 {
            return None;
        }
        let root = self.root()?;
        let end = root + 5;
        if end > self.length {
            return None;
        }
        let kind = self.short(root + 1);
        if self.short(root + 3) != CLASS_IN || !matches!(kind, A | AAAA | SVCB | HTTPS) {
            return None;
        }
        // The root's name, and a kind.
        let has_opt = few == 1 && end + 3 <= self.length && self.octet(end) == 0 && self.short(end + 1) == OPT;
        let cookie = if has_opt { self.cookie(end + OPT_LENGTH) } else { 0 };
        self.take_name(root - HEADER, read)?;
        Some(Question { end, kind, has_opt, cookie })
    }

    /// Octets of an OPT record's options, before which its length is, where they are a cookie of both sides and nothing else. A client
    /// that has seen the resolver's cookie takes no answer without one; so its own word is given back to it.
    #[inline(always)]
    fn cookie(&self, options: u32) -> u32 {
        let length = u32::from(self.short(options - 2));
        let is_one = self.short(options) == COOKIE && u32::from(self.short(options + 2)) + 4 == length;
        let is_whole = options + length <= self.length && (LEAST_COOKIE..=MOST_COOKIE).contains(&length);
        if is_one && is_whole { length } else { 0 }
    }

    /// Where the name ends: the place of the root's length.
    #[inline(always)]
    fn root(&mut self) -> Option<u32> {
        let mut place = HEADER;
        let mut labels = 0;
        while labels < MAX_LABELS {
            let length = self.octet(place);
            if length == 0 {
                return (place < HEADER + NAME_ROOM as u32 - 1).then_some(self.forget(place));
            }
            if length > MAX_LABEL || place > HEADER + NAME_ROOM as u32 {
                return None;
            }
            place = self.forget(place + 1 + u32::from(length));
            labels += 1;
        }
        None
    }

    /// Puts the name into the key, in lower case. Lengths of labels are below any letter. Each word alike: whatever depends on the
    /// length multiplies what the verifier has to look at.
    #[inline(always)]
    fn take_name(&mut self, length: u32, read: impl FnOnce(&mut [u8; NAME_ROOM], u32) -> Option<()>) -> Option<()> {
        self.key.name = [0; NAME_ROOM];
        read(&mut self.key.name, length)?;
        let mut place = 0;
        while place < NAME_ROOM {
            let mut word = [0; 8];
            word.copy_from_slice(&self.key.name[place..place + 8]);
            self.key.name[place..place + 8].copy_from_slice(&lower_case(u64::from_ne_bytes(word)).to_ne_bytes());
            place += 8;
        }
        Some(())
    }

    /// Makes the message the answer to its own question. Of a family that either side lacks there is no address. `read` puts so many
    /// octets of the question's message there, from that place on; 44 at most.
    #[inline(always)]
    pub fn answer(
        &mut self,
        question: Question,
        (host, asker): (&HostRecord, &AskerRecord),
        read: impl FnOnce(&mut [u8], u32, u32) -> Option<()>,
    ) -> Option<()> {
        let Question { end, kind, has_opt, cookie } = question;
        let has_address = match kind {
            A => asker.has_v4 != 0 && host.v4_be != 0,
            AAAA => asker.has_v6 != 0 && host.v6_be != [0; 4],
            _ => false,
        };
        // An answer by who is asked for it, without an error; what was said of recursion stays said, and there is some.
        self.message[2] = 0b1000_0100 | (self.message[2] & 1);
        self.message[3] = 0b1000_0000;
        self.message[7] = u8::from(has_address);
        self.message[11] = u8::from(has_opt);
        let mut length = self.forget(end);
        if has_address {
            let octets: u16 = if kind == A { 4 } else { 16 };
            // The name is that of the question.
            self.append(length, 0xc00c_u16.to_be_bytes());
            self.append(length + 2, kind.to_be_bytes());
            self.append(length + 4, CLASS_IN.to_be_bytes());
            self.append(length + 6, LIFETIME.to_be_bytes());
            self.append(length + 10, octets.to_be_bytes());
            if kind == A {
                self.append(length + 12, host.v4_be.to_ne_bytes());
                length += 16;
            } else {
                let [a, b, c, d] = host.v6_be;
                self.append(length + 12, a.to_ne_bytes());
                self.append(length + 16, b.to_ne_bytes());
                self.append(length + 20, c.to_ne_bytes());
                self.append(length + 24, d.to_ne_bytes());
                length += 28;
            }
        }
        length = self.forget(length);
        if has_opt {
            // The root's name, OPT, 1232 octets that may be sent, and no more but the cookie.
            self.append(length, [0, 0, 41, 4]);
            self.append(length + 4, [0xd0, 0, 0, 0]);
            self.append(length + 8, [0, 0, cookie as u8]);
            length += OPT_LENGTH;
            if cookie > 0 {
                let place = black_box(length) as usize % SHOWN;
                read(self.message.get_mut(place..)?, end + OPT_LENGTH, cookie)?;
                length += cookie;
            }
        }
        // What follows is summed up in words.
        let length = self.forget(length);
        self.append(length, [0; 4]);
        self.length = length;
        Some(())
    }

    /// The same number, of which neither the compiler knows anything nor the verifier: to that, what follows is then one way, however
    /// many lead there.
    #[inline(always)]
    fn forget(&mut self, number: u32) -> u32 {
        self.number = number;
        black_box(&mut *self).number
    }

    /// The compiler takes bounds for known that the verifier does not see: here and below they are hidden from it.
    #[inline(always)]
    fn octet(&self, place: u32) -> u8 {
        self.message[black_box(place) as usize % SHOWN]
    }

    #[inline(always)]
    fn short(&self, place: u32) -> u16 {
        u16::from_be_bytes([self.octet(place), self.octet(place + 1)])
    }

    #[inline(always)]
    fn append<const N: usize>(&mut self, place: u32, octets: [u8; N]) {
        let place = black_box(place) as usize % SHOWN;
        if let Some(room) = self.message.get_mut(place..place + N) {
            room.copy_from_slice(&octets);
        }
    }
}

/// Eight octets with A to Z in lower case.
#[inline(always)]
const fn lower_case(word: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let sevens = word & (0x7f * EACH);
    let from_a = sevens + (0x80 - b'A' as u64) * EACH;
    let past_z = sevens + (0x7f - b'Z' as u64) * EACH;
    let is_letter = (from_a ^ past_z) & !word & (0x80 * EACH);
    word | (is_letter >> 2)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    const BOTH: AskerRecord = AskerRecord { scope: 7, has_v4: 1, has_v6: 1 };
    const HOST: HostRecord = HostRecord { v6_be: [1, 2, 3, 4], v4_be: 5 };

    fn message(name: &[u8], kind: u16, rest: &[u8]) -> Vec<u8> {
        let few = u8::from(!rest.is_empty());
        let header = [0xab, 0xcd, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, few];
        [&header[..], name, &[0], &kind.to_be_bytes(), &CLASS_IN.to_be_bytes(), rest].concat()
    }

    fn exchange(message: &[u8]) -> Exchange {
        let mut exchange = Exchange::default();
        exchange.message[..message.len()].copy_from_slice(message);
        exchange.length = u32::try_from(message.len()).expect("short");
        exchange
    }

    fn question(exchange: &mut Exchange) -> Option<Question> {
        let message = exchange.message;
        exchange.question(|name, length| {
            let (begin, length) = (HEADER as usize, length as usize);
            name[..length].copy_from_slice(&message[begin..begin + length]);
            Some(())
        })
    }

    fn answered(message: &[u8], host: &HostRecord, asker: AskerRecord) -> Vec<u8> {
        let mut exchange = exchange(message);
        let question = question(&mut exchange).expect("a question");
        let asked = message;
        let answered = exchange.answer(question, (host, &asker), |to, from, length| {
            let (from, length) = (from as usize, length as usize);
            to[..length].copy_from_slice(&asked[from..from + length]);
            Some(())
        });
        assert!(answered.is_some());
        exchange.message[..exchange.length as usize].to_vec()
    }

    #[test]
    fn the_name_that_is_asked_for_is_the_hosts_key_in_whatever_case() {
        for (asked, host) in [
            (&b"\x03aPi\x07EXAMPLE\x03com"[..], "api.example.com"),
            (b"\x01a", "A"),
            (b"\x08a-_90Z@[\x01z", "a-_90z@[.z"),
        ] {
            let mut exchange = exchange(&message(asked, A, &[]));
            assert!(question(&mut exchange).is_some(), "{host}");
            assert_eq!(exchange.key.name, HostKey::new(EVERYBODY, host).expect("a name").name, "{host}");
        }
    }

    #[test]
    fn names_of_every_length_are_told_apart() {
        for length in 1..=253 {
            let host: std::string::String = (1..=length).map(|at| if at % 60 == 0 { '.' } else { 'x' }).collect();
            let Some(key) = HostKey::new(EVERYBODY, &host) else {
                assert_eq!(length % 60, 0, "{host} ends with a dot");
                continue;
            };
            let labels: Vec<u8> = key.name[..=length].to_vec();
            let mut exchange = exchange(&message(&labels, A, &[]));
            exchange.key.name = [0xff; NAME_ROOM];
            assert!(question(&mut exchange).is_some(), "{length}");
            assert_eq!(exchange.key.name, key.name, "{length}");
        }
        assert_eq!(HostKey::new(EVERYBODY, &"x.".repeat(128)), None);
        assert_eq!(HostKey::new(EVERYBODY, &"x".repeat(64)), None);
    }

    #[test]
    fn an_answer_has_the_address_of_the_family_that_is_asked_for() {
        let asked = message(b"\x01a\x01b", A, &[]);
        let answer = answered(&asked, &HOST, BOTH);
        assert_eq!(answer[..12], [0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(answer[12..asked.len()], asked[12..]);
        assert_eq!(answer[asked.len()..][..12], [0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4]);
        assert_eq!(answer[asked.len() + 12..], 5u32.to_ne_bytes());
        let asked = message(b"\x01a\x01b", AAAA, &[]);
        let answer = answered(&asked, &HOST, BOTH);
        assert_eq!(answer[asked.len()..][..12], [0xc0, 0x0c, 0, 28, 0, 1, 0, 0, 0, 30, 0, 16]);
        assert_eq!(answer[asked.len() + 12..], HOST.v6_be.map(u32::to_ne_bytes).concat());
    }

    #[test]
    fn there_is_no_address_of_a_family_that_is_lacking_nor_of_another_kind() {
        let v4 = AskerRecord { has_v6: 0, ..BOTH };
        let v6 = AskerRecord { has_v4: 0, ..BOTH };
        let only_v4 = HostRecord { v6_be: [0; 4], ..HOST };
        for (kind, host, asker) in
            [(A, HOST, v6), (AAAA, HOST, v4), (AAAA, only_v4, BOTH), (SVCB, HOST, BOTH), (HTTPS, HOST, BOTH)]
        {
            let asked = message(b"\x01a", kind, &[]);
            let answer = answered(&asked, &host, asker);
            assert_eq!(answer[2..12], [0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0], "{kind}");
            assert_eq!(answer.len(), asked.len(), "{kind}");
        }
    }

    #[test]
    fn who_speaks_edns_is_answered_in_it_and_nothing_else_of_the_question_is_kept() {
        let opt = [0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 4, 0, 10, 0, 0];
        let asked = message(b"\x01a", A, &opt);
        let answer = answered(&asked, &HOST, BOTH);
        assert_eq!(answer[11], 1);
        assert_eq!(answer[answer.len() - 11..], [0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(answer.len(), asked.len() - opt.len() + 16 + 11);
        // A cookie of both sides is given back, one of the client's alone is not.
        for (octets, is_back) in [(8, false), (15, false), (16, true), (40, true), (41, false)] {
            let cookie = [&[0, 10, 0, octets][..], &(1..=octets).collect::<Vec<u8>>()].concat();
            let opt = [&[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, octets + 4], &cookie[..]].concat();
            let answer = answered(&message(b"\x01a", A, &opt), &HOST, BOTH);
            assert_eq!(answer.ends_with(&cookie), is_back, "{octets}");
            let without = answer.len() - if is_back { cookie.len() } else { 0 };
            assert_eq!(
                answer[..without],
                [&answer[..without - 2], &[0, if is_back { octets + 4 } else { 0 }]].concat()
            );
        }
        // Another record there is no word of EDNS.
        let asked = message(b"\x01a", A, &[0, 0, 250, 0, 0]);
        assert_eq!(answered(&asked, &HOST, BOTH)[11], 0);
    }

    #[test]
    fn whatever_else_is_sent_to_the_port_is_left_alone() {
        let good = message(b"\x01a", A, &[]);
        assert!(question(&mut exchange(&good)).is_some());
        for (place, octet) in [(2, 0x81), (2, 0x09), (4, 1), (5, 2), (5, 0), (6, 1), (7, 1), (9, 1), (10, 1), (11, 2)] {
            let mut other = good.clone();
            other[place] = octet;
            assert_eq!(question(&mut exchange(&other)), None, "{place}");
        }
        for kind in [2, 5, 15, 16, 33, 255] {
            assert_eq!(question(&mut exchange(&message(b"\x01a", kind, &[]))), None, "{kind}");
        }
        // A pointer, a name without an end, one that is too long.
        assert_eq!(question(&mut exchange(&message(b"\xc0\x0c", A, &[]))), None);
        assert_eq!(question(&mut exchange(&message(&[63; 400], A, &[]))), None);
        let long = message(&b"\x01a".repeat(128), A, &[]);
        assert_eq!(question(&mut exchange(&long)), None);
        for length in 0..good.len() {
            let mut short = exchange(&good);
            short.length = u32::try_from(length).expect("short");
            assert_eq!(question(&mut short), None, "{length}");
        }
    }

    #[test]
    fn the_longest_question_and_its_answer_find_room() {
        let labels =
            [&b"\x3f"[..], &[b'x'; 63], b"\x3f", &[b'x'; 63], b"\x3f", &[b'x'; 63], b"\x3d", &[b'x'; 61]].concat();
        let opt = [&[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 44, 0, 10, 0, 40][..], &[7; 40]].concat();
        let answer = answered(&message(&labels, AAAA, &opt), &HOST, BOTH);
        assert_eq!(answer.len(), 12 + 255 + 4 + 28 + 11 + 44);
    }
}
