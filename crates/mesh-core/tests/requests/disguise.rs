//! A path that a policy is about, written in every way that a server may take for it.

use mesh_core::l7::path::normalised;
use mesh_core::policy::Action;
use proptest::prelude::*;

use crate::Request;
use crate::path::lenient;
use crate::policies::{allowed, paths};

/// A way to write one character.
fn written(character: char, way: u8) -> String {
    match way {
        0 => format!("%{:02x}", u32::from(character)),
        1 => format!("%{:02X}", u32::from(character)),
        _ => character.to_string(),
    }
}

/// A way to write a slash.
fn slash(way: u8) -> &'static str {
    match way {
        0 => "//",
        1 => "/./",
        2 => "/zz/../",
        3 => "%2f",
        4 => "%2F%2e/",
        5 => "/zz%2F..%2f",
        6 => "\\",
        7 => "%5c",
        8 => ";x/",
        9 => "/zz/..;y=1/",
        _ => "/",
    }
}

/// What a server makes of a path that ends each segment at its first semicolon.
fn without_parameters(path: &str) -> String {
    let names = path.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
    names.collect::<Vec<_>>().join("/")
}

prop_compose! {
    fn disguised(path: &'static str)(ways in proptest::collection::vec(0_u8..14, path.len())) -> String {
        let characters = path.chars().zip(&ways).enumerate();
        let text: String = characters.map(|(index, (character, way))| match (index, character) {
            (0, _) => "/".to_owned(),
            (_, '/') => slash(*way).to_owned(),
            (_, other) => written(other, *way),
        }).collect();
        text
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_writing_of_a_denied_path_slips_by(path in disguised("/shop/admin/users")) {
        let request = Request::get(&path);
        let policies = [paths(Action::Deny, &["/shop/admin/*"])];
        prop_assert!(!allowed(&policies, &request), "{} as {:?}", path, normalised(&path));
    }

    #[test]
    fn what_is_allowed_stays_so_where_a_server_takes_it_leniently(path in disguised("/shop/open/../admin")) {
        let request = Request::get(&path);
        let policies = [paths(Action::Allow, &["/shop/open/*", "/shop/open/{*}"])];
        for taken_as in [lenient(&request.path), lenient(&without_parameters(&request.path))] {
            let is_open = taken_as.starts_with("/shop/open/");
            prop_assert!(!allowed(&policies, &request) || is_open, "{} as {}", path, taken_as);
        }
    }
}
