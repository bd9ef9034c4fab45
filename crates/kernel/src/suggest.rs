//! "Did you mean": the nearest name of a list, for every crate that reads names.

/// A suggestion as the end of a message; empty without one.
pub fn did_you_mean(suggestion: Option<&'static str>) -> String {
    suggestion.map_or(String::new(), |s| format!(", did you mean '{s}'?"))
}

/// The candidate nearest to `word`, if one is near enough to be a likely slip of the keyboard.
///
/// Distance: insertions, deletions, substitutions and swaps of neighbours (optimal string
/// alignment), upper and lower case counted as equal. Allowed: a third of the longer word's
/// length, at least 1. The first of equally near candidates wins.
pub fn nearest<'a, I>(word: &str, candidates: I) -> Option<&'a str>
where
    I: IntoIterator<Item = &'a str>,
{
    let word: Vec<char> = word.chars().take(LONGEST).flat_map(char::to_lowercase).collect();
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let other: Vec<char> = candidate.chars().flat_map(char::to_lowercase).collect();
        let longer = word.len().max(other.len());
        let allowed = (longer / 3).max(1);
        // A word of one or two letters is near to everything.
        if longer <= 2 || word.len().abs_diff(other.len()) > allowed {
            continue;
        }
        let distance = distance(&word, &other);
        if distance <= allowed && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Longer words are cut: the work is quadratic, and no name is this long.
const LONGEST: usize = 64;

fn distance(a: &[char], b: &[char]) -> usize {
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, &x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, &y) in b.iter().enumerate() {
            let get = |r: &[usize], k: usize| r.get(k).copied().unwrap_or(usize::MAX / 2);
            let mut cost =
                (get(&last, j) + usize::from(x != y)).min(get(&last, j + 1) + 1).min(row[j] + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(&y) && b.get(j - 1) == Some(&x);
            if swapped {
                cost = cost.min(get(&before_last, j - 1) + 1);
            }
            row.push(cost);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: [&str; 4] = ["publish", "await", "assert", "set_memory_ro"];

    #[test]
    fn a_suggestion_ends_a_message() {
        assert_eq!(did_you_mean(Some("vmalloc")), ", did you mean 'vmalloc'?");
        assert_eq!(did_you_mean(None), "");
    }

    #[test]
    fn slips_are_recognised() {
        assert_eq!(nearest("pubilsh", WORDS), Some("publish"));
        assert_eq!(nearest("awiat", WORDS), Some("await"));
        assert_eq!(nearest("ASSERT", WORDS), Some("assert"));
        assert_eq!(nearest("set_memory_or", WORDS), Some("set_memory_ro"));
    }

    #[test]
    fn strangers_are_not() {
        assert_eq!(nearest("banana", WORDS), None);
        assert_eq!(nearest("x", WORDS), None);
        assert_eq!(nearest("", WORDS), None);
    }

    #[test]
    fn distances() {
        let d = |a: &str, b: &str| {
            distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>())
        };
        assert_eq!(d("", "abc"), 3);
        assert_eq!(d("abc", ""), 3);
        assert_eq!(d("ab", "ba"), 1);
        assert_eq!(d("kitten", "sitting"), 3);
    }
}
