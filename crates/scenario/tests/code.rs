//! Scenarios whose programs call code: what emulated CPUs compute, and how a run that cannot go on
//! ends.

#![cfg(feature = "vcpu")]

mod common;

use common::{MAIN, Ran, loaded, options, run_on, try_run};
use textbed_arch::Arch;
use textbed_event::{CallRef, View};
use textbed_scenario::{Outcome, PolicyChoice, RunOptions};

/// Each architecture's way to executable code that works.
const CODE: &str = "kernel 6.12\ncpu 0 {\n\
    try p = vmalloc(4096)\n\
    memcpy(p, code(ret42))\n\
    try set_memory_rox(p, 1)\n\
    flush_icache_range(p, p + 4096)\n\
    publish entry = p\n\
    }\n\
    cpu 1 { await entry\nr = call(entry)\nassert r == 42 }\n";

#[test]
fn code_computes_what_it_computes() {
    let policies = [PolicyChoice::Newest, PolicyChoice::Stalest, PolicyChoice::Random(1)];
    for (arch, policy) in MAIN.into_iter().flat_map(|a| policies.map(|p| (a, p))) {
        let options = RunOptions { policy, ..options(arch, "6.12") };
        let ran = try_run(&loaded(CODE), &options).unwrap();
        assert_eq!(ran.end.outcome, Outcome::Ended, "{arch}");
        assert_eq!(ran.end.asserts_failed, 0, "{arch} {:?}", ran.notes());
        assert!(ran.notes().contains(&"cpu 1: call(entry) returned 42"), "{:?}", ran.notes());
        let fetched =
            ran.events().any(|(e, _)| e.cpu.0 == 1 && matches!(e.view(), View::Fetch { .. }));
        assert!(fetched, "{arch}");
    }
}

/// A flag that nothing orders after the code: under `stalest` the old code runs.
#[test]
fn an_unordered_publication_has_a_run_in_which_it_goes_wrong() {
    let text = |store: &str| {
        format!(
            "kernel 6.12\narch arm64\nfeature arm64.idc = 1\nfeature arm64.dic = 1\n\
             setup {{\n\
             p = __vmalloc_node_range(4K, 4K, 0xffff800090000000, 0xffff8000b0000000, \
             PAGE_KERNEL_EXEC, 0)\n\
             memcpy(p, code(ret42))\n\
             publish set = p + 1K\nmemcpy(set, code({store}))\n\
             publish wait = p + 2K\nmemcpy(wait, code(reader_wait))\n\
             flush_icache_range(p, p + 4K)\n\
             flag = vmalloc(4K)\nzero = call(set, flag, 0)\n\
             }}\n\
             cpu 0 {{ op isb\nmemcpy(p, code(add3))\ncall(set, flag, 1) }}\n\
             cpu 1 {{ op isb\nr = call(wait, flag, p) }}\n"
        )
    };
    let old = |store: &str, policy| {
        let options = RunOptions { policy, ..options(Arch::Arm64, "6.12") };
        let ran = try_run(&loaded(&text(store)), &options).unwrap();
        assert_eq!(ran.end.outcome, Outcome::Ended, "{store} {policy:?}: {:?}", ran.notes());
        ran.notes().contains(&"cpu 1: call(wait, flag, p) returned 42")
    };
    assert!(!old("store_word", PolicyChoice::Newest));
    assert!(old("store_word", PolicyChoice::Stalest));
    // Seeds are left out: a call is not interleaved, so the reader must not run first.
    for policy in [PolicyChoice::Newest, PolicyChoice::Stalest] {
        assert!(!old("publish_word", policy), "{policy:?}: a release carries the code");
    }
}

/// Caches of sets and ways need no policy to be old: what was executed is, until its way is
/// taken. Lines of 64 bytes, two sets of one way.
#[test]
fn a_cache_of_sets_and_ways_is_old_until_the_way_is_taken() {
    let text = |evict: &str| {
        format!(
            "kernel 6.12\narch arm64\nconfig icache_sets = 2\nconfig icache_ways = 1\ncpus 1\n\
             cpu 0 {{\n\
             p = __vmalloc_node_range(4K, 4K, 0xffff800090000000, 0xffff8000b0000000, \
             PAGE_KERNEL_EXEC, 0)\n\
             memcpy(p, code(ret42))\nmemcpy(p + 128, code(ret42))\n\
             memcpy(p + 64, code(ret42))\nflush_icache_range(p, p + 4K)\n\
             one = call(p)\n\
             memcpy(p, code(add3))\nop dc_cvau p\nop dsb_ish\n\
             two = call(p + {evict})\nop isb\nr = call(p, 1, 1, 1)\n}}\n"
        )
    };
    let result = |evict: &str| {
        let ran = try_run(&loaded(&text(evict)), &options(Arch::Arm64, "6.12")).unwrap();
        assert_eq!(ran.end.outcome, Outcome::Ended, "{:?}", ran.notes());
        ran.notes().last().map(ToString::to_string).unwrap()
    };
    assert_eq!(result("64"), "cpu 0: call(p, 1, 1, 1) returned 42", "the other set");
    assert_eq!(result("128"), "cpu 0: call(p, 1, 1, 1) returned 3", "the same set");
    let wrong = text("64").replace("icache_sets = 2", "icache_sets = 3");
    let error = try_run(&loaded(&wrong), &options(Arch::Arm64, "6.12")).err().unwrap();
    assert!(error.to_string().contains("a power of two of sets"), "{error}");
}

#[test]
fn code_that_runs_away_is_given_up_and_says_where_it_is() {
    for arch in MAIN {
        let text = "cpu 0 { p = execmem_alloc(EXECMEM_BPF, 4096)\nmemcpy(p, code(spin))\n\
                    flush_icache_range(p, p + 4096)\ntry set_memory_rox(p, 1 pages)\n\
                    kick_all_cpus_sync()\nr = call(p) }\n";
        let options = RunOptions { max_steps: 700, ..options(arch, "6.12") };
        let ran = try_run(&loaded(text), &options).unwrap();
        let Outcome::Limit(what) = &ran.end.outcome else { panic!("{:?}", ran.end) };
        let (said, at) = what.split_once(" and is at ").unwrap();
        assert_eq!(said, "call(p) on cpu 0 did not return in 700 instructions", "{arch}");
        assert!(at.starts_with("0xffff") || at.starts_with("0xc00"), "{arch}: {at}");
        assert!(at.ends_with("(`--max-steps` sets the limit)"), "{arch}: {at}");
    }
}

#[test]
fn a_guest_fault_ends_one_program() {
    for arch in MAIN {
        let ran = run_on(
            arch,
            "6.12",
            "cpu 0 { p = vmalloc(4096)\nr = call(p)\nassert r == 1 }\ncpu 1 { vmalloc(4096) }\n",
        );
        assert_eq!(ran.end.outcome, Outcome::Ended, "{arch}");
        assert_eq!(ran.end.asserts_failed, 0);
        let note = ran.notes()[0].to_owned();
        assert!(note.contains("guest fault: instruction fetch at 0x"), "{arch}: {note}");
        assert!(note.contains("the mapping does not allow it"), "{arch}: {note}");
        assert!(note.ends_with("its program ends here"), "{arch}: {note}");
        let calls = ran.events().filter(|(e, _)| {
            e.cause == CallRef::NONE && matches!(e.view(), View::CallEntered { .. })
        });
        assert_eq!(calls.count(), 2, "{arch}: the other program ran");
    }
}

/// A no-operation becomes a jump (`patched_site`) on CPU 0, while CPU 1 calls the function.
fn patched_while_called(seed: u64) -> Ran {
    let lines = "cpus 2\ncpu 0 {\n p = vmalloc(4096)\n memcpy(p, code(patched_site))\n \
         set_memory_rox(p, 1)\n text_poke_sync()\n publish f = p\n with lock text_mutex {\n \
         text_poke_bp(p + 5, 0xe901000000)\n }\n}\n\
         cpu 1 {\n await f\n repeat 6 {\n r = call(f)\n }\n}\n";
    let policy = PolicyChoice::Random(seed);
    let options = RunOptions { policy, ..options(Arch::X86_64, "6.12") };
    try_run(&loaded(lines), &options).unwrap_or_else(|e| panic!("{e:?}"))
}

#[test]
fn a_cpu_that_runs_into_the_breakpoint_is_resumed_by_the_handler() {
    let mut trapped = 0;
    for seed in 0..60 {
        let ran = patched_while_called(seed);
        assert!(matches!(ran.end.outcome, Outcome::Ended), "{seed} {:?}", ran.end.outcome);
        let texts: Vec<&str> = ran.end.notes.iter().map(|n| n.text.as_str()).collect();
        assert!(texts.iter().all(|t| t.ends_with("returned 1") || t.ends_with("returned 2")));
        let traps = ran.batches.iter().flat_map(|b| &b.events);
        trapped += traps.filter(|e| matches!(e.view(), View::Trap { .. })).count();
    }
    assert!(trapped > 5, "only {trapped} traps in 60 runs");
}
