//! What the messages say: place, offending text, message and help of typical slips.

use super::*;
use crate::syntax::{SyntaxErrorKind, parse_bytes};

/// `line:column ⟨offending text⟩ message [| help]`
fn said(text: &str) -> String {
    let error = parse(text).unwrap_err();
    assert_eq!(error.span.text(text).lines().next().unwrap_or(""), error.found);
    let help = error.help().map(|help| format!(" | {help}")).unwrap_or_default();
    format!("{} ⟨{}⟩ {}{help}", error.position, error.found, error.message())
}

fn file(lines: &str) -> String {
    said(&format!("scenario \"s\"\n{lines}"))
}

fn stmt(line: &str) -> String {
    said(&format!("scenario \"s\"\ncpu 0 {{\n{line}\n}}\n"))
}

#[track_caller]
fn same(left: String, right: &str) {
    assert_eq!(left, right);
}

#[test]
fn slips_in_files_and_headers() {
    same(said(""), "1:1 ⟨⟩ expected `scenario`, found the end of the file");
    same(
        said("senario \"s\"\n"),
        "1:1 ⟨senario⟩ expected `scenario`, found `senario` | did you mean `scenario`?",
    );
    same(
        said("scenario story\n"),
        "1:10 ⟨story⟩ expected the scenario's name, found `story` | it stands in double quotes",
    );
    same(
        said("scenario \"story\nabout \"x\"\n"),
        "1:10 ⟨\"story⟩ this string is not closed on its line | \
         strings end with `\"` on the line they begin on",
    );
    same(
        file("abuot \"x\"\n"),
        "2:1 ⟨abuot⟩ expected a header or a block, found `abuot` | did you mean `about`?",
    );
    same(
        file("cpu 0 { }\nkernel 6.12\n"),
        "3:1 ⟨kernel⟩ expected a block, found `kernel` | headers stand before the blocks",
    );
    same(
        file("cpu 0 { }\nexpct: none\n"),
        "3:1 ⟨expct⟩ expected a block, found `expct` | did you mean `expect`?",
    );
    same(file("kernel v6\n"), "2:8 ⟨v6⟩ expected a kernel version, found `v6`");
    same(file("arch x86_64 arm64\n"), "2:13 ⟨arm64⟩ expected the end of the line, found `arm64`");
    same(
        file("fail vmalloc #2 wiht ENOMEM\n"),
        "2:17 ⟨wiht⟩ expected `allocation` and a number or `with`, found `wiht` | did you mean \
         `with`?",
    );
    same(
        file("fail vmalloc #2 allocation with ENOMEM\n"),
        "2:28 ⟨with⟩ expected which of the call's allocations, found `with`",
    );
    same(
        file("fail vmalloc allocation 3 wiht ENOMEM\n"),
        "2:27 ⟨wiht⟩ expected `with`, found `wiht` | did you mean `with`?",
    );
    same(
        file("fail vmalloc with 12\n"),
        "2:19 ⟨12⟩ expected an error's name, found `12` | as in `ENOMEM`",
    );
    same(
        file("fail vmalloc # 2 with ENOMEM \n  x"),
        "3:3 ⟨x⟩ expected a header or a block, found `x`",
    );
    same(
        file("feature arm64 dic = 1\n"),
        "2:15 ⟨dic⟩ expected `.` and the feature's name, found `dic`",
    );
    same(file("cpus 2K\n"), "2:6 ⟨2K⟩ expected how many CPUs, found `2K` | no unit here");
    same(
        file("about \"a\\qb\"\n"),
        "2:9 ⟨\\q⟩ `\\q` is no escape | escapes are `\\\"`, `\\\\`, `\\n`, `\\r` and `\\t`",
    );
    same(
        file("cpu 0 { }\n}\n"),
        "3:1 ⟨}⟩ expected a block, found `}` | there is no open `{` for this",
    );
    same(file("handler irq x { }\n"), "2:9 ⟨irq⟩ expected `ipi` or `trap`, found `irq`");
}

#[test]
fn slips_in_statements() {
    same(
        stmt("pubilsh entry = 3"),
        "3:1 ⟨pubilsh⟩ expected a statement, found `pubilsh` | did you mean `publish`?",
    );
    same(
        stmt("awiat entry"),
        "3:1 ⟨awiat⟩ expected a statement, found `awiat` | did you mean `await`?",
    );
    same(
        stmt("r = 5"),
        "3:5 ⟨5⟩ expected a call, found `5` | \
         variables hold results of calls; `publish NAME = …` gives a value a name",
    );
    same(
        stmt("r = other"),
        "3:5 ⟨other⟩ expected a call, found `other` | \
         variables hold results of calls; `publish NAME = …` gives a value a name",
    );
    same(stmt("f(1 2)"), "3:5 ⟨2⟩ expected `,` or `)`, found `2`");
    same(stmt("f(1"), "3:4 ⟨⟩ expected `,` or `)`, found the end of the line");
    same(
        stmt("f(g(1))"),
        "3:3 ⟨g⟩ expected a value, flags, `code` or `jit`, found `g` | \
         calls do not nest: keep the result in a variable first",
    );
    same(
        stmt("f(coed(ret42))"),
        "3:3 ⟨coed⟩ expected a value, flags, `code` or `jit`, found `coed` | did you mean `code`?",
    );
    same(stmt("assert r = 42"), "3:10 ⟨=⟩ expected a comparison, found `=` | equality is `==`");
    same(
        stmt("if r { }"),
        "3:6 ⟨{⟩ expected a comparison, found `{` | \
         one of `==`, `!=`, `<`, `<=`, `>`, `>=`",
    );
    same(
        stmt("if r == 1 { }\nelse { }"),
        "4:1 ⟨else⟩ expected a statement, found `else` | \
         `else` stands on the line of the `}` that ends the `if`",
    );
    same(
        stmt("if r == 1 { } else if r == 2 { }"),
        "3:20 ⟨if⟩ expected `{`, found `if` | write `else { if … { … } }`",
    );
    same(
        stmt("with irq_off { }"),
        "3:6 ⟨irq_off⟩ expected `irqs_off`, `lock`, `mm`, `stop_machine`, `rcu`, `idle`, \
         `polling_idle` or `patch`, found `irq_off` | did you mean `irqs_off`?",
    );
    same(stmt("repeat 3 i { }"), "3:10 ⟨i⟩ expected `as` or `{`, found `i`");
    same(
        stmt("publish ENTRY = 3"),
        "3:9 ⟨ENTRY⟩ `ENTRY` is in capitals, so it is a flag, and no flag can stand here | \
         variables have a lower-case letter in their names",
    );
    same(
        stmt("x = ENTRY + 1"),
        "3:5 ⟨ENTRY⟩ `ENTRY` is in capitals, so it is a flag, and no flag can stand here | \
         variables have a lower-case letter in their names",
    );
    assert!(parse("scenario \"s\"\ncpu 0 { x = __MACRO(p, 0) }").is_ok());
    same(
        stmt("publish when = 3"),
        "3:9 ⟨when⟩ `when` is a word of the language and can't be a name",
    );
    same(
        stmt("f(99999999999999999999)"),
        "3:3 ⟨99999999999999999999⟩ `99999999999999999999` is larger than 64 bits can hold | \
         the largest value is 18446744073709551615",
    );
    same(
        stmt("f(2MB)"),
        "3:3 ⟨2MB⟩ `2MB` is no number | \
         numbers are decimal or `0x…`, then `K`, `M`, `G` or ` pages`",
    );
    same(stmt("ipi 1,2"), "3:8 ⟨⟩ expected the handler's name, found the end of the line");
    same(stmt("f() g()"), "3:5 ⟨g⟩ expected the end of the line or `}`, found `g`");
    same(
        stmt("f"),
        "3:2 ⟨⟩ expected `(` after the name of a call, `=` or `:`, found the end of the line",
    );
    same(
        stmt("banana split"),
        "3:1 ⟨banana⟩ expected a statement, found `banana` | \
         a name begins a call `f(…)`, an assignment `r = f(…)` or a label `here:`",
    );
    same(
        said("scenario \"s\"\ncpu 0 {\n  f()\ncpu 1 {\n}\n"),
        "4:1 ⟨cpu⟩ expected a statement, found `cpu` | \
         blocks do not nest: is a `}` missing before this line?",
    );
    same(said("scenario \"s\"\ncpu 0 {\n  f()\n"), "2:7 ⟨{⟩ this `{` is never closed");
}

#[test]
fn slips_in_expect_lines() {
    same(
        file("expect none\n"),
        "2:12 ⟨⟩ expected an architecture, `kernel`, `reading` or `:`, found the end of the line",
    );
    same(
        file("expect reading strickt: none\n"),
        "2:16 ⟨strickt⟩ expected `strict`, `mapped` or `fresh`, found `strickt` | \
         did you mean `strict`?",
    );
    same(
        file("expect: wx-mapping mising isb\n"),
        "2:20 ⟨mising⟩ expected `missing`, `x` and a number, `at` or `,`, found `mising` | \
         did you mean `missing`?",
    );
    same(
        file("expect: wx-mapping at here x2\n"),
        "2:28 ⟨x2⟩ expected `,`, found `x2` | \
         the order is: rule, `?`, `missing OP`, `xN`, `at LABEL`",
    );
    same(file("expect: \n"), "2:9 ⟨⟩ expected a rule's name, found the end of the line");
    // A list goes on behind a comma, over comments too; what follows has to be a rule.
    same(
        file("expect: wx-mapping, # why\n\n"),
        "4:1 ⟨⟩ expected a rule's name, found the end of the file",
    );
    same(file("expect: none, wx-mapping\n"), "2:13 ⟨,⟩ expected the end of the line, found `,`");
}

#[test]
fn bytes_that_are_no_text() {
    let error = parse_bytes(b"scenario \"s\"\ncpu \xff").unwrap_err();
    assert_eq!(*error.kind, SyntaxErrorKind::NotText);
    assert_eq!((error.position.to_string().as_str(), error.span.start), ("2:5", 17));
    let noise: Vec<u8> = (0..=255).collect();
    assert!(parse_bytes(&noise).is_err());
}

#[test]
fn long_and_strange_words_are_shown_in_short() {
    let long = "é".repeat(1000);
    let error = parse(&format!("scenario \"s\"\n{long}")).unwrap_err();
    assert!(error.message().len() < 200, "{}", error.message());
    same(file("\u{7}\n"), "2:1 ⟨\u{7}⟩ expected a header or a block, found `\\u{7}`");
}
