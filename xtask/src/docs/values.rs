//! The page of the chart's values: defaults and words from values.yaml, types from values.schema.json.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const VALUES: &str = "charts/mesh/values.yaml";
const SCHEMA: &str = "charts/mesh/values.schema.json";
/// Helm's own; charts above this one may set it.
const NOT_OURS: &str = "global";

const HEAD: &str = "\
<!-- Made by `cargo xtask docs` from charts/mesh/values.yaml and values.schema.json. -->

# Values of the chart

Set with `--set NAME=VALUE` or in a file for `--values`. What the schema does not know is refused by Helm.

| value | type | default | meaning |
|---|---|---|---|
";

pub(super) fn page() -> Result<String> {
    let schema = serde_json::from_str(&super::read(SCHEMA)?).with_context(|| format!("{SCHEMA} is no JSON"))?;
    render(&super::read(VALUES)?, &schema).with_context(|| format!("{VALUES} and its schema"))
}

fn render(values: &str, schema: &Value) -> Result<String> {
    let mut page = HEAD.to_owned();
    let mut seen = BTreeSet::new();
    for value in leaves(values, schema)? {
        let kind = kind(resolved(schema, value.schema));
        writeln!(page, "| `{}` | {kind} | {} | {} |", value.path, code(&value.default), escape(&value.about))?;
        seen.insert(value.path);
    }
    let mut known = Vec::new();
    paths(schema, schema, "", &mut known);
    for path in known {
        ensure!(path == NOT_OURS || seen.contains(&path), "{path} has no default");
    }
    Ok(page)
}

/// A value that has no values of ours below it.
struct Leaf<'a> {
    path: String,
    schema: &'a Value,
    default: String,
    about: String,
}

/// Reads YAML as it is written there: comments before a key are about it, two spaces a level.
fn leaves<'a>(values: &str, root: &'a Value) -> Result<Vec<Leaf<'a>>> {
    let lines: Vec<&str> = values.lines().collect();
    let mut leaves = Vec::new();
    let (mut parents, mut comment): (Vec<(String, String)>, Vec<&str>) = Default::default();
    let mut index = 0;
    while let Some(line) = lines.get(index) {
        index += 1;
        let text = line.trim();
        if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        let about = std::mem::take(&mut comment).join(" ");
        let Some((key, inline)) = text.split_once(':') else { continue };
        parents.truncate(depth(line));
        parents.push((key.to_owned(), about));
        let path = parents.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(".");
        let schema = find(root, &path).with_context(|| format!("line {index}: the schema has no {path}"))?;
        if resolved(root, schema).get("properties").is_some() {
            continue;
        }
        let below = lines[index..].iter().take_while(|next| depth(next) > depth(line) && !next.trim().is_empty());
        let below: Vec<&str> = below.copied().collect();
        index += below.len();
        let default = if below.is_empty() { inline.trim().to_owned() } else { flow(&below) };
        let about = parents.iter().rev().map(|(_, about)| about).find(|about| !about.is_empty());
        leaves.push(Leaf { path, schema, default, about: about.cloned().unwrap_or_default() });
    }
    Ok(leaves)
}

fn depth(line: &str) -> usize {
    (line.len() - line.trim_start().len()) / 2
}

/// A block of YAML in one line.
fn flow(block: &[&str]) -> String {
    let Some(first) = block.first() else { return String::new() };
    let level = depth(first);
    let mut entries = Vec::new();
    let mut index = 0;
    while let Some(line) = block.get(index) {
        index += 1;
        let below = block[index..].iter().take_while(|next| depth(next) > level).count();
        let inner = flow(&block[index..index + below]);
        index += below;
        entries.push(match line.trim().strip_prefix("- ") {
            Some(item) => format!("{{{item}}}"),
            None => [line.trim(), &inner].join(" ").trim().to_owned(),
        });
    }
    let list = first.trim_start().starts_with("- ");
    let (open, close) = if list { ("[", "]") } else { ("{", "}") };
    format!("{open}{}{close}", entries.join(", "))
}

fn find<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(root, |schema, key| resolved(root, schema).get("properties")?.get(key))
}

fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let reference = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix('#'));
    reference.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

/// Every value of the schema that has none below it.
fn paths(root: &Value, schema: &Value, prefix: &str, found: &mut Vec<String>) {
    match resolved(root, schema).get("properties").and_then(Value::as_object) {
        Some(properties) => {
            for (key, inner) in properties {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                paths(root, inner, &path, found);
            }
        }
        None => found.push(prefix.to_owned()),
    }
}

fn kind(schema: &Value) -> String {
    if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
        let choices: Vec<String> = choices.iter().map(|choice| code(choice.as_str().unwrap_or_default())).collect();
        return choices.join(" or ");
    }
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or("any");
    match schema.get("minimum").and_then(Value::as_i64) {
        Some(least) => format!("{kind}, at least {least}"),
        None => kind.to_owned(),
    }
}

fn code(text: &str) -> String {
    format!("`{}`", escape(text))
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        serde_json::json!({
            "properties": {
                "a": {"properties": {"size": {"type": "integer", "minimum": 1}, "way": {"enum": ["x", "y"]}}},
                "more": {"type": "object"},
            }
        })
    }

    #[test]
    fn a_value_has_its_own_words_or_its_parents() {
        let values = "# What a is.\na:\n  size: 3\n  # Which\n  # way.\n  way: x\nmore:\n  cpu: 1\n  list:\n    - key: k\n    - key: l\n";
        let page = render(values, &schema()).unwrap();
        let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(
            rows,
            [
                "| `a.size` | integer, at least 1 | `3` | What a is. |",
                "| `a.way` | `x` or `y` | `x` | Which way. |",
                "| `more` | object | `{cpu: 1, list: [{key: k}, {key: l}]}` |  |",
            ]
        );
    }

    #[test]
    fn schema_and_values_must_have_the_same_keys() {
        for values in ["a:\n  size: 1\n  way: x\n", "a:\n  size: 1\n  way: x\n  other: 1\nmore: {}\n"] {
            assert!(render(values, &schema()).is_err(), "{values}");
        }
    }
}
