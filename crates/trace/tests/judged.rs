//! What recorded logs of stock kernels are judged for, shown to be able to fail: a log with the
//! lines of one synchronisation, one flush or one cross-call taken out gives the finding that the
//! kernel without it would deserve, and the log as it is gives none.

#![allow(clippy::unwrap_used)] // tests may

use std::io::Cursor;
use std::path::{Path, PathBuf};
use textbed_check::rules::RuleId;
use textbed_check::{Checker, Confidence, Coverage, Options as CheckOptions, Report};
use textbed_trace::reader::LineReader;
use textbed_trace::replay::replay_reader;
use textbed_trace::side::SideFiles;
use textbed_trace::{Options, Summary};

fn log(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/logs").join(name).join("trace.txt.zst")
}

/// The first lines of a recorded log.
fn lines(name: &str, count: usize) -> Vec<String> {
    let mut reader = LineReader::open(&log(name)).unwrap();
    let mut out = Vec::new();
    while out.len() < count
        && let Some(line) = reader.next_line().unwrap()
    {
        out.push(String::from_utf8_lossy(line.bytes).into_owned());
    }
    out
}

/// The verdict over lines, with the files beside that log.
fn judge(name: &str, lines: &[String]) -> (Report, Summary) {
    let path = log(name);
    let side = SideFiles::of(&path, std::slice::from_ref(&path)).unwrap();
    let mut text = lines.join("\n");
    text.push('\n');
    let reader = LineReader::from_read("log", Cursor::new(text.into_bytes())).unwrap();
    let mut checker = Checker::new(CheckOptions::default());
    let done = replay_reader(reader, &Options::default(), side, None, &mut checker).unwrap();
    (checker.finish(), done.summary)
}

fn checked(report: &Report, rule: RuleId) -> u64 {
    match report.coverage.iter().find(|(r, _)| *r == rule) {
        Some((_, Coverage::Checked(n))) => *n,
        _ => 0,
    }
}

/// Lines `from..` up to `to` without those that hold one of `words`.
fn without(lines: &[String], from: usize, to: usize, words: &[&str]) -> Vec<String> {
    let out: Vec<String> = lines
        .iter()
        .enumerate()
        .filter(|(i, l)| !((from..to).contains(i) && words.iter().any(|w| l.contains(w))))
        .map(|(_, l)| l.clone())
        .collect();
    assert!(out.len() < lines.len(), "nothing was taken out");
    out
}

fn find(lines: &[String], from: usize, word: &str) -> usize {
    from + lines[from..].iter().position(|l| l.contains(word)).unwrap()
}

/// The functions that synchronise have probes of their own in some recordings: they end no patch.
#[test]
fn what_a_patch_calls_does_not_end_it() {
    let name = "amd64-6.12";
    let plain = lines(name, 4000);
    let (report, summary) = judge(name, &plain);
    for step in ["text_poke_sync", "text_poke", "smp_text_poke_sync_each_cpu"] {
        let mut more = Vec::new();
        for line in &plain {
            if let Some((head, _)) = line.split_once(": on_each_cpu_cond_mask: ")
                && line.contains("func=do_sync_core")
            {
                more.push(format!("{head}: {step}: ({step}+0x4/0x20)"));
            }
            more.push(line.clone());
        }
        assert!(more.len() > plain.len() + 100);
        let (with_steps, counts) = judge(name, &more);
        assert!(with_steps.findings.is_empty(), "{step}: {:?}", with_steps.findings);
        assert_eq!(counts.counts.patches_judged, summary.counts.patches_judged, "{step}");
        let rule = RuleId::BrokenPromise;
        assert_eq!(checked(&with_steps, rule), checked(&report, rule), "{step}");
    }
}

#[test]
fn a_patch_behind_which_not_every_cpu_synchronises_is_found() {
    let name = "amd64-6.12";
    let whole = lines(name, 4000);
    let (report, summary) = judge(name, &whole);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert!(summary.counts.patches_judged > 100, "{}", summary.counts.patches_judged);
    assert!(checked(&report, RuleId::BrokenPromise) > 200);

    // The fortieth patch: the lines of its last synchronisation are taken out.
    let mut batch = 0;
    for _ in 0..40 {
        batch = find(&whole, batch + 1, ": text_poke_bp_batch:");
    }
    let next = find(&whole, batch + 1, ": text_poke_bp_batch:");
    let last = (batch..next).rev().find(|i| whole[*i].contains(": __text_poke:")).unwrap();
    let spoilt = without(&whole, last, next, &["do_sync_core"]);
    let (report, _) = judge(name, &spoilt);
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
    let finding = &report.findings[0];
    assert_eq!(finding.rule, RuleId::BrokenPromise);
    assert!(finding.message.contains("text_poke_bp_batch"), "{}", finding.message);
    assert_eq!(finding.missing, ["serialize on cpu 0"]);

    // The same at the end of a log, where its probe may have been gone: nobody knows.
    let cut: Vec<String> = without(&whole[..next], last, next, &["do_sync_core"]);
    let (report, _) = judge(name, &cut);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    // And where events were lost meanwhile.
    let mut lost = spoilt.clone();
    lost.insert(last + 1, "CPU:1 [LOST 7 EVENTS]".into());
    let (report, _) = judge(name, &lost);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn a_copy_of_code_behind_which_no_cpu_is_interrupted_is_found() {
    let name = "arm64-6.12";
    let whole = lines(name, 7400);
    let (report, summary) = judge(name, &whole);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert!(summary.counts.patches_judged > 2, "{}", summary.counts.patches_judged);
    let first = find(&whole, 0, ": bpf_arch_text_copy:");
    let copy = find(&whole, first + 1, ": bpf_arch_text_copy:");
    let end = find(&whole, copy, "bpf_arch_text_copy__ret");
    let spoilt = without(&whole, copy, end, &["kick_all_cpus_sync", "do_nothing"]);
    let (report, _) = judge(name, &spoilt);
    let found: Vec<_> = report.findings.iter().map(|f| (f.rule, f.confidence)).collect();
    assert_eq!(found, [(RuleId::BrokenPromise, Confidence::Possible)], "{:?}", report.findings);
    assert!(report.findings[0].message.contains("bpf_arch_text_copy"));
    // What no probe can show is not missed.
    assert_eq!(report.findings[0].missing, ["isb on cpu 0"]);
}

#[test]
fn code_that_is_given_back_before_its_translations_are_flushed_is_found() {
    let name = "amd64-6.12";
    let whole = lines(name, 6000);
    let (report, _) = judge(name, &whole);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert!(checked(&report, RuleId::ExecAfterFree) > 10);
    // The first module's init code: the flush between its removal and the end of vfree.
    let free = find(&whole, 0, ": execmem_free: ");
    let removed = find(&whole, free, ": remove_vm_area: ");
    let next = find(&whole, free + 1, ": execmem_free: ");
    let spoilt = without(&whole, removed, next, &["flush_tlb_all"]);
    let (report, _) = judge(name, &spoilt);
    let found: Vec<_> = report.findings.iter().map(|f| f.rule).collect();
    assert!(found.contains(&RuleId::ExecAfterFree), "{:?}", report.findings);
    let of = |f: &&textbed_check::Finding| f.rule == RuleId::ExecAfterFree;
    let finding = report.findings.iter().find(of).unwrap();
    assert_eq!(finding.confidence, Confidence::Possible, "the moment is modelled");
    assert!(finding.message.contains("may still execute them"), "{}", finding.message);
}

/// The log of another boot: other CPUs, other addresses, other times, fewer lines before.
fn another_boot(lines: &[String], skip: usize) -> Vec<String> {
    let comments = lines.iter().filter(|l| l.starts_with('#')).cloned();
    let events = lines.iter().skip(skip).filter(|l| !l.starts_with('#')).map(|line| {
        let line = line
            .replace("[000]", "[xxx]")
            .replace("[001]", "[000]")
            .replace("[xxx]", "[001]")
            .replace(" cpu=0 ", " cpu=x ")
            .replace(" cpu=1 ", " cpu=0 ")
            .replace(" cpu=x ", " cpu=1 ");
        // The image and the modules are moved, each by pages of its own.
        let mut out = String::with_capacity(line.len());
        let mut rest = line.as_str();
        while let Some(at) = rest.find("0xffffffff") {
            out += &rest[..at];
            let digits = &rest[at + 2..];
            let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
            let address = u64::from_str_radix(&digits[..end], 16).unwrap();
            let slide = match address {
                0xffff_ffff_f000_0000.. => 0,
                0xffff_ffff_c000_0000.. => 0x5_3000,
                _ => 0x1a20_0000,
            };
            out += &format!("{:#x}", if end == 16 { address + slide } else { address });
            rest = &digits[end..];
        }
        out += rest;
        // 15.9 seconds after another boot.
        out.replacen("    15.", "   415.", 1)
    });
    comments.chain(events).collect()
}

/// Fingerprints, with nothing beside the log but where the direct map is: another boot has another.
fn fingerprints(lines: &[String]) -> Vec<(RuleId, String)> {
    let side = SideFiles { cmdline: Some("nokaslr".into()), ..SideFiles::default() };
    let options = Options {
        arch: Some(textbed_arch::Arch::X86_64),
        kernel: Some("6.12".into()),
        ..Options::default()
    };
    let text = lines.join("\n") + "\n";
    let reader = LineReader::from_read("log", Cursor::new(text.into_bytes())).unwrap();
    let mut checker = Checker::new(CheckOptions::default());
    replay_reader(reader, &options, side, None, &mut checker).unwrap();
    let findings = checker.finish().findings;
    findings.into_iter().map(|f| (f.rule, f.fingerprint)).collect()
}

#[test]
fn the_same_fault_has_the_same_fingerprint_in_another_boot() {
    let whole = lines("amd64-6.12", 6000);
    assert!(fingerprints(&whole).is_empty());
    let mut batch = 0;
    for _ in 0..40 {
        batch = find(&whole, batch + 1, ": text_poke_bp_batch:");
    }
    let next = find(&whole, batch + 1, ": text_poke_bp_batch:");
    let last = (batch..next).rev().find(|i| whole[*i].contains(": __text_poke:")).unwrap();
    let patch = without(&whole, last, next, &["do_sync_core"]);
    let free = find(&whole, 0, ": execmem_free: ");
    let removed = find(&whole, free, ": remove_vm_area: ");
    let end = find(&whole, free + 1, ": execmem_free: ");
    let freed = without(&whole, removed, end, &["flush_tlb_all"]);
    let mut seen = Vec::new();
    for (spoilt, rule) in [(patch, RuleId::BrokenPromise), (freed, RuleId::ExecAfterFree)] {
        let here = fingerprints(&spoilt);
        assert!(here.iter().any(|(r, _)| *r == rule), "{here:?}");
        let there = fingerprints(&another_boot(&spoilt, 700));
        assert_eq!(here, there);
        seen.extend(here);
    }
    let distinct: std::collections::BTreeSet<_> = seen.iter().map(|(_, f)| f).collect();
    assert_eq!(distinct.len(), seen.len(), "{seen:?}");
}
