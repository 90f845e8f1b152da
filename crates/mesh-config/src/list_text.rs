//! A list of objects in JSON, taken apart without reading its items: those that are as they were need not be read again.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Deserializer, Map, Value};

/// A text that is one mapping with a list `items`.
#[derive(Debug)]
pub(crate) struct ListText<'a> {
    /// All of the mapping but its items.
    pub(crate) header: Value,
    /// Each item's text.
    pub(crate) items: Vec<&'a str>,
}

impl<'a> ListText<'a> {
    /// None where the text is anything else, or no JSON as far as that is looked at: reading all of it tells.
    pub(crate) fn of(text: &'a str) -> Option<Self> {
        let mut rest = Rest(text);
        let (mut header, mut items) = (Map::new(), None);
        rest.take('{')?;
        loop {
            let name: String = rest.value()?;
            rest.take(':')?;
            if name == "items" && rest.take('[').is_some() {
                // Of a field that stands there twice, the last counts.
                items = Some(rest.items()?);
            } else {
                header.insert(name, rest.value()?);
            }
            if rest.take(',').is_none() {
                break;
            }
        }
        rest.take('}')?;
        let is_whole = rest.trimmed().is_empty() && !header.contains_key("items");
        Some(Self { header: Value::Object(header), items: items.filter(|_| is_whole)? })
    }
}

/// What of a text is still to be looked at.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn trimmed(&self) -> &'a str {
        self.0.trim_start_matches([' ', '\t', '\r', '\n'])
    }

    /// Passes over a character, and what blanks stand before it.
    fn take(&mut self, character: char) -> Option<()> {
        self.0 = self.trimmed().strip_prefix(character)?;
        Some(())
    }

    /// Reads a value.
    fn value<T: Deserialize<'a>>(&mut self) -> Option<T> {
        let mut values = Deserializer::from_str(self.0).into_iter();
        let value = values.next()?.ok()?;
        self.0 = self.0.get(values.byte_offset()..)?;
        Some(value)
    }

    /// The texts of a list's items, once its bracket is passed.
    fn items(&mut self) -> Option<Vec<&'a str>> {
        let mut items = Vec::new();
        if self.take(']').is_some() {
            return Some(items);
        }
        loop {
            let before = self.trimmed();
            self.value::<IgnoredAny>()?;
            items.push(before.get(..before.len() - self.0.len())?);
            if self.take(',').is_none() {
                break;
            }
        }
        self.take(']')?;
        Some(items)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_its_header_and_the_texts_of_its_items() {
        let text = r#" {"kind": "List", "items": [ {"a": "]},{"} ,[1, {}],"x" ], "metadata": {"n": 1}} "#;
        let list = ListText::of(text).unwrap();
        assert_eq!(list.header, json!({"kind": "List", "metadata": {"n": 1}}));
        assert_eq!(list.items, [r#"{"a": "]},{"}"#, "[1, {}]", r#""x""#]);
        assert_eq!(ListText::of(r#"{"items": []}"#).unwrap().items, [""; 0]);
    }

    #[test]
    fn what_is_no_list_or_no_json_is_left_to_be_read_as_a_whole() {
        let others = [
            "",
            "[]",
            "{}",
            r#"{"kind": "List"}"#,
            r#"{"items": null}"#,
            r#"{"items": [], "items": null}"#,
            r#"{"items": {}, "items": []}"#,
            r#"{"items": [{}]} {}"#,
            r#"{"items": [{}],}"#,
            r#"{"items": [{},]}"#,
            r#"{"items": [{} {}]}"#,
            r#"{"items": [{}]"#,
        ];
        for text in others {
            assert!(ListText::of(text).is_none(), "{text}");
        }
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".*".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            let fields = prop::collection::vec(("(items|kind|.*)", inner.clone()), 0..4);
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Value::from),
                fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_taken_apart_is_what_is_read(value in value(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) };
            if let Some(ListText { mut header, items }) = ListText::of(&text.unwrap()) {
                let items: Vec<Value> = items.into_iter().map(|item| serde_json::from_str(item).unwrap()).collect();
                header["items"] = items.into();
                prop_assert_eq!(header, value);
            }
        }
    }
}
