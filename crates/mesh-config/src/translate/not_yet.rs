//! What rules ask for and waypoints do not do yet, in one list: who teaches waypoints a part takes it out here.

use mesh_core::l7::Rule;

/// A part by what people call it, and whether a rule has it.
type Part = (&'static str, fn(&Rule) -> bool);

const NOT_YET: [Part; 1] = [("copies of requests (mirror)", |rule| !rule.mirrors.is_empty())];

/// What becomes a finding: each part of the rule that has no effect.
pub(super) fn parts(rule: &Rule) -> impl Iterator<Item = String> {
    let asked = NOT_YET.iter().filter(|(_, asks)| asks(rule));
    asked.map(|(part, _)| format!("waypoints make no {part} yet; the rest of the rule is in force"))
}
