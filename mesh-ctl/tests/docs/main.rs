//! What docs/ says is so: manifests are in force without an error, commands are run by a test or say why not, outputs are what
//! is printed, links lead somewhere. What is done with a block the words after its language say; tests/docs/src/words.rs
//! describes them.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod world;

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use mesh_docs::{Block, INSTALLATION, Page, RUNNERS, arguments_of, root};
use serde_json::Value;
use world::World;

/// Folders whose pages must say by which tests what they describe is held.
const DESCRIBES_BEHAVIOUR: [&str; 2] = ["docs/tasks", "docs/observe"];

#[test]
fn manifests_and_the_commands_about_them_do_what_the_page_says() {
    for page in Page::all() {
        let place = page.path.display();
        let world = World::new();
        let blocks = page.blocks();
        for (index, block) in blocks.iter().enumerate() {
            if block.is("yaml") && !block.has("values") {
                world.apply(&block.body, block.word("file"));
                let (text, worst) = world.analyze();
                assert!(worst != "error", "{place}, block {}:\n{}\n{text}", index + 1, block.body);
            } else if block.is_run_by("manifests") {
                let output = world.run(&block.commands(), block.exit_code());
                if let Some(expected) = blocks.get(index + 1).filter(|next| next.is("text")) {
                    world::assert_printed(&output, &expected.body, &format!("{place}, block {}", index + 1));
                }
            }
        }
    }
}

#[test]
fn examples_are_in_force_and_of_this_version() {
    let world = World::new();
    for entry in std::fs::read_dir(root().join("docs/examples")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for image in text.lines().filter_map(|line| line.split("mesh.dev/mesh-traffic:").nth(1)) {
            assert!(image.starts_with(concat!(env!("CARGO_PKG_VERSION"), "\"")), "{image}");
        }
        world.apply(&text, None);
    }
    let (text, worst) = world.analyze();
    assert!(worst != "error", "{text}");
}

#[test]
fn every_block_of_commands_is_run_by_a_test_that_the_page_names_or_says_why_not() {
    for page in Page::all() {
        let place = page.path.display();
        for block in page.blocks().iter().filter(|block| block.is("sh")) {
            block.check_words().unwrap_or_else(|error| panic!("{place}: {error}\n{}", block.body));
            let Some((runner, test)) = RUNNERS.iter().find(|(runner, _)| block.is_run_by(runner)) else { continue };
            let is_named = page.tests().is_none_or(|tests| tests.contains(test));
            assert!(is_named, "{place}: `test={runner}` is run by {test}, which its front matter does not name");
            let in_order = *runner != "installation" || INSTALLATION.iter().any(|path| page.path == Path::new(path));
            assert!(in_order, "{place}: INSTALLATION does not have it: nobody runs its commands");
        }
    }
}

#[test]
fn commands_of_this_program_are_commands() {
    for page in Page::all() {
        for command in page.blocks().iter().filter(|block| block.is("sh")).flat_map(Block::commands) {
            if let Some(arguments) = arguments_of("mesh-ctl", &command) {
                let complaint = world::usage_error(arguments);
                assert!(complaint.is_none(), "{}: {command:?}\n{}", page.path.display(), complaint.unwrap());
            }
        }
    }
}

#[test]
fn flags_of_the_other_programs_are_on_their_pages() {
    for page in Page::all() {
        for command in page.blocks().iter().filter(|block| block.is("sh")).flat_map(Block::commands) {
            for program in ["mesh-node", "mesh-waypoint", "mesh-control"] {
                let reference = std::fs::read_to_string(root().join(format!("docs/reference/{program}.md"))).unwrap();
                let known: Vec<&str> = reference.split(['`', ' ', ',', '\n']).collect();
                let flags =
                    arguments_of(program, &command).unwrap_or_default().iter().filter(|word| word.starts_with("--"));
                for flag in flags.map(|flag| flag.split('=').next().unwrap()) {
                    assert!(known.contains(&flag), "{}: {program} has no {flag}", page.path.display());
                }
            }
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let pages = Page::all();
    let anchors = |path: &Path| pages.iter().find(|page| page.path == path).map(Page::anchors);
    for page in &pages {
        for link in page.links() {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { page.path.clone() } else { beside(&page.path, file) };
            let place = page.path.display();
            assert!(root().join(&target).exists(), "{place}: {link}: there is no {}", target.display());
            if let Some(anchor) = anchor {
                let known = anchors(&target).unwrap_or_default();
                assert!(known.iter().any(|known| known == anchor), "{place}: {link}: no such headline");
            }
        }
    }
}

#[test]
fn every_page_is_found_from_the_index() {
    let pages = Page::all();
    let mut found = BTreeSet::from([PathBuf::from("README.md")]);
    loop {
        let from = pages.iter().filter(|page| found.contains(&page.path));
        let more: BTreeSet<PathBuf> = from
            .flat_map(|page| page.links().into_iter().map(|link| beside(&page.path, link.split('#').next().unwrap())))
            .collect();
        let before = found.len();
        found.extend(more);
        if found.len() == before {
            break;
        }
    }
    let runbooks = Path::new("docs/runbooks");
    for page in pages.iter().filter(|page| !page.path.starts_with(runbooks)) {
        assert!(found.contains(&page.path), "no link leads to {}", page.path.display());
    }
}

#[test]
fn pages_name_the_tests_that_hold_them() {
    for page in Page::all() {
        let tests = page.tests();
        let must = DESCRIBES_BEHAVIOUR.iter().any(|folder| page.path.starts_with(folder));
        assert!(!must || tests.is_some(), "{}: front matter with `tests: FILE, FILE`", page.path.display());
        for test in tests.unwrap_or_default() {
            assert!(root().join(test).exists(), "{}: there is no {test}", page.path.display());
        }
    }
}

#[test]
fn values_of_the_chart_are_values_of_the_chart() {
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(root().join("charts/mesh/values.schema.json")).unwrap()).unwrap();
    let is_known =
        |path: &str| path.split('.').try_fold(&schema, |schema, key| schema.get("properties")?.get(key)).is_some();
    for page in Page::all() {
        let blocks = page.blocks();
        let files = blocks.iter().filter(|block| block.is("yaml") && block.has("values"));
        let mut paths: Vec<String> = files
            .flat_map(|block| {
                let values: Value = serde_saphyr::from_str(&block.body).unwrap();
                world::paths(&values).into_iter().filter(|path| path.matches('.').count() < 2).collect::<Vec<_>>()
            })
            .collect();
        for command in blocks.iter().filter(|block| block.is("sh")).flat_map(Block::commands) {
            if command.first().is_some_and(|word| word == "helm") {
                let set = command.windows(2).filter(|pair| pair[0] == "--set").map(|pair| &pair[1]);
                paths.extend(set.map(|value| value.split(['=', '[']).next().unwrap().to_owned()));
            }
        }
        for path in paths {
            assert!(is_known(&path), "{}: the chart has no value {path}", page.path.display());
        }
    }
}

/// The path of a link from a page.
fn beside(page: &Path, link: &str) -> PathBuf {
    let mut path = page.parent().unwrap().to_path_buf();
    for part in Path::new(link).components() {
        match part {
            Component::ParentDir => assert!(path.pop(), "{}: {link} leads out of the repository", page.display()),
            part => path.push(part),
        }
    }
    path
}
