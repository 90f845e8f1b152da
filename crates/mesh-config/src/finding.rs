//! What is wrong or worth knowing about a manifest, where, and what to do.

use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::code::{Code, Severity};

/// One finding. Its [`fmt::Display`] is one line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Where it was found.
    pub origin: Origin,
    /// What it is about.
    pub code: Code,
    /// How bad it is: the code's severity.
    pub severity: Severity,
    /// The field, as a path such as `spec.ports[0].port`.
    pub field: Option<String>,
    /// What was found.
    pub message: String,
    /// What to do.
    pub remedy: &'static str,
}

/// Where in the manifests something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Origin {
    /// The file, relative to the directory that was read.
    #[serde(serialize_with = "shared")]
    pub file: Arc<Path>,
    /// The document in the file, counted from 1; none for a finding about the file itself.
    pub document: Option<usize>,
    /// The item in a `kind: List` document, counted from 0.
    pub item: Option<usize>,
    /// The line in the file, counted from 1: the error's where it is known, else the document's first.
    pub line: Option<usize>,
    /// The column in that line, counted from 1.
    pub column: Option<usize>,
    /// The object, as far as it can be told.
    pub object: Option<ObjectName>,
}

/// What names an object in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectName {
    /// The API group; empty for Kubernetes' core. Two groups may have kinds of one name.
    #[serde(serialize_with = "shared")]
    pub group: Arc<str>,
    /// The kind, such as `Pod`.
    #[serde(serialize_with = "shared")]
    pub kind: Arc<str>,
    /// The namespace; none for kinds of the whole cluster.
    #[serde(serialize_with = "shared_or_none")]
    pub namespace: Option<Arc<str>>,
    /// The name.
    #[serde(serialize_with = "shared")]
    pub name: Arc<str>,
}

/// As what it shares.
fn shared<T: Serialize + ?Sized, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().serialize(serializer)
}

fn shared_or_none<S: Serializer>(value: &Option<Arc<str>>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_deref().serialize(serializer)
}

impl Finding {
    /// A finding of that code; severity and remedy are the code's.
    #[must_use]
    pub fn new(code: Code, origin: Origin, message: impl Into<String>) -> Self {
        Self { origin, code, severity: code.severity(), field: None, message: message.into(), remedy: code.remedy() }
    }

    /// The same about one field.
    #[must_use]
    pub fn at(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// The field and what was found of it.
    #[must_use]
    pub fn detail(&self) -> String {
        self.field.as_ref().map_or_else(|| self.message.clone(), |field| format!("{field}: {}", self.message))
    }
}

impl Origin {
    /// A whole file.
    #[must_use]
    pub fn file(file: impl Into<Arc<Path>>) -> Self {
        Self { file: file.into(), document: None, item: None, line: None, column: None, object: None }
    }
}

impl fmt::Display for Finding {
    /// On one line, whatever the names in a manifest are made of.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = OneLine(f);
        write!(line, "{} {} {}", self.code, self.severity, self.origin)?;
        if let Some(field) = &self.field {
            write!(line, " {field}")?;
        }
        write!(line, ": {}. {}", self.message, self.remedy)
    }
}

/// Writes control characters as escapes: what a manifest says must not begin another line of a log.
struct OneLine<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for OneLine<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            let mut rest = part.chars();
            match rest.next_back() {
                Some(last) if last.is_control() => write!(self.0, "{}{}", rest.as_str(), last.escape_default())?,
                _ => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(column) = self.column {
            write!(f, ":{column}")?;
        }
        if let Some(item) = self.item {
            write!(f, " items[{item}]")?;
        }
        if let Some(object) = &self.object {
            write!(f, " {object}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line_whatever_a_manifest_calls_its_objects() {
        let mut origin = Origin::file(Path::new("a.yaml"));
        origin.object =
            Some(ObjectName { group: "".into(), kind: "Po\nd".into(), namespace: None, name: "x\u{1b}[31m".into() });
        let text = Finding::new(Code::UnknownKind, origin, "a\tb").to_string();
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.contains("Po\\nd x\\u{1b}[31m: a\\tb."), "{text}");
    }
}
