//! What pages of docs/ have mesh-control do on a machine, done in a directory.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::Path;

use mesh_docs::{Page, Shell};

/// Sets the times of the authority's files a day back, and an hour.
const DAY_LATER: &str = "find etc -type f -exec touch -d '25 hours ago' {} +";

#[test]
fn the_authority_is_made_rotated_and_revokes_as_pages_say() {
    let own = Path::new(env!("CARGO_BIN_EXE_mesh-control")).parent().unwrap();
    let mut blocks = 0;
    for page in Page::all() {
        let shell = Shell::new(&[own]).unwrap();
        let etc = shell.directory().join("etc").display().to_string();
        std::fs::create_dir(&etc).unwrap();
        let mut shell = shell.stand_in("/etc/mesh", &etc).stand_in("NODE", "node-a").stand_in("SERIAL", "5af1");
        for block in page.blocks().iter().filter(|block| block.is_run_by("machine")) {
            if block.word("given") == Some("day-later") {
                shell.ends_well(DAY_LATER).unwrap();
            }
            let outcome = shell.run(block).unwrap();
            assert!(outcome.as_said, "{}: {}{outcome:?}", page.path.display(), block.body);
            blocks += 1;
        }
    }
    assert!(blocks > 3, "{blocks}");
}
