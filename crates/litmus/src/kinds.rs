//! Recorded verdicts: lines of a test's name and `Allowed`, `Forbidden` or `Required`.

use std::collections::BTreeMap;

use crate::condition::Quantifier;
use crate::error::{LitmusError, Problem};

/// A verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Some final state meets the condition.
    Allowed,
    /// None does.
    Forbidden,
    /// Every one does.
    Required,
}

impl Kind {
    /// The verdict on a quantified condition: `some` final state meets its formula, `all` do.
    #[must_use]
    pub fn of(quantifier: Quantifier, some: bool, all: bool) -> Kind {
        match quantifier {
            Quantifier::Exists | Quantifier::NotExists if some => Kind::Allowed,
            Quantifier::Exists | Quantifier::NotExists => Kind::Forbidden,
            Quantifier::ForAll if all => Kind::Required,
            Quantifier::ForAll => Kind::Allowed,
        }
    }
}

/// The verdicts by name. Empty lines and those that begin with `#` are skipped.
///
/// # Errors
/// A line of another shape, or a name with two different verdicts.
pub fn read(text: &str) -> Result<BTreeMap<String, Kind>, LitmusError> {
    let mut kinds = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let bad = |what: String| Problem::Kinds(what).at(number + 1);
        let words: Vec<&str> = line.split_whitespace().collect();
        let (name, kind) = match words.as_slice() {
            [] => continue,
            [first, ..] if first.starts_with('#') => continue,
            [name, "Allowed"] => (*name, Kind::Allowed),
            [name, "Forbidden"] => (*name, Kind::Forbidden),
            [name, "Required"] => (*name, Kind::Required),
            _ => return Err(bad(format!("'{line}' is not a name and a verdict"))),
        };
        if kinds.insert(name.to_owned(), kind).is_some_and(|old| old != kind) {
            return Err(bad(format!("'{name}' has another verdict above")));
        }
    }
    Ok(kinds)
}
