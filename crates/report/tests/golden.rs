//! The text report of the made-up run, to the letter: narrow and wide, plain and coloured.
//!
//! The expected texts are files of `tests/golden`. To take over a change that was meant, run with
//! `INSTA_UPDATE=always` and read what changed.

mod fixture;

use fixture::run;
use textbed_report::text::{Style, run_report};
use unicode_width::UnicodeWidthStr;

fn shown(width: usize, colour: bool, detail: u8) -> String {
    run_report(&run(), Style { width, colour, detail })
}

fn hold(name: &str, text: String) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("golden");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text));
}

#[test]
fn reports_are_laid_out_for_80_and_120_columns() {
    for width in [80, 120] {
        let text = shown(width, false, 1);
        for line in text.lines() {
            assert!(line.width() <= width, "{width}: {line}");
        }
        hold(&format!("plain-{width}"), text);
    }
    hold("verbose-100", shown(100, false, 2));
}

#[test]
fn colours_change_nothing_but_colours() {
    let coloured = shown(100, true, 1);
    assert!(coloured.contains("\x1b["));
    let mut bare = String::new();
    let mut rest = coloured.as_str();
    while let Some((before, after)) = rest.split_once("\x1b[") {
        bare.push_str(before);
        rest = after.split_once('m').map_or("", |(_, rest)| rest);
    }
    bare.push_str(rest);
    assert_eq!(bare, shown(100, false, 1));
    // Escapes as text, so that the file can be read.
    hold("coloured-100", coloured.replace('\x1b', "<esc>"));
}
