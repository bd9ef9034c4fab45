//! Breaking lines of prose at a width.

use unicode_width::UnicodeWidthStr;

/// Breaks `text` at spaces so that lines stay within `width` columns where words allow; lines after
/// the first are indented by `indent` spaces. Line breaks in `text` stay.
#[must_use]
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for (n, paragraph) in text.split('\n').enumerate() {
        if n > 0 {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
        }
        let indented = if n > 0 { indent } else { 0 };
        if indented + paragraph.width() <= width {
            // A line that fits is kept to the letter: columns may be lined up in it.
            out.push_str(paragraph);
            continue;
        }
        let lead = paragraph.len() - paragraph.trim_start().len();
        out.push_str(&paragraph[..lead]);
        let mut column = indented + lead;
        // Spaces that stand before the next word: several of them line up columns.
        let mut gap = 0;
        for (i, word) in paragraph[lead..].split(' ').enumerate() {
            gap += usize::from(i > 0);
            if word.is_empty() {
                continue;
            }
            let need = word.width();
            if gap > 0 && column + gap + need > width {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent + lead));
                column = indent + lead;
            } else {
                out.extend(std::iter::repeat_n(' ', gap));
                column += gap;
            }
            gap = 0;
            out.push_str(word);
            column += need;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaks_at_spaces_and_keeps_lead_and_breaks() {
        assert_eq!(wrap("a  b", 4, 0), "a  b");
        assert_eq!(wrap("done  one two", 10, 0), "done  one\ntwo");
        assert_eq!(wrap("one two three", 7, 0), "one two\nthree");
        assert_eq!(wrap("one two three", 9, 2), "one two\n  three");
        assert_eq!(wrap("one two three", 7, 2), "one two\n  three");
        assert_eq!(wrap("a\n  b c", 3, 0), "a\n  b\n  c");
        assert_eq!(wrap("unbreakable", 3, 0), "unbreakable");
    }
}
