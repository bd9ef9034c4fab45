//! Generated code in scenarios, and what it writes.
#![cfg(feature = "vcpu")]
#![allow(clippy::expect_used, clippy::panic)] // tests may

use textbed_arch::Arch;
use textbed_event::Collect;
use textbed_scenario::{RunOptions, Version, load, run};

const ARCHES: [Arch; 4] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];

/// Notes and how many assertions failed.
fn ran(arch: Arch, lines: &str) -> (Vec<String>, usize) {
    let text = format!("scenario \"s\"\nkernel 6.12\n{lines}");
    let (loaded, _) = load("s.tb", text, &[]).expect("a scenario");
    let options = RunOptions::new(arch, Version::parse("6.12").expect("a version"));
    let end = run(&loaded, &options, &mut Collect::default()).expect("it runs");
    (end.notes.iter().map(|n| n.text.clone()).collect(), end.asserts_failed)
}

/// What is wrong with a statement: message, place, and help.
fn wrong(arch: Arch, line: &str) -> (String, String, Option<String>) {
    let text = format!("scenario \"s\"\ncpu 0 {{\np = vmalloc(4K)\n{line}\n}}\n");
    let diagnostics = match load("s.tb", text.clone(), &[]) {
        Err(diagnostics) => diagnostics,
        Ok((loaded, _)) => {
            let options = RunOptions::new(arch, Version::parse("6.12").expect("a version"));
            match run(&loaded, &options, &mut Collect::default()) {
                Err(textbed_scenario::RunError::Input(diagnostics)) => diagnostics,
                other => panic!("{other:?}"),
            }
        }
    };
    let first = diagnostics.iter().find(|d| !d.message.contains("exist")).expect("one");
    (first.message.clone(), first.span.text(&text).to_owned(), first.help.clone())
}

#[test]
fn generated_code_runs_and_its_fields_can_be_read() {
    for arch in ARCHES {
        for (format, arguments) in
            [("a", "key + 1K, key"), ("3", "key + 1K, key"), ("77", "key + 1K, key")]
        {
            let (notes, failed) = ran(
                arch,
                &format!(
                    "cpu 0 {{\nf = vmalloc_exec(4K)\nkey = vmalloc(4K)\n\
                     memcpy(f, jit(bkey_{format}))\nmemcpy(key, jit(bkey_{format}_key))\n\
                     flush_icache_range(f, f + 4K)\ncall(f, {arguments})\n\
                     same = memcmp(key + 1K, jit(bkey_{format}_unpacked))\nassert same == 0\n\
                     other = memcmp(key + 1K, jit(bkey_b_key))\nassert other == 1\n\
                     memcpy(f, jit(bkey_{format}_pregenerated))\n\
                     memcpy(key + 512, jit(bkey_{format}_table))\n\
                     flush_icache_range(f, f + 4K)\ncall(f, key + 2K, key, key + 512)\n\
                     same = memcmp(key + 2K, jit(bkey_{format}_unpacked))\nassert same == 0\n}}\n"
                ),
            );
            assert_eq!(failed, 0, "{arch} {format} {notes:?}");
        }
    }
}

#[test]
fn loads_have_the_order_and_the_width_that_they_say() {
    for arch in ARCHES {
        let (notes, failed) = ran(
            arch,
            "cpu 0 {\np = vmalloc(4K)\n\
             # as x86-64 code a number is its bytes in order, elsewhere a word\n\
             memcpy(p, 0x11223344)\na = load_u8(p)\nb = load_u16(p)\nc = load_u32(p)\n\
             when x86_64 {\n assert a == 0x11\n assert b == 0x2211\n assert c == 0x44332211\n}\n\
             when arm64, ppc64le {\n assert a == 0x44\n assert b == 0x3344\n}\n\
             when ppc64 {\n assert a == 0x11\n assert b == 0x1122\n}\n\
             when arm64, powerpc {\n assert c == 0x11223344\n}\n\
             # zeros at the front are bytes, too\n\
             memset(p + 8, 0xff, 8)\nmemcpy(p + 8, 0x00000005)\nd = load_u32(p + 8)\n\
             memcpy(p + 12, 0)\ne = load_u8(p + 12)\nf = load_u8(p + 13)\nassert e == 0\n\
             when x86_64 {\n assert d == 0x05000000\n assert f == 0xff\n}\n\
             when arm64, powerpc {\n assert d == 5\n}\n\
             load_u32(p + 4K)\nassert 0 == 1\n}\n",
        );
        // The guard page ends the program.
        let last = notes.last().expect("a note");
        assert!(last.contains("load_u32(p + 4K): fault: load at"), "{arch} {notes:?}");
        assert!(last.contains("nothing is mapped there"), "{arch} {notes:?}");
        assert_eq!(failed, 0, "{arch} {notes:?}");
    }
}

#[test]
fn names_that_stand_for_nothing_are_told() {
    let (message, place, help) = wrong(Arch::X86_64, "memcpy(p, jit(bkey_a_kez))");
    assert_eq!(message, "there is no generated code `bkey_a_kez`");
    assert_eq!(
        (place.as_str(), help.as_deref()),
        ("bkey_a_kez", Some("did you mean `bkey_a_key`?"))
    );
    let (_, _, help) = wrong(Arch::X86_64, "memcpy(p, jit(something_else))");
    assert!(help.expect("help").contains("bkey_NUMBER"));
    let (message, place, _) = wrong(Arch::Ppc32, "memcpy(p, jit(bkey_a))");
    assert_eq!(message, "no code generator for ppc32");
    assert_eq!(place, "bkey_a");
}

#[test]
fn calls_of_the_runner_say_what_they_take() {
    for (line, want, at) in [
        ("r = load_u8()", "`load_u8` takes one argument, the address", "load_u8"),
        ("r = load_u64(p, 8)", "`load_u64` takes one argument, the address", "load_u64"),
        ("r = load_u64(code(ret42))", "a number or an address has to stand here", "ret42"),
        ("r = memcmp(p, 5)", "`memcmp` takes an address and `code(NAME)` or `jit(NAME)`", "memcmp"),
        ("r = __TLBI_VADDR(p)", "`__TLBI_VADDR` takes an address and an ASID", "__TLBI_VADDR"),
        ("r = call()", "`call` takes the address of the code, then its arguments", "call"),
    ] {
        let (message, place, _) = wrong(Arch::X86_64, line);
        assert_eq!((message.as_str(), place.as_str()), (want, at), "{line}");
    }
}
