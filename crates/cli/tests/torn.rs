//! Code that is replaced while another CPU runs it, by more than is promised to be seen whole: some
//! run executes what nobody wrote, and the checker says so in every run in which it can happen.
#![cfg(feature = "vcpu")]
#![allow(clippy::unwrap_used)] // tests may

mod common;

use std::collections::BTreeSet;

use common::{check, events};
use textbed_arch::Arch;
use textbed_check::{Level, Reading};
use textbed_kernel::Version;
use textbed_scenario::{Loaded, PolicyChoice, load};

fn scenario(patch: &str) -> Loaded {
    let text = format!(
        "scenario \"torn\"\nkernel 6.12\ncpus 2\n\
         cpu 0 {{\n p = execmem_alloc(EXECMEM_BPF, 4096)\n bpf_fill_ill_insns(p, 4096)\n \
         memcpy(p, code(patched_site))\n flush_icache_range(p, p + 4096)\n \
         try set_memory_rox(p, 1 pages)\n kick_all_cpus_sync()\n publish f = p\n {patch}\n}}\n\
         cpu 1 {{\n await f\n repeat 4 {{\n r = call(f)\n }}\n}}\n"
    );
    load("torn.tb", text, &[]).unwrap().0
}

/// Over many seeds: how calls of the function ended that returned neither what the old code does
/// nor what the new code does, and the rules that found something in those runs; each of them has a
/// finding of one of `rules`.
fn endings(
    arch: Arch,
    patch: &str,
    rules: &[&str],
    honest: &[&str],
) -> (BTreeSet<String>, BTreeSet<&'static str>) {
    let loaded = scenario(patch);
    let (mut seen, mut by) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..150 {
        let on = (arch, Version::parse("6.12").unwrap());
        let (stream, end) = events(&loaded, on, PolicyChoice::Random(seed));
        let notes = end.notes.iter().map(|n| n.text.clone());
        let odd: Vec<String> =
            notes.filter(|text| !honest.iter().any(|h| text.ends_with(h))).collect();
        if odd.is_empty() {
            continue;
        }
        let report = check(&stream, Reading::Mapped);
        let told = report.findings.iter().filter(|f| f.level != Level::Allow);
        let found: Vec<&'static str> = told.map(|f| f.rule.name()).collect();
        assert!(rules.iter().any(|r| found.contains(r)), "{arch} {seed}: {found:?} for {odd:?}");
        seen.extend(odd);
        by.extend(found);
    }
    (seen, by)
}

#[test]
fn five_bytes_by_one_store_on_x86() {
    // A no-operation of five bytes becomes a jump; the protocol would put a breakpoint first.
    let patch = "with lock text_mutex {\n text_poke(p + 5, 0xe901000000)\n }";
    let honest = ["returned 1", "returned 2"];
    // Whose first call it is has not run the place before: that is the other rule.
    let rules = ["torn-patch", "missing-publication-order"];
    let (seen, by) = endings(Arch::X86_64, patch, &rules, &honest);
    assert!(seen.len() > 2 && by.contains("torn-patch"), "{seen:?} {by:?}");
}

#[test]
fn a_word_outside_the_list_elsewhere() {
    let honest = ["returned 1", "returned 2", "returned 3"];
    for (arch, patch) in [
        (Arch::Arm64, "aarch64_insn_patch_text_nosync(p, 0xd2800060)"),
        (Arch::Ppc64le, "patch_instruction(p, 0x38600003)"),
    ] {
        let (seen, _) =
            endings(arch, patch, &["missing-context-sync", "missing-publication-order"], &honest);
        assert!(seen.iter().any(|text| text.contains("unpredictable at 0x")), "{arch}: {seen:?}");
    }
}
