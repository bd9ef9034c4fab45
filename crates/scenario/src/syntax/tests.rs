//! Reading what was printed, reading noise, and what the messages say.

mod messages;
mod round_trip;

use super::ast::*;
use super::parse;

/// A file with every construct of the grammar.
pub(crate) const EVERYTHING: &str = r#"
# A file that says a bit of everything.
scenario "everything \"quoted\""   # with a comment
about "line one\nline two"
kernel 5.18-rc3, 6.12
arch x86_64, aarch64 , powerpc
cpus 3
config STRICT_MODULE_RWX = y
feature arm64.dic = 1
fail vmalloc #2 with ENOMEM     # the second one
fail module_alloc with E2BIG
allow wx-mapping "that is the story"

setup {
    area = vmalloc(2M, VM_FLUSH_RESET_PERMS | VM_ALLOW_HUGE_VMAP)
}
cpu 0 {
    here: try r = set_memory_ro(area, 512 pages)
    set_memory_x(area + 2 * (4K - 0x40), 1G)
    if r != -EINVAL { op isb } else {
        repeat 3 as i { fill(area + i, code(ret42), jit(prog)) }
    }
    when x86_64, powerpc {
        op dc_cvau area + 64, 4
        op ic.ivau(area)
    }
    with irqs_off { with lock text_mutex { with mm poking { with rcu { with stop_machine { } } } } }
    with patch(area + 64, 8) { }
    ipi all sync
    ipi 1, 2 sync
    ipi others sync
    publish entry = area + 64
}
cpu 1 {
    await entry
    r = call(entry)
    assert r == 42
    assert r <= 42
    assert r >= 42
    assert r < 43
    assert r > 41
}
handler ipi sync { op cpuid }
handler trap bug { }
expect: none
expect x86_64 kernel 5.18-rc3..6.12 reading strict: missing-trap-fill? missing int3_fill x2 at here, none-such
expect arm64 ppc64le kernel 6.12: blocked
"#;

#[test]
fn every_construct_is_read() {
    let file = parse(EVERYTHING).unwrap();
    assert_eq!(file.name.value, "everything \"quoted\"");
    assert_eq!(file.headers.len(), 9);
    assert_eq!(file.blocks.len(), 8);
    let Header::Kernel(versions) = &file.headers[1].value else { panic!() };
    assert_eq!(versions[0].value, "5.18-rc3");
    assert_eq!(versions[0].span.text(EVERYTHING), "5.18-rc3");
    let Header::Fail { nth, errno, .. } = &file.headers[6].value else { panic!() };
    assert_eq!(nth.as_ref().map(|n| n.value), Some(2));
    assert_eq!(errno.value, "ENOMEM");
    let Block::Cpu { body, .. } = &file.blocks[1].value else { panic!() };
    assert_eq!(body.len(), 10);
    assert_eq!(body[0].span.text(EVERYTHING), "here: try r = set_memory_ro(area, 512 pages)");
    assert_eq!(body[0].value.label.as_ref().unwrap().value, "here");
    let Block::Expect(expect) = &file.blocks[6].value else { panic!() };
    let Expected::Items(items) = &expect.expected.value else { panic!() };
    assert_eq!(items[0].span.text(EVERYTHING), "missing-trap-fill? missing int3_fill x2 at here");
    assert!(items[0].value.possible);
    assert_eq!(items[0].value.count.as_ref().unwrap().value, 2);
    assert_eq!(items[1].value.rule.value, "none-such");
    assert_eq!(expect.selectors.len(), 3);
    assert_eq!(expect.selectors[1].span.text(EVERYTHING), "kernel 5.18-rc3..6.12");
}

#[test]
fn products_bind_tighter_and_parentheses_stay() {
    let text = "scenario \"s\"\ncpu 0 {\n publish p = 1 - 2 * (3 + 4) * 5 + 6\n}\n";
    let file = parse(text).unwrap();
    let Block::Cpu { body, .. } = &file.blocks[0].value else { panic!() };
    let StmtKind::Publish { value, .. } = &body[0].value.kind else { panic!() };
    assert_eq!(value.rest.len(), 2);
    assert_eq!(value.rest[0].0, SumOp::Sub);
    assert_eq!(value.rest[0].1.rest.len(), 2, "three factors");
    assert!(matches!(value.rest[0].1.rest[0].1.value, Atom::Paren(_)));
}

#[test]
fn an_operator_on_bits_stands_with_itself_alone() {
    let text = |expr: &str| format!("scenario \"s\"\ncpu 0 {{\n publish p = {expr}\n}}\n");
    for fine in ["1 | 2 | 4", "(p + 4096) & 0xfff", "1 << 4", "8 / 2 * 3 % 5 + 1", "(1 ^ 2) - 1"] {
        assert!(parse(&text(fine)).is_ok(), "{fine}");
    }
    for (mixed, second) in
        [("p + 4096 & 0xfff", "`&`"), ("1 << 2 + 3", "`+`"), ("1 | 2 ^ 4", "`^`")]
    {
        let error = parse(&text(mixed)).unwrap_err();
        assert!(error.to_string().contains(second), "{mixed}: {error}");
    }
}

#[test]
fn strings_keep_what_is_escaped() {
    for value in ["", "a\r\n\tb", "\\\"", "\u{1}é😀", "\\n"] {
        let span = crate::span::Span::default();
        let name = crate::span::Spanned::new(value.to_owned(), span);
        let file = File { name, headers: Vec::new(), blocks: Vec::new() };
        let text = file.to_string();
        assert_eq!(text.lines().count(), 1);
        assert_eq!(parse(&text).unwrap().name.value, value, "{text}");
    }
}

#[test]
fn carriage_returns_tabs_and_a_byte_order_mark_are_blanks() {
    let unix = "scenario \"s\"\ncpu 0 {\n  f()\n}\n";
    let other = "\u{feff}scenario\t\"s\"\r\ncpu 0 {\r\n\tf()\r\n}";
    assert_eq!(parse(unix), parse(other));
    let file = parse(other).unwrap();
    let Block::Cpu { body, .. } = &file.blocks[0].value else { panic!() };
    assert_eq!(body[0].span.text(other), "f()");
}

#[test]
fn depth_is_limited_and_breadth_is_not() {
    let nested = |n: usize| {
        let open = "if 1 == 1 {\n".repeat(n);
        format!("scenario \"s\"\ncpu 0 {{\n{open}{}}}\n", "}\n".repeat(n))
    };
    assert!(parse(&nested(63)).is_ok());
    let error = parse(&nested(64)).unwrap_err();
    assert_eq!(error.message(), "nested deeper than 64 levels");
    assert_eq!(error.position.line, 66);
    let deep = format!("scenario \"s\"\ncpu 0 {{ assert {} }}", "(".repeat(100_000));
    assert!(parse(&deep).unwrap_err().message().starts_with("nested deeper"));
    // A long sum is flat: no stack for reading, printing or dropping it.
    let wide = format!("scenario \"s\"\ncpu 0 {{ publish p = 1{} }}", " + 1".repeat(200_000));
    let file = parse(&wide).unwrap();
    assert_eq!(parse(&file.to_string()), Ok(file));
}
