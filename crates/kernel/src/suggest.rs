//! "Did you mean": the nearest of a table's names.

/// A suggestion as the end of a message; empty without one.
pub(crate) fn did_you_mean(suggestion: Option<&'static str>) -> String {
    suggestion.map_or(String::new(), |s| format!(", did you mean '{s}'?"))
}

/// The candidate within a third of `word`'s length in single edits; the first of equally near ones.
pub(crate) fn nearest(
    word: &str,
    candidates: impl IntoIterator<Item = &'static str>,
) -> Option<&'static str> {
    let word: Vec<char> = word.chars().take(LONGEST).flat_map(char::to_lowercase).collect();
    let allowed = (word.len() / 3).max(1);
    let mut best: Option<(usize, &'static str)> = None;
    for candidate in candidates {
        let other: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        if word.len() <= 2 || word.len().abs_diff(other.len()) > allowed {
            continue;
        }
        let distance = edits(&word, &other);
        if distance <= allowed && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Longer words are cut: the work is quadratic, and no name is this long.
const LONGEST: usize = 64;

/// Insertions, deletions and substitutions that turn `a` into `b`.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut row = vec![left];
        for (y, above) in b.iter().zip(last.iter().skip(1)) {
            let cost = (diagonal + usize::from(x != y)).min(left + 1).min(above + 1);
            diagonal = *above;
            left = cost;
            row.push(cost);
        }
        last = row;
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        const WORDS: [&str; 3] = ["set_memory_ro", "set_memory_rw", "vmalloc"];
        assert_eq!(nearest("set_memory_r0", WORDS), Some("set_memory_ro"));
        assert_eq!(nearest("VMALOC", WORDS), Some("vmalloc"));
        assert_eq!(nearest("kmalloc_array", WORDS), None);
        assert_eq!(nearest("x", WORDS), None);
    }

    #[test]
    fn distances() {
        let d = |a: &str, b: &str| {
            edits(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
        };
        assert_eq!((d("", "abc"), d("abc", ""), d("kitten", "sitting")), (3, 3, 3));
    }
}
