//! JSON values as YAML, for people who look into the config directory.

use serde_json::Value;

/// One YAML document.
pub(crate) fn document(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

/// Writes a value that begins on a line of its own.
fn block(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                text.push_str(&" ".repeat(indent));
                entry(&scalar(&Value::from(key.as_str())), value, indent, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut nested = String::new();
                block(item, indent + 2, &mut nested);
                text.push_str(&" ".repeat(indent));
                text.push_str("- ");
                text.push_str(nested.trim_start());
            }
        }
        other => {
            text.push_str(&" ".repeat(indent));
            text.push_str(&scalar(other));
            text.push('\n');
        }
    }
}

fn entry(key: &str, value: &Value, indent: usize, text: &mut String) {
    text.push_str(key);
    text.push(':');
    let nested = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if nested {
        text.push('\n');
        block(value, indent + 2, text);
    } else {
        text.push(' ');
        text.push_str(&scalar(value));
        text.push('\n');
    }
}

/// A scalar or an empty collection; strings are quoted unless they can be nothing else.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(string) if is_plain(string) => string.clone(),
        other => other.to_string(),
    }
}

fn is_plain(string: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    string.starts_with(|c: char| c.is_ascii_alphabetic())
        && string.chars().all(word)
        && !reserved.contains(&string.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nested_values_keep_their_shape() {
        let value =
            json!({"kind": "Pod", "list": [{"a": 1, "b": {"c": "x"}}, "10.0.0.1", []], "none": {}, "quoted": "true"});
        let expected =
            "kind: Pod\nlist:\n  - a: 1\n    b:\n      c: x\n  - \"10.0.0.1\"\n  - []\nnone: {}\nquoted: \"true\"\n";
        assert_eq!(document(&value), expected);
    }
}
