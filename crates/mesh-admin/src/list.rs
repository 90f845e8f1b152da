//! Lists, which are given in parts: a cluster may have a hundred thousand workloads.

use serde::{Deserialize, Serialize};

/// Items of an answer where the request names no limit.
pub const DEFAULT_LIMIT: usize = 500;
/// Items of an answer at most, whatever the request names.
pub const MAX_LIMIT: usize = 2_000;

/// Part of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct List<T> {
    /// The items from the offset on.
    pub items: Vec<T>,
    /// How many there are, that the request selects.
    pub total: usize,
    /// Generation of the configuration that the list is of: parts of one generation belong together.
    pub generation: u64,
}

/// Which part of a list: the query of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only items of this namespace.
    pub namespace: Option<String>,
    /// How many items to leave out at the beginning.
    pub offset: usize,
    /// How many items to give, [`DEFAULT_LIMIT`] if none is named.
    pub limit: Option<usize>,
}

impl Selection {
    /// The selection as names and values of a query.
    #[must_use]
    pub fn to_query(&self) -> Vec<(&'static str, String)> {
        let namespace = self.namespace.clone().map(|namespace| ("namespace", namespace));
        let offset = (self.offset > 0).then(|| ("offset", self.offset.to_string()));
        let limit = self.limit.map(|limit| ("limit", limit.to_string()));
        namespace.into_iter().chain(offset).chain(limit).collect()
    }

    /// Reads a query.
    ///
    /// # Errors
    /// A sentence about the first name or value that is not understood.
    pub fn from_query<'a>(query: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, String> {
        let mut selection = Self::default();
        for (name, value) in query {
            let number = || {
                let parsed = value.parse::<usize>();
                parsed.map_err(|_| format!("{name}={value} is not a number from 0 to {}", usize::MAX))
            };
            match name {
                "namespace" => selection.namespace = Some(value.to_owned()),
                "offset" => selection.offset = number()?,
                "limit" => selection.limit = Some(number()?),
                _ => return Err(format!("{name} is not known here: namespace, offset and limit are")),
            }
        }
        Ok(selection)
    }

    /// Takes the selected part of `items`; `namespace` says where an item belongs. Only what is given is made.
    pub fn take<S, T>(
        &self,
        items: impl Iterator<Item = S>,
        namespace: impl Fn(&S) -> &str,
        generation: u64,
        make: impl Fn(S) -> T,
    ) -> List<T> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT).min(MAX_LIMIT);
        let mut list = List { items: Vec::new(), total: 0, generation };
        for item in items {
            if self.namespace.as_deref().is_some_and(|wanted| wanted != namespace(&item)) {
                continue;
            }
            if list.total >= self.offset && list.items.len() < limit {
                list.items.push(make(item));
            }
            list.total += 1;
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_survives_the_way_through_a_query() {
        let selections =
            [Selection::default(), Selection { namespace: Some("shop".into()), offset: 2_000, limit: Some(0) }];
        for selection in selections {
            let query = selection.to_query();
            let read = Selection::from_query(query.iter().map(|(name, value)| (*name, value.as_str())));
            assert_eq!(read, Ok(selection));
        }
        for (name, value) in [("limit", "-1"), ("offset", "x"), ("color", "red")] {
            let error = Selection::from_query([(name, value)]).expect_err(name);
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn parts_of_a_list_make_the_whole() {
        let items: Vec<_> = (0..5_000).map(|n| if n % 2 == 0 { ("even", n) } else { ("odd", n) }).collect();
        let mut selection = Selection { namespace: Some("odd".into()), offset: 0, limit: Some(usize::MAX) };
        let mut found = Vec::new();
        loop {
            let part = selection.take(items.iter(), |item| item.0, 7, |item| item.1);
            assert!(part.items.len() <= MAX_LIMIT);
            assert_eq!((part.total, part.generation), (2_500, 7));
            if part.items.is_empty() {
                break;
            }
            found.extend(part.items);
            selection.offset = found.len();
        }
        assert_eq!(found, (0..5_000).filter(|n| n % 2 == 1).collect::<Vec<_>>());
    }
}
