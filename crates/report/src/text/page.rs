//! Pages of Markdown on a terminal: what `textbed explain` prints.
//!
//! Known are what the pages use: headings, paragraphs, list items, fenced blocks and code spans.
//! Paragraphs and items are filled to the width; fenced blocks (time lines of CPUs, programs) stay
//! as they are. With colours, headings and code stand out; without, the text is Markdown as before.

use super::{Style, wrap};

const BOLD: &str = "\x1b[1m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// The page, laid out.
#[must_use]
pub fn page(markdown: &str, style: Style) -> String {
    let mut out = String::with_capacity(markdown.len() + 64);
    let mut open = String::new();
    let mut fenced = false;
    for line in markdown.lines() {
        let fence = line.starts_with("```");
        let heading = line.starts_with('#') && !fenced;
        let alone = fence || fenced || heading || line.is_empty();
        if alone || line.starts_with("- ") {
            put(&mut out, &std::mem::take(&mut open), style);
        }
        if alone {
            let (before, after) = if heading && style.colour { (BOLD, RESET) } else { ("", "") };
            out.extend([before, line, after, "\n"]);
        } else {
            if !open.is_empty() {
                open.push(' ');
            }
            open.push_str(line.trim_start());
        }
        fenced ^= fence;
    }
    put(&mut out, &open, style);
    out
}

/// A paragraph or an item.
fn put(out: &mut String, text: &str, style: Style) {
    if text.is_empty() {
        return;
    }
    // What follows the first line of an item stands below its text.
    let text = wrap(text, style.width, if text.starts_with("- ") { 2 } else { 0 });
    if style.colour {
        // Code spans may go over a line break; every other mark opens one.
        for (n, part) in text.split('`').enumerate() {
            if n > 0 {
                out.push_str(if n % 2 == 1 { CYAN } else { RESET });
            }
            out.push_str(part);
        }
    } else {
        out.push_str(&text);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# rule\n\nOne two\nthree `four` five.\n\n## Example\n\n```\ncpu 0     cpu 1\n\
                        # a       b\n```\n\n- arm64: `isb` there, or\n  an interrupt.\n- x86: none\n";

    fn at(width: usize, colour: bool) -> String {
        page(PAGE, Style { width, colour, detail: 1 })
    }

    #[test]
    fn prose_fills_the_width_and_time_lines_stay() {
        let wide = at(80, false);
        assert!(wide.contains("\nOne two three `four` five.\n"), "{wide}");
        assert!(wide.contains("```\ncpu 0     cpu 1\n# a       b\n```\n"), "{wide}");
        assert!(wide.contains("\n- arm64: `isb` there, or an interrupt.\n- x86: none\n"), "{wide}");
        let narrow = at(20, false);
        assert!(narrow.contains("\nOne two three `four`\nfive.\n"), "{narrow}");
        assert!(narrow.contains("\n- arm64: `isb`\n  there, or an\n  interrupt.\n"), "{narrow}");
        assert!(narrow.lines().all(|l| l.len() <= 20), "{narrow}");
    }

    #[test]
    fn colours_change_no_word() {
        let coloured = at(40, true);
        assert!(coloured.contains("\x1b[1m## Example\x1b[0m\n"), "{coloured}");
        assert!(coloured.contains("three \x1b[36mfour\x1b[0m five"), "{coloured}");
        // A line of a program is no heading.
        assert!(coloured.contains("\n# a       b\n"), "{coloured}");
        assert!(!at(40, false).contains('\x1b'));
    }
}
