//! Programs that use the kernel's calls as they are meant, put together by chance: several CPUs
//! that allocate, protect, alias, load, patch and free, each inside of the calls of the others, and
//! others that run what they are given. Nothing is anybody's mistake, so nothing that is certain
//! may be found, every CPU comes to its end, and code does what it should. With a part of the
//! synchronisations left out code goes wrong here and there, and where it does something is found.
//!
//! Not generated: probes, static keys, ftrace, trampolines (on some architectures and versions
//! these have faults of their own: `BUGS-FOUND.md`), large leaves that are split, hotplug. What is
//! only possible is not looked at.
#![allow(clippy::unwrap_used)] // tests may

use std::cell::Cell;

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use textbed_arch::Arch;
use textbed_check::{Checker, Confidence, Finding, Options};
use textbed_event::{Collect, Sink};
use textbed_scenario::{
    Loaded, Outcome, PolicyChoice, RunEnd, RunNote, RunOptions, SyncSite, Version, load, run,
};

/// Routines that units install, with an argument and what they return.
const CODE: [(&str, &str, u64); 2] = [("ret42", "", 42), ("fib", ", 10", 55)];
const PRODUCERS: usize = 3;

/// Whether something was seen in a case.
type TestResult = Result<bool, TestCaseError>;

/// Something that a CPU takes, uses, and gives back.
#[derive(Clone, Debug)]
enum Unit {
    Data {
        pages: u64,
        huge: bool,
    },
    /// Ranges of pages made read-only and perhaps writable again; freed as it is or writable.
    Protect {
        pages: u64,
        ranges: Vec<(u64, u64, bool)>,
        reset: bool,
    },
    Alias {
        pages: u64,
    },
    /// Code written and then protected: by one call or two, in memory of execmem or of vmalloc.
    Written {
        pages: u64,
        code: usize,
        execmem: bool,
        at_once: bool,
    },
    /// Code patched into memory that is protected already.
    Patched,
    Pack {
        bytes: u64,
        code: usize,
    },
    Module {
        code: usize,
        free_init: bool,
    },
    Call(&'static str),
}

fn unit() -> impl Strategy<Value = Unit> {
    let range = (0..8u64, 1..8u64, any::<bool>());
    let calls =
        ["kick_all_cpus_sync()", "vm_unmap_aliases()", "stop_machine()", "synchronize_rcu()"];
    prop_oneof![
        2 => (1..6u64, prop::bool::weighted(0.2)).prop_map(|(pages, huge)| Unit::Data { pages, huge }),
        2 => (1..8u64, prop::collection::vec(range, 1..4), any::<bool>())
            .prop_map(|(pages, ranges, reset)| Unit::Protect { pages, ranges, reset }),
        1 => (1..4u64).prop_map(|pages| Unit::Alias { pages }),
        4 => (1..4u64, 0..2usize, any::<bool>(), any::<bool>()).prop_map(
            |(pages, code, execmem, at_once)| Unit::Written { pages, code, execmem, at_once },
        ),
        2 => Just(Unit::Patched),
        3 => (prop::sample::select(vec![64, 256, 2000, 5000]), 0..2usize)
            .prop_map(|(bytes, code)| Unit::Pack { bytes, code }),
        3 => (0..2usize, any::<bool>())
            .prop_map(|(code, free_init)| Unit::Module { code, free_init }),
        1 => prop::sample::select(calls.to_vec()).prop_map(Unit::Call),
    ]
}

/// A unit by the lines that take it and those that give it back, and the code that it has: an
/// address and the routine.
type Lines = (Vec<String>, Vec<String>, Option<(String, usize)>);

fn lines(unit: &Unit, v: &str) -> Lines {
    let protect = |pages: u64| format!("try set_memory_rox({v}, {pages} pages)");
    let area = |pages: u64| {
        vec![format!("{v} = vmalloc({pages} pages)"), format!("memset({v}, 0, {pages} pages)")]
    };
    let reset = || vec![format!("set_vm_flush_reset_perms({v})"), format!("vfree({v})")];
    match *unit {
        Unit::Data { huge: true, .. } => {
            let take = [format!("{v} = vmalloc_huge(2M)"), format!("memset({v}, 0, 4K)")];
            (take.into(), vec![format!("vfree({v})")], None)
        }
        Unit::Data { pages, .. } => (area(pages), vec![format!("vfree({v})")], None),
        Unit::Protect { pages, ref ranges, reset: by_reset } => {
            let mut take = area(pages);
            for (first, count, back) in ranges {
                let first = first % pages;
                let count = (*count).min(pages - first);
                take.push(format!("try set_memory_ro({v} + {first} pages, {count} pages)"));
                if *back {
                    take.push(format!("try set_memory_rw({v} + {first} pages, {count} pages)"));
                }
            }
            let writable =
                [format!("try set_memory_rw({v}, {pages} pages)"), format!("vfree({v})")];
            (take, if by_reset { reset() } else { writable.into() }, None)
        }
        Unit::Alias { pages } => {
            let mut take = area(pages);
            take.extend([format!("{v}w = vmap({v}, {pages})"), format!("memset({v}w, 1, 64)")]);
            (take, vec![format!("vunmap({v}w)"), format!("vfree({v})")], None)
        }
        Unit::Written { pages, code, execmem, at_once } => {
            let from = if execmem { "execmem_alloc(EXECMEM_BPF, " } else { "vmalloc(" };
            let mut take = vec![
                format!("{v} = {from}{pages} pages)"),
                format!("bpf_fill_ill_insns({v}, {pages} pages)"),
                format!("memcpy({v}, code({}))", CODE[code].0),
                format!("flush_icache_range({v}, {v} + {pages} pages)"),
            ];
            if execmem || at_once {
                take.push(protect(pages));
            } else {
                take.push(format!("try set_memory_ro({v}, {pages} pages)"));
                take.push(format!("try set_memory_x({v}, {pages} pages)"));
            }
            take.push("kick_all_cpus_sync()".into());
            let back = if execmem { vec![format!("execmem_free({v})")] } else { reset() };
            (take, back, Some((v.to_owned(), code)))
        }
        Unit::Patched => {
            let take = format!(
                "{v} = vmalloc(1 pages)\nbpf_fill_ill_insns({v}, 1 pages)\n\
                 flush_icache_range({v}, {v} + 1 pages)\n{}\n\
                 when x86_64 {{\ntext_poke_copy({v}, code(ret42))\nkick_all_cpus_sync()\n}}\n\
                 when arm64 {{\naarch64_insn_copy({v}, code(ret42))\n}}\n\
                 when powerpc {{\nwith lock text_mutex {{\n\
                 patch_instruction({v}, 0x3860002a)\npatch_instruction({v} + 4, 0x4e800020)\n}}\n\
                 kick_all_cpus_sync()\n}}",
                protect(1)
            );
            (vec![take], reset(), Some((v.to_owned(), 0)))
        }
        Unit::Pack { bytes, code } => {
            let take = vec![
                format!("{v} = bpf_jit_binary_pack_alloc({bytes})"),
                format!("try bpf_jit_binary_pack_finalize({v}, code({}))", CODE[code].0),
                "kick_all_cpus_sync()".into(),
            ];
            let back = vec![format!("bpf_jit_binary_pack_free({v})")];
            (take, back, Some((format!("{v} + 8"), code)))
        }
        Unit::Module { code, free_init } => {
            let mut take = vec![
                format!("{v} = load_module(code({}))", CODE[code].0),
                "kick_all_cpus_sync()".into(),
                format!("try do_init_module({v})"),
            ];
            take.extend(free_init.then(|| "do_free_init()".into()));
            (take, vec![format!("free_module({v})")], Some((v.to_owned(), code)))
        }
        Unit::Call(call) => (vec![call.to_owned()], Vec::new(), None),
    }
}

/// The text of a scenario: units by their CPUs, each given back at once or at the end. `readers`
/// run all code in the order of the units, so that nobody waits for ever.
fn program(units: &[(usize, Unit, bool)], readers: usize) -> String {
    let (mut cpus, mut ends) = (vec![String::new(); PRODUCERS + readers], [(); 3].map(|()| vec![]));
    for (n, (cpu, unit, at_once)) in units.iter().enumerate() {
        let v = format!("u{n}");
        let (mut take, mut back, code) = lines(unit, &v);
        if let Some((entry, code)) = code {
            take.push(format!("publish {v}p = {entry}"));
            let (_, argument, result) = CODE[code];
            for (reader, lines) in cpus.iter_mut().enumerate().skip(PRODUCERS) {
                *lines += &format!(
                    "await {v}p\nr{v} = call({v}p{argument})\nassert r{v} == {result}\n\
                     publish {v}d{reader} = 1\n"
                );
                back.insert(0, format!("await {v}d{reader}"));
            }
        }
        cpus[*cpu] += &(take.join("\n") + "\n");
        if *at_once {
            cpus[*cpu] += &(back.join("\n") + "\n");
        } else {
            ends[*cpu].extend(back);
        }
    }
    let mut text = format!("scenario \"s\"\ncpus {}\n", cpus.len());
    for (cpu, lines) in cpus.iter().enumerate() {
        let end = ends.get(cpu).map(|end| end.join("\n")).unwrap_or_default();
        text += &format!("cpu {cpu} {{\n{lines}{end}\n}}\n");
    }
    text
}

/// What a run gave: the end, and what is found in it.
fn checked(loaded: &Loaded, options: &RunOptions) -> (RunEnd, Vec<Finding>) {
    let mut seen = Collect::default();
    let end = run(loaded, options, &mut seen).unwrap();
    let mut checker = Checker::new(Options::default());
    let _ = checker.begin(seen.header.as_ref().unwrap());
    seen.batches.iter().for_each(|batch| {
        let _ = checker.batch(batch);
    });
    (end, checker.finish().findings)
}

/// A program and how it is run.
fn programs() -> impl Strategy<Value = (Arch, String, RunOptions)> {
    let units = prop::collection::vec((0..PRODUCERS, unit(), prop::bool::weighted(0.7)), 1..14);
    let policy = prop_oneof![
        1 => Just(PolicyChoice::Newest),
        4 => Just(PolicyChoice::Stalest),
        4 => any::<u64>().prop_map(PolicyChoice::Random),
    ];
    let arch = prop::sample::select(vec![Arch::X86_64, Arch::Arm64, Arch::Ppc64le]);
    let version = prop::sample::select(vec!["6.12", "6.18", "7.0"]);
    (units, 1..=2usize, arch, version, policy).prop_map(
        |(units, readers, arch, version, policy)| {
            let usual = RunOptions::new(arch, Version::parse(version).unwrap());
            (arch, program(&units, readers), RunOptions { policy, ..usual })
        },
    )
}

/// Tries as many cases of a strategy, and says in how many the answer was yes.
fn count<S: Strategy>(cases: u32, of: S, is: impl Fn(S::Value) -> TestResult) -> u32 {
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let yes = Cell::new(0);
    let tried = TestRunner::new(config).run(&of, |value| {
        yes.set(yes.get() + u32::from(is(value)?));
        Ok(())
    });
    tried.unwrap_or_else(|e| panic!("{e}"));
    yes.get()
}

#[test]
fn nothing_certain_is_found_in_what_is_right() {
    let ran = count(48, programs(), |(arch, text, options)| {
        let (loaded, _) = load("s.tb", text.clone(), &[]).unwrap();
        let (end, mut findings) = checked(&loaded, &options);
        prop_assert_eq!(&end.outcome, &Outcome::Ended, "{}\n{:?}", text, end.notes);
        prop_assert_eq!(end.asserts_failed, 0, "{}\n{:?}", text, end.notes);
        findings.retain(|finding| finding.confidence == Confidence::Certain);
        prop_assert!(findings.is_empty(), "{arch}\n{text}\n{findings:#?}");
        Ok(end.notes.iter().any(|note| note.text.contains("returned")))
    });
    assert!(ran >= 24, "{ran} of 48 programs ran code");
}

/// A part of the synchronisations is left out, of the program and inside of calls: where code goes
/// wrong by that, something is found.
#[test]
fn what_goes_wrong_is_found() {
    let part = prop::collection::vec(any::<bool>(), 1..12);
    let wrong = count(96, (programs(), part), |((arch, text, options), part)| {
        let (loaded, _) = load("s.tb", text.clone(), &[]).unwrap();
        let all = RunOptions { left_out: Some(Vec::new()), ..options.clone() };
        let (end, _) = checked(&loaded, &all);
        let mut sites: Vec<SyncSite> = Vec::new();
        for seen in end.syncs {
            let every = SyncSite { nth: SyncSite::ALL, ..seen.site };
            if !sites.contains(&every) {
                sites.push(every);
            }
        }
        let mut out = part.iter().cycle();
        sites.retain(|_| *out.next().unwrap());
        let without = RunOptions { left_out: Some(sites.clone()), ..options };
        let (end, findings) = checked(&loaded, &without);
        let told = |note: &RunNote| {
            let says = ["fault", "unpredictable"].iter().any(|word| note.text.contains(word));
            note.failed_assert || says
        };
        let wrong = end.notes.iter().any(told);
        prop_assert!(
            !wrong || !findings.is_empty(),
            "{arch} without {sites:#?}\n{text}\n{:#?}",
            end.notes
        );
        Ok(wrong)
    });
    assert!(wrong >= 8, "code goes wrong in {wrong} of 96 programs");
}
