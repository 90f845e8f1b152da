//! Paths of requests: one form for all writings of a path, and no dot segment in any reading of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh_core::l7::path::{Readings, normalised};
use mesh_core::policy::request::template;

fuzz_target!(|texts: (&str, &str)| {
    let (path, pattern) = texts;
    if let Ok(once) = normalised(path) {
        assert!(once.starts_with('/') && once.is_ascii());
        assert_eq!(normalised(&once).as_deref(), Ok(&*once), "a normal form is its own");
        for reading in Readings::of(&once).each() {
            assert!(!reading.split('/').any(|segment| matches!(segment, "." | "..")), "{reading}");
        }
        if let Ok(template) = template(pattern) {
            template.matches(&once);
        }
    }
});
