//! JSON Schema as Kubernetes takes it: "structural" (CustomResourceDefinition, apiextensions.k8s.io/v1).

use serde_json::{Map, Value, json};

/// Formats that the API server knows; it warns of others.
const FORMATS: [&str; 4] = ["int32", "int64", "float", "double"];
/// What takes anything.
const OPEN: &str = "x-kubernetes-preserve-unknown-fields";

/// The schema without what Kubernetes forbids there: it has one type each, nothing is null, and what is not listed is unknown
/// without a word about it.
pub(super) fn structural(schema: Value) -> Value {
    let Value::Object(schema) = schema else { return json!({OPEN: true}) };
    let mut schema = without_alternatives(schema);
    for word in ["title", "$schema", "default"] {
        schema.remove(word);
    }
    if let Some(Value::Array(types)) = schema.get("type") {
        let given = types.iter().find(|given| **given != "null").cloned();
        schema.insert("type".to_owned(), given.unwrap_or_default());
    }
    if let Some(Value::Array(values)) = schema.get_mut("enum") {
        values.retain(|value| !value.is_null());
    }
    if schema.get("format").and_then(Value::as_str).is_some_and(|format| !FORMATS.contains(&format)) {
        schema.remove("format");
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        for property in properties.values_mut() {
            *property = structural(property.take());
        }
    }
    if let Some(items) = schema.get_mut("items") {
        *items = structural(items.take());
    }
    match schema.remove("additionalProperties") {
        None | Some(Value::Bool(false)) => {}
        Some(Value::Bool(true)) => drop(schema.insert(OPEN.to_owned(), true.into())),
        Some(others) => drop(schema.insert("additionalProperties".to_owned(), structural(others))),
    }
    if !schema.contains_key("type") {
        schema.insert(OPEN.to_owned(), true.into());
    }
    Value::Object(schema)
}

/// "This or null" becomes this, and a choice of words an enumeration.
fn without_alternatives(mut schema: Map<String, Value>) -> Map<String, Value> {
    let given = schema.remove("anyOf").or_else(|| schema.remove("oneOf"));
    let Some(Value::Array(given)) = given else { return schema };
    let mut given: Vec<Value> = given.into_iter().filter(|one| one["type"] != "null").collect();
    if given.len() == 1 {
        let Some(Value::Object(mut only)) = given.pop() else { return schema };
        // What the field says of itself is more than what its type does.
        only.extend(schema);
        return without_alternatives(only);
    }
    // A word with a description stands alone, the others together.
    let words = given.iter().flat_map(|one| one["enum"].as_array().into_iter().flatten().chain(one.get("const")));
    let words = words.cloned().collect();
    schema.insert("type".to_owned(), "string".into());
    schema.insert("enum".to_owned(), Value::Array(words));
    schema
}
