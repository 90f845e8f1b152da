//! Paths in normal form, against the words of RFC 3986.

use mesh_core::l7::path::{PathError, Readings, normalised};
use proptest::prelude::*;

#[test]
fn a_path_has_one_form() {
    for (written, expected) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a/...", "/a/..."),
        ("/%61dmin", "/admin"),
        ("/a/%2e%2E/b", "/b"),
        ("/a%2fb", "/a%2Fb"),
        ("/a//b", "/a//b"),
        ("/a\\..\\b", "/b"),
        ("/caf\u{e9}", "/caf%C3%A9"),
        ("/a%20b", "/a%20b"),
        ("/%7Euser", "/~user"),
        ("/%252e%252e/b", "/%252e%252e/b"),
    ] {
        assert_eq!(normalised(written).as_deref(), Ok(expected), "{written:?}");
    }
}

#[test]
fn what_has_no_one_meaning_is_refused() {
    for (written, expected) in [
        ("", PathError::NotAbsolute),
        ("a/b", PathError::NotAbsolute),
        ("*", PathError::NotAbsolute),
        ("/%", PathError::Escape),
        ("/%4", PathError::Escape),
        ("/%zz", PathError::Escape),
        ("/a%00b", PathError::Octet),
        ("/a%0db", PathError::Octet),
        ("/a%7f", PathError::Octet),
        ("/a b", PathError::Octet),
        ("/a\tb", PathError::Octet),
        ("/a#b", PathError::Octet),
        ("/a?b", PathError::Octet),
    ] {
        assert_eq!(normalised(written), Err(expected), "{written:?}");
    }
}

#[test]
fn a_lenient_server_may_read_another_path() {
    let readings = |path: &str| Readings::of(path).each().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(readings("/a/b"), ["/a/b"]);
    assert_eq!(readings("/a//b"), ["/a//b", "/a/b"]);
    assert_eq!(readings("/a%2F..%2Fb"), ["/a%2F..%2Fb", "/b"]);
    assert_eq!(readings("/a%5Cb"), ["/a%5Cb", "/a/b"]);
}

#[test]
fn a_server_may_pass_over_the_parameters_of_a_segment() {
    let reads = |path: &str, reading: &str| Readings::of(path).each().any(|read| read == reading);
    for path in ["/admin;x", "/admin;", "/admin%3Bx", "/admin;a=b;c", "/;x/admin", "/a/..;/admin", "/a/..;y=%2F/admin"]
    {
        assert!(reads(path, path), "{path}: as it is written");
        assert!(reads(path, "/admin") || reads(path, "//admin"), "{path}: {:?}", Readings::of(path));
    }
    // A slash within a parameter is one to whoever unescapes first, and none to others.
    for reading in ["/admin", "/admin/y"] {
        assert!(reads("/admin;x%2Fy", reading), "{reading}");
    }
    assert_eq!(Readings::of("/a.b-c=d,e").each().count(), 1);
}

/// Octets as they are, or escaped: one at a time.
fn slow(path: &str) -> Option<String> {
    let mut octets = path.bytes();
    let mut text = String::new();
    while let Some(octet) = octets.next() {
        let (octet, escaped) = match octet {
            b'%' => {
                let digits = [octets.next()?, octets.next()?];
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return None;
                }
                (u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?, true)
            }
            octet => (octet, false),
        };
        let unreserved = octet.is_ascii_alphanumeric() || b"-._~".contains(&octet);
        if octet < 0x20 || octet == 0x7f || (!escaped && b" #?".contains(&octet)) {
            return None;
        }
        match (octet, escaped) {
            (b'\\', false) => text.push('/'),
            _ if unreserved || (!escaped && octet < 0x80) => text.push(char::from(octet)),
            _ => text.push_str(&format!("%{octet:02X}")),
        }
    }
    text.starts_with('/').then(|| remove_dot_segments(text))
}

/// What a server makes of a path that undoes every escaped slash and takes several slashes for one.
pub(crate) fn lenient(path: &str) -> String {
    let octets = path.replace("%2F", "/").replace("%5C", "/");
    let segments: Vec<_> = octets.split('/').filter(|segment| !segment.is_empty()).collect();
    let end = if octets.ends_with('/') { "/" } else { "" };
    remove_dot_segments(format!("/{}{end}", segments.join("/")))
}

/// RFC 3986, section 5.2.4, step by step.
fn remove_dot_segments(mut input: String) -> String {
    let mut output = String::new();
    while !input.is_empty() {
        if input.starts_with("/./") || input == "/." {
            input = format!("/{}", input.get(3..).unwrap_or_default());
        } else if input.starts_with("/../") || input == "/.." {
            input = format!("/{}", input.get(4..).unwrap_or_default());
            output.truncate(output.rfind('/').unwrap_or(0));
        } else {
            let end = input[1..].find('/').map_or(input.len(), |index| index + 1);
            output.push_str(&input[..end]);
            input = input.split_off(end);
        }
    }
    output
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_form_is_that_of_the_standard(path in "/([a./\\\\%é; ~]|%2e|%3b|%2F|%5c|%41|\\.\\.|%0a){0,12}") {
        prop_assert_eq!(normalised(&path).ok().map(|path| path.into_owned()), slow(&path));
    }

    #[test]
    fn a_normal_form_is_its_own_and_has_no_dots(path in "\\PC{0,40}") {
        let path = format!("/{path}");
        if let Ok(once) = normalised(&path) {
            let again = normalised(&once).map(|path| path.into_owned());
            prop_assert_eq!(again.as_deref(), Ok(&*once));
            for reading in Readings::of(&once).each() {
                prop_assert!(!reading.split('/').any(|segment| segment == "." || segment == ".."), "{}", reading);
            }
        }
    }
}
