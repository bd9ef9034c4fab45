//! The text of a test without its comments, with line numbers.

use crate::error::{LitmusError, Problem};

/// The text with `(* ... *)` (nested) blanked; line breaks stay, so that lines keep their numbers.
/// Inside a string nothing is a comment.
pub(crate) fn without_comments(text: &str) -> Result<String, LitmusError> {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let (mut out, mut i, mut depth, mut line, mut opened, mut string) =
        (String::with_capacity(text.len()), 0, 0usize, 1, 1, false);
    while i < chars.len() {
        let (c, next) = (at(i), at(i + 1));
        if c == '\n' {
            line += 1;
            string = false;
        }
        if depth == 0 && c == '"' {
            string = !string;
        }
        if !string && c == '(' && next == '*' {
            if depth == 0 {
                opened = line;
            }
            depth += 1;
            i += 2;
        } else if depth > 0 && c == '*' && next == ')' {
            depth -= 1;
            i += 2;
        } else {
            if depth == 0 || c == '\n' {
                out.push(c);
            }
            i += 1;
        }
    }
    if depth > 0 {
        return Err(Problem::End("the comment that begins here does").at(opened));
    }
    Ok(out)
}
