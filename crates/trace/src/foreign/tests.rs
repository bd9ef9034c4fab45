use super::*;

fn lines(decoder: &mut Decoder, line: &str) -> (Foreign, Vec<String>) {
    let said = decoder.line(line.as_bytes());
    (said, decoder.lines().map(|l| String::from_utf8_lossy(l).into_owned()).collect())
}

#[test]
fn a_call_tree_becomes_entries_and_returns() {
    let mut d = Decoder::default();
    let mut all = Vec::new();
    // As printed with funcgraph-abstime, funcgraph-proc, funcgraph-args and funcgraph-retval.
    for line in [
        "   12.000100 |   1)  insmod-77    |               |  set_memory_ro(addr=0xffffffffc0000000, numpages=4) {",
        "   12.000110 |   1)  insmod-77    |   0.500 us    |    __text_poke(func=0xffffffff81000000, addr=0xffffffffc0000000, len=4); /* = 0x0 */",
        "   12.000120 |   1)  insmod-77    |               |    /* module_load: dummy */",
        "   12.000130 |   1)  insmod-77    |   0.100 us    |    nobody_knows(x=1);",
        "   12.000140 |   1)  insmod-77    |   9.500 us    |  } /* set_memory_ro ret=0xffffffea */",
    ] {
        all.extend(lines(&mut d, line).1);
    }
    assert_eq!(
        all,
        [
            "insmod-77 [001] 12.000100: set_memory_ro: (set_memory_ro+0x0/0x0) addr=0xffffffffc0000000 numpages=4",
            "insmod-77 [001] 12.000110: __text_poke: (__text_poke+0x0/0x0) func=0xffffffff81000000 addr=0xffffffffc0000000 len=4",
            "insmod-77 [001] 12.000110500: __text_poke__ret: (0x0 <- __text_poke) ret=0x0",
            "insmod-77 [001] 12.000120: module_load: dummy",
            "insmod-77 [001] 12.000140: set_memory_ro__ret: (0x0 <- set_memory_ro) ret=0xffffffea",
        ]
    );
}

#[test]
fn an_end_without_a_name_belongs_to_the_innermost_open_function_of_its_task() {
    let mut d = Decoder::default();
    for line in [
        " 0)               |  vmap() {",
        " ------------------------------------------",
        " 0)    bash-12    =>   kworker-7 ",
        " ------------------------------------------",
        "",
    ] {
        assert_eq!(lines(&mut d, line).1.len(), usize::from(line.contains("vmap")), "{line}");
    }
    assert_eq!(lines(&mut d, " 0)               |  set_memory_x() {").1.len(), 1);
    let (_, ended) = lines(&mut d, " 0)   1.500 us    |  } /* = 0x0 */");
    assert_eq!(ended, ["kworker-7 [000] 0: set_memory_x__ret: (0x0 <- set_memory_x) ret=0x0"]);
    // An end with nothing open, and one without a result, say nothing.
    assert_eq!(lines(&mut d, " 0)   1.500 us    |  } /* = 0x0 */"), (Foreign::NotNeeded, vec![]));
    assert_eq!(lines(&mut d, " 3)   1.500 us    |  }"), (Foreign::NotNeeded, vec![]));
}

#[test]
fn bpftrace_and_what_tools_print_beside_events() {
    let mut d = Decoder::default();
    let event =
        r#"{"type": "printf", "data": "  a-1 [000] ..... 1.5: vfree: (vfree+0x0/0x0) addr=0x1\n"}"#;
    let (said, text) = lines(&mut d, event);
    assert_eq!(said, Foreign::Lines);
    assert_eq!(text, ["  a-1 [000] ..... 1.5: vfree: (vfree+0x0/0x0) addr=0x1"]);
    for (line, said) in [
        (r#"{"type": "lost_events", "data": {"events": 23}}"#, Foreign::Lost(Some(23))),
        (r#"{"type": "attached_probes", "data": {"probes": 5}}"#, Foreign::NotNeeded),
        (r#"{"type": "printf", "data": "torn"#, Foreign::Unknown),
        ("Attaching 12 probes...", Foreign::NotNeeded),
        ("Lost 12 events", Foreign::Lost(Some(12))),
        ("cpus=8", Foreign::Cpus(8)),
        ("CPU 1 is empty", Foreign::NotNeeded),
        ("\tffffffff81234567 vfree+0x0 ([kernel.kallsyms])", Foreign::NotNeeded),
        ("\tnothing of the kind", Foreign::Unknown),
        ("hello | world", Foreign::Unknown),
        ("|", Foreign::Unknown),
        (" 9999999)   1 us |  vmap();", Foreign::Unknown),
    ] {
        assert_eq!(lines(&mut d, line).0, said, "{line}");
    }
}

proptest::proptest! {
    /// Whatever a line holds: no panic, and what comes out are lines.
    #[test]
    fn any_line_is_survived(text in "[ -~|(){}*/=>\\-\u{e9}]{0,120}") {
        let mut d = Decoder::default();
        let _ = d.line(text.as_bytes());
        proptest::prop_assert!(d.lines().all(|l| !l.contains(&b'\n')));
    }

    #[test]
    fn any_graph_line_is_survived(
        cpu in "[0-9]{0,6}", name in "[a-z_ \\[\\]]{0,12}", args in "[ -~]{0,40}", end in "[ -~]{0,30}",
    ) {
        let mut d = Decoder::default();
        let _ = d.line(format!(" {cpu})  1.0 us |  {name}({args}){end}").as_bytes());
        let _ = d.line(format!(" {cpu})  1.0 us |  }} /* {end} */").as_bytes());
    }
}
