//! `mesh-ctl` as a person on a node runs it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use mesh_lab::{Output, Place as _};
use serde_json::Value;

use crate::Mesh;

/// Runs `mesh-ctl` on a node, against the node's daemon, however it ends.
pub fn ctl(mesh: &Mesh, node: &str, arguments: &[&str]) -> Result<Output> {
    mesh.lab.node(node)?.exec(&[&["mesh-ctl"], arguments].concat())
}

/// Runs it with `-o json`; fails unless it ended with `code`.
pub fn ctl_json(mesh: &Mesh, node: &str, arguments: &[&str], code: i32) -> Result<Value> {
    let output = ctl(mesh, node, &[arguments, &["-o", "json"]].concat())?;
    ensure!(output.code == Some(code), "{code} was expected: {output}");
    output.json().with_context(|| format!("{arguments:?}"))
}

/// The paths of a value's fields, such as `items[].source.principal`: what programs that read it rely on.
pub fn keys(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    walk(value, "", &mut found);
    found
}

fn walk(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let dot = if path.is_empty() { "" } else { "." };
            fields.iter().for_each(|(name, value)| walk(value, &format!("{path}{dot}{name}"), found));
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().for_each(|item| walk(item, &format!("{path}[]"), found));
        }
        _ => {
            found.insert(path.to_owned());
        }
    }
}
