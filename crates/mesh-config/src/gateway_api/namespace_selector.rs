//! Selectors of namespaces by their labels (`metav1.LabelSelector`).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::istio::Flaw;

/// What a namespace's labels have to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceSelector {
    labels: BTreeMap<String, String>,
    requirements: Vec<Requirement>,
}

/// One requirement beyond equal labels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    /// The values of which the label has one; none where any will do.
    values: Option<Vec<String>>,
    /// Whether it must not be so.
    not: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawSelector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<RawRequirement>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequirement {
    key: String,
    operator: Operator,
    #[serde(default)]
    values: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl NamespaceSelector {
    /// Whether a namespace of these labels is meant. A selector that says nothing means all.
    pub(crate) fn selects(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        let value = |key: &String| labels.and_then(|labels| labels.get(key));
        let holds = |requirement: &Requirement| {
            let found = value(&requirement.key);
            let is_so = found.is_some_and(|value| requirement.values.as_ref().is_none_or(|some| some.contains(value)));
            is_so != requirement.not
        };
        self.labels.iter().all(|(key, expected)| value(key) == Some(expected)) && self.requirements.iter().all(holds)
    }
}

impl RawSelector {
    pub(super) fn read(self, field: &str) -> Result<NamespaceSelector, Flaw> {
        let read = |(index, raw): (usize, RawRequirement)| {
            let RawRequirement { key, operator, values } = raw;
            let flaw = |message| Flaw::value(format!("{field}.matchExpressions[{index}].values"), message);
            match (operator, values.is_empty()) {
                (Operator::In | Operator::NotIn, true) => Err(flaw("In and NotIn take values")),
                (Operator::Exists | Operator::DoesNotExist, false) => Err(flaw("Exists and DoesNotExist take none")),
                (Operator::In, _) => Ok(Requirement { key, values: Some(values), not: false }),
                (Operator::NotIn, _) => Ok(Requirement { key, values: Some(values), not: true }),
                (Operator::Exists, _) => Ok(Requirement { key, values: None, not: false }),
                (Operator::DoesNotExist, _) => Ok(Requirement { key, values: None, not: true }),
            }
        };
        let requirements = self.match_expressions.into_iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(NamespaceSelector { labels: self.match_labels, requirements })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_and_requirements_all_have_to_hold() {
        let all = BTreeMap::from([("team".to_owned(), "a".to_owned()), ("tier".to_owned(), "front".to_owned())]);
        let expression = |operator: &str, values: &[&str]| {
            let values: Vec<&str> = values.to_vec();
            json!({"matchExpressions": [{"key": "team", "operator": operator, "values": values}]})
        };
        for (selector, of_all, of_none) in [
            (json!({}), true, true),
            (json!({"matchLabels": {"team": "a"}}), true, false),
            (json!({"matchLabels": {"team": "a", "tier": "back"}}), false, false),
            (expression("In", &["a", "b"]), true, false),
            (expression("In", &["b"]), false, false),
            (expression("NotIn", &["a"]), false, true),
            (expression("NotIn", &["b"]), true, true),
            (expression("Exists", &[]), true, false),
            (expression("DoesNotExist", &[]), false, true),
        ] {
            let raw: RawSelector = serde_json::from_value(selector.clone()).unwrap();
            let read = raw.read("selector").unwrap();
            assert_eq!((read.selects(Some(&all)), read.selects(None)), (of_all, of_none), "{selector}");
        }
        for (operator, values) in [("In", &[][..]), ("NotIn", &[]), ("Exists", &["a"]), ("DoesNotExist", &["a"])] {
            let raw: RawSelector = serde_json::from_value(expression(operator, values)).unwrap();
            assert_eq!(raw.read("selector").unwrap_err().field, "selector.matchExpressions[0].values");
        }
    }
}
