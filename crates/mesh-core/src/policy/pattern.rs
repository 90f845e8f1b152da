//! Istio's matches on text: exact, by prefix (`abc*`), by suffix (`*abc`), and by presence (`*`).

/// Why a text is no pattern. Nobody may retry: the text itself has to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is empty, and would match nothing.
    #[error("an empty value matches nothing")]
    Empty,
    /// It has a star where none can be.
    #[error("'*' may stand for itself, or at the beginning or the end, once")]
    Star,
}

/// One match on text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// The whole text.
    Exact(Box<str>),
    /// Its beginning.
    Prefix(Box<str>),
    /// Its end.
    Suffix(Box<str>),
    /// Any text.
    Presence,
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// When it is empty or has a star inside.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text == "*" {
            return Ok(Self::Presence);
        }
        let (pattern, rest): (fn(Box<str>) -> Self, &str) = match (text.strip_prefix('*'), text.strip_suffix('*')) {
            (Some(end), _) => (Self::Suffix, end),
            (None, Some(beginning)) => (Self::Prefix, beginning),
            (None, None) => (Self::Exact, text),
        };
        if rest.contains('*') {
            return Err(PatternError::Star);
        }
        Ok(pattern(rest.into()))
    }

    /// Whether the text is matched.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *text,
            Self::Prefix(beginning) => text.starts_with(&**beginning),
            Self::Suffix(end) => text.ends_with(&**end),
            Self::Presence => true,
        }
    }
}

/// Alternatives, of which one has to match. Thousands of exact ones cost a binary search.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    exact: Box<[Box<str>]>,
    others: Box<[Pattern]>,
}

impl Patterns {
    /// Whether one of them matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.exact.binary_search_by(|exact| (**exact).cmp(text)).is_ok()
            || self.others.iter().any(|pattern| pattern.matches(text))
    }

    /// The texts that are matched as they are.
    pub fn exact(&self) -> impl ExactSizeIterator<Item = &str> {
        self.exact.iter().map(|exact| &**exact)
    }

    /// All that is not [`Patterns::exact`].
    #[must_use]
    pub fn others(&self) -> &[Pattern] {
        &self.others
    }

    /// Whether there is anything but [`Patterns::exact`].
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.others.is_empty()
    }
}

impl FromIterator<Pattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        let (mut exact, mut others) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern {
                Pattern::Exact(text) => exact.push(text),
                other => others.push(other),
            }
        }
        exact.sort();
        exact.dedup();
        Self { exact: exact.into(), others: others.into() }
    }
}
