//! What the analysis says, for each kind of problem, and that it is silent where all is well.

use super::*;
use crate::syntax::parse;

const RULES: [&str; 3] = ["wx-mapping", "missing-trap-fill", "ignored-error"];
const CALLS: [&str; 4] = ["vmalloc", "set_memory_ro", "vfree", "call"];
const ROUTINES: [&str; 2] = ["ret42", "ret43"];
const KNOWN: Known<'static> =
    Known { rules: Some(&RULES), calls: Some(&CALLS), routines: Some(&ROUTINES) };

/// `[W ]line:⟨place⟩ message [-> line:⟨related⟩] [| help]`, one problem a line.
fn said(text: &str) -> Vec<String> {
    let file = parse(text).unwrap_or_else(|e| panic!("{e}"));
    let index = crate::span::LineIndex::new(text);
    let shown = |span: Span| {
        let line = index.position(text, span.start).line;
        format!("{line}:⟨{}⟩", span.text(text))
    };
    let problems = analyse(&file, &KNOWN);
    problems
        .iter()
        .map(|p| {
            let d = p.diagnostic();
            let w = if d.severity == Severity::Warning { "W " } else { "" };
            let related = d.related.iter().map(|(s, _)| format!(" -> {}", shown(*s)));
            let help = d.help.iter().map(|h| format!(" | {h}"));
            let tail: String = related.chain(help).collect();
            format!("{w}{} {}{tail}", shown(d.span), d.message)
        })
        .collect()
}

#[track_caller]
fn one(lines: &str, wanted: &str) {
    assert_eq!(said(&format!("scenario \"s\"\n{lines}")), [wanted]);
}

#[test]
fn nothing_is_said_about_a_good_file() {
    let text = r#"scenario "good"
kernel 5.18-rc3, 6.12
arch x86_64, powerpc
cpus 2
feature powerpc.coherent_icache = 0
fail vmalloc #1 with ENOMEM
allow wx-mapping "because"
setup {
    area = vmalloc(2M)
}
cpu 0 {
    when x86_64 { p = vmalloc(4K) }
    when powerpc { p = vmalloc(8K) }
    here: set_memory_ro(p, 1)
    if area > p { publish entry = area } else { publish entry = p }
    repeat 2 as i { set_memory_ro(area + i * 4K, 1) }
    ipi others sync
}
cpu 1 {
    await entry
    r = call(entry)
    assert r != -EINVAL
}
handler ipi sync {
    vfree(entry)
    when x86_64 { op cpuid } 
}
expect: none
expect x86_64: ignored-error missing isb at here
expect ppc64 kernel 6.12: missing-trap-fill? x2
"#;
    assert_eq!(said(text), [""; 0]);
}

#[test]
fn names() {
    one(
        "setup { area = vmalloc(1) }\ncpu 0 { vfree(aera) }",
        "3:⟨aera⟩ `aera` is used before anything gives it a value | did you mean `area`?",
    );
    one("cpu 0 { vfree(p)\np = vmalloc(1) }", "2:⟨p⟩ `p` is used before anything gives it a value");
    one(
        "cpu 0 { p = vmalloc(1) }\ncpu 1 { vfree(p) }",
        "3:⟨p⟩ `p` is used before anything gives it a value",
    );
    one(
        "cpu 0 { a = vmalloc(1)\nif a > 0 { b = vmalloc(1) }\nvfree(b) }",
        "W 4:⟨b⟩ `b` may have no value here",
    );
    one(
        "cpu 0 { repeat 2 as i { vfree(i) }\nvfree(i) }",
        "3:⟨i⟩ `i` is used before anything gives it a value",
    );
    one(
        "cpu 0 { publish p = 1 }\ncpu 1 { vfree(p) }",
        "3:⟨p⟩ `p` is published elsewhere and has to be awaited before it is used \
         -> 2:⟨p⟩ | add `await p` before it",
    );
    one(
        "arch arm64, x86_64\ncpu 0 { when arm64 { p = vmalloc(1) }\nvfree(p) }",
        "4:⟨p⟩ `p` is used before anything gives it a value (on x86_64)",
    );
}

#[test]
fn publishing_and_waiting() {
    one(
        "cpu 0 { publish entry = 1 }\ncpu 1 { await enrty }",
        "W 3:⟨enrty⟩ nobody publishes `enrty`, so this CPU is blocked here \
         | did you mean `entry`?",
    );
    one(
        "cpu 0 { await p\npublish p = 1 }",
        "W 2:⟨p⟩ only this program publishes `p`, and not before this, so it is blocked here \
         -> 3:⟨p⟩",
    );
    one(
        "arch arm64, x86_64\ncpu 0 { when arm64 { publish p = 1 } }\ncpu 1 { await p }",
        "W 4:⟨p⟩ nobody publishes `p`, so this CPU is blocked here (on x86_64)",
    );
    one(
        "cpu 0 { publish p = 1 }\ncpu 1 { publish p = 2 }",
        "3:⟨p⟩ `p` is published twice -> 2:⟨p⟩",
    );
    one(
        "cpu 0 { if 1 == 1 { publish p = 1 }\nif 1 == 1 { } else { publish p = 2 } }",
        "3:⟨p⟩ `p` is published twice -> 2:⟨p⟩",
    );
    one(
        "cpu 0 { repeat 2 { publish p = 1 } }",
        "2:⟨p⟩ `p` is published once, and this is repeated",
    );
    one(
        "cpu 0 { publish p = 1\nipi all h }\nhandler ipi h { await p }",
        "4:⟨await p⟩ a handler can't wait: the CPU it interrupts can't go on meanwhile",
    );
    assert!(said("scenario \"s\"\ncpu 0 { publish p = 1\nawait p\nvfree(p) }").is_empty());
    assert!(said("scenario \"s\"\ncpu 0 { repeat 1 { publish p = 1 } }").is_empty());
}

#[test]
fn blocks_and_cpus() {
    one("cpu 0 { }\ncpu 0 { }", "3:⟨0⟩ CPU 0 is here twice -> 2:⟨0⟩");
    one("setup { }\nsetup { }", "3:⟨setup⟩ `setup` is here twice -> 2:⟨setup⟩");
    one(
        "cpus 2\ncpu 2 { }",
        "3:⟨2⟩ there is no CPU 2: the CPUs are 0 to 1 | the `cpus` line would have to say 3",
    );
    one(
        "cpu 0 { ipi 0, 2 h }\nhandler ipi h { }",
        "2:⟨2⟩ there is no CPU 2: the CPUs are 0 to 1 | the `cpus` line would have to say 3",
    );
    one("cpus 0\nsetup { }", "2:⟨0⟩ 0 CPUs can't be had: it must be 1 to 1024");
    one("cpus 1025\nsetup { }", "2:⟨1025⟩ 1025 CPUs can't be had: it must be 1 to 1024");
    one(
        "cpu 0 { ipi all snyc }\nhandler trap sync { }",
        "2:⟨snyc⟩ there is no handler `snyc` | did you mean `sync`?",
    );
    one(
        "cpu 0 { ipi all sync }\nhandler trap sync { }",
        "2:⟨sync⟩ `sync` handles traps, not interrupts from other CPUs -> 3:⟨sync⟩",
    );
    one("cpu 0 { }\nhandler ipi h { }", "W 3:⟨h⟩ nothing sends an IPI to the handler `h`");
    one("cpu 0 { a: vfree(1)\na: vfree(1) }", "3:⟨a⟩ label `a` is here twice -> 2:⟨a⟩");
    one("cpu 0 { repeat 0 { } }", "W 2:⟨0⟩ `repeat 0` does nothing");
    one("", "W 1:⟨\"s\"⟩ no CPU has a program, so nothing happens");
    // The highest number there is.
    let most = format!("cpu {} {{ }}", u64::MAX);
    one(
        &most,
        "2:⟨18446744073709551615⟩ there is no CPU 18446744073709551615: the CPUs are 0 to 1023",
    );
}

#[test]
fn names_from_lists() {
    one(
        "arch x86_64, amr64\ncpu 0 { }",
        "2:⟨amr64⟩ there is no architecture `amr64` | did you mean `arm64`?",
    );
    one(
        "arch arm64, aarch64\ncpu 0 { }",
        "2:⟨aarch64⟩ architecture arm64 is here twice -> 2:⟨arm64⟩",
    );
    one(
        "cpu 0 { set_memory_or(1, 1) }",
        "2:⟨set_memory_or⟩ there is no call `set_memory_or` | did you mean `set_memory_ro`?",
    );
    one(
        "fail vmaloc with ENOMEM\ncpu 0 { }",
        "2:⟨vmaloc⟩ there is no call `vmaloc` | did you mean `vmalloc`?",
    );
}

#[test]
fn more_names_from_lists() {
    let said = |lines: &str| said(&format!("scenario \"s\"\n{lines}"));
    assert_eq!(
        said("fail vmalloc #0 with ENOMME\ncpu 0 { }"),
        [
            "2:⟨0⟩ `#` counts from 1",
            "2:⟨ENOMME⟩ there is no error `ENOMME` | did you mean `ENOMEM`?"
        ]
    );
    assert_eq!(
        said("arch arm64\ncpu 0 { op dsb_ihs\nop cpuid\nvfree(code(ret44), -EINVLA) }"),
        [
            "3:⟨dsb_ihs⟩ there is no instruction `dsb_ihs` | did you mean `dsb_ish`?",
            "4:⟨cpuid⟩ `cpuid` is an instruction of other architectures | put it into `when x86_64 { … }`",
            "5:⟨ret44⟩ there is no guest routine `ret44` | did you mean `ret42`?",
            "5:⟨-EINVLA⟩ there is no error `EINVLA` | did you mean `EINVAL`?",
        ]
    );
    assert_eq!(
        said("allow wx-maping \"x\"\nfeature arm64.dci = 1\nkernel 6, 5.18, 5.18.0\nsetup { }"),
        [
            "2:⟨wx-maping⟩ there is no rule `wx-maping` | did you mean `wx-mapping`?",
            "3:⟨dci⟩ there is no feature `dci` | did you mean `dic`?",
            "4:⟨6⟩ '6' is no kernel version: it needs two or three numbers, as in 6.12 or 6.12.3",
            "4:⟨5.18.0⟩ kernel 5.18 is here twice",
        ]
    );
}

#[test]
fn expect_lines() {
    one(
        "setup { }\nexpect arm64: none\nexpect aarch64: blocked",
        "4:⟨expect aarch64: blocked⟩ two `expect` lines apply to the same run, and neither is more \
         specific -> 3:⟨expect arm64: none⟩ | add a line with the selectors of both, or make one \
         narrower",
    );
    one(
        "setup { }\nexpect: wx-maping",
        "3:⟨wx-maping⟩ there is no rule `wx-maping` | did you mean `wx-mapping`?",
    );
    one("setup { }\nexpect: wx-mapping x0", "3:⟨x0⟩ `x0` expects nothing");
    one(
        "setup { here: vfree(1) }\nexpect: wx-mapping at hree",
        "3:⟨hree⟩ there is no label `hree` | did you mean `here`?",
    );
    one(
        "setup { }\nexpect x86-46: none",
        "3:⟨x86-46⟩ there is no architecture `x86-46` | did you mean `x86_64`?",
    );
    one(
        "setup { }\nexpect kernel 6.12..5.18: none",
        "3:⟨kernel 6.12..5.18⟩ this range of versions ends before it begins",
    );
    one(
        "arch arm64\nsetup { when x86_64 { } }",
        "W 3:⟨x86_64⟩ the scenario's `arch` line does not name x86_64, so this is never used",
    );
    one(
        "arch arm64\nsetup { }\nexpect powerpc: none",
        "W 4:⟨powerpc⟩ the scenario's `arch` line does not name powerpc, so this is never used",
    );
}

#[test]
fn cpu_counts_and_architectures() {
    let counts = |lines: &str| cpu_count(&parse(&format!("scenario \"s\"\n{lines}")).unwrap());
    assert_eq!(counts(""), 2);
    assert_eq!(counts("cpu 3 { }"), 4);
    assert_eq!(counts("cpus 1\n"), 1);
    let arches = |lines: &str| architectures(&parse(&format!("scenario \"s\"\n{lines}")).unwrap());
    assert_eq!(arches(""), USUAL_ARCHES);
    assert_eq!(
        arches("arch powerpc, amd64"),
        [Arch::X86_64, Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32]
    );
}

mod never_panics {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn on_files_that_were_damaged(
            cuts in prop::collection::vec((any::<prop::sample::Index>(), "[a-z0-9{}(): \n]"), 1..6),
        ) {
            let mut text = crate::syntax::EVERYTHING.to_owned();
            for (index, new) in cuts {
                let places: Vec<usize> = text.char_indices().map(|(i, _)| i).collect();
                let i = places[index.index(places.len())];
                let width = text[i..].chars().next().map_or(0, char::len_utf8);
                text.replace_range(i..i + width, &new);
            }
            if let Ok(file) = parse(&text) {
                for problem in analyse(&file, &KNOWN) {
                    prop_assert!(text.get(problem.span.start..problem.span.end).is_some());
                    prop_assert!(!problem.diagnostic().message.is_empty());
                }
            }
        }
    }
}

#[test]
fn an_idle_cpu_does_nothing_and_holds_nothing() {
    let idle = |body: &str| said(&format!("scenario \"s\"\n{body}"));
    let quiet = "cpu 0 { with polling_idle { publish idles = 1\nawait go } }\n\
                 cpu 1 { await idles\npublish go = 1 }";
    assert_eq!(idle(quiet), [""; 0]);
    one(
        "cpu 0 { with idle { vmalloc(4096) } }",
        "2:⟨vmalloc(4096)⟩ a CPU that idles can only \
         `publish` and `await`",
    );
    one(
        "cpu 0 { with lock l { with idle { publish x = 1 } } }",
        "2:⟨idle⟩ a CPU does not idle \
         inside of `with lock l`",
    );
}
