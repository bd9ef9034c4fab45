//! Every access of a case against an MMU: does it fault, and which frame does it reach?
//!
//! A case is a leaf size, the entries of the levels down to it, control bits, a privilege and an
//! access. The MMU is Unicorn's own (QEMU 5.0.1), with page tables in its physical memory and a
//! real load, store or instruction at the address; ours is [`Format::access`] over the same
//! entries. `ORACLE.md` says which feature is held against what.
//!
//! Wrong tables: `seeds` has formats with one wrong bit each, and each must be caught by the cases
//! that the MMU answered.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod arm64;
mod x86;

use textbed_arch::paging::{
    ARM64_4K, ARM64_4K_39, ARM64_16K, ARM64_16K_36, ARM64_16K_47, ARM64_64K, ARM64_64K_42,
    Controls, Format, X86_64_4LEVEL, X86_64_5LEVEL,
};
use textbed_mmu::cases::{Case, Rng};
use textbed_mmu::tally::Tally;
use textbed_mmu::{arm64 as cases_arm64, seeds, x86 as cases_x86};

/// A case with the MMU's answer.
struct Answered {
    case: Case,
    theirs: Option<u64>,
}

/// An MMU that answers cases.
trait Mmu {
    /// Performs the access: the physical address reached, or nothing if it faulted.
    fn answer(&mut self, case: &Case) -> Option<u64>;
}

/// Compares cases; returns them with the MMU's answers.
fn compare(
    format: &Format,
    mmu: &mut dyn Mmu,
    cases: impl Iterator<Item = Case>,
    keep: usize,
) -> Vec<Answered> {
    let (mut tally, mut kept, mut wrong) = (Tally::default(), Vec::new(), Vec::new());
    for case in cases {
        let theirs = mmu.answer(&case);
        let ours = case.predict(format);
        tally.add(case.column(format), ours == theirs);
        if ours != theirs && wrong.len() < 10 {
            wrong.push(format!("{case:x?}: ours {ours:x?}, theirs {theirs:x?}"));
        }
        if kept.len() < keep {
            kept.push(Answered { case, theirs });
        }
    }
    let (compared, equal) = tally.report(format.name);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(compared > 0 && compared == equal);
    kept
}

/// Cases of one format for the quick run: enough for every seed to be caught.
const QUICK: usize = 60_000;

/// Every wrong table must be caught by some answered case.
fn catch(format: &'static Format, seeds: Vec<(String, Format)>, answered: &[Answered]) {
    let mut caught = 0;
    for (what, wrong) in &seeds {
        let n = answered.iter().filter(|a| a.case.predict(wrong) != a.theirs).count();
        println!("  {} with {what}: caught by {n} of {} cases", format.name, answered.len());
        assert!(n > 0, "{}: no case tells a table with {what}", format.name);
        caught += 1;
    }
    println!("{}: {} wrong tables, {caught} caught", format.name, seeds.len());
}

/// A control bit by name, and what leaves it out.
type Deaf = (&'static str, fn(&mut Controls));

/// Every control bit must be missed if it is not looked at.
fn catch_controls(format: &'static Format, deaf: &[Deaf], answered: &[Answered]) {
    for (what, edit) in deaf {
        let differs = |a: &&Answered| {
            let mut case = a.case;
            edit(&mut case.controls);
            case.predict(format) != a.theirs
        };
        let n = answered.iter().filter(differs).count();
        println!("  {} deaf to {what}: caught by {n} of {} cases", format.name, answered.len());
        assert!(n > 0, "{}: no case tells {what}", format.name);
    }
    println!("{}: {} control bits left out, {} noticed", format.name, deaf.len(), deaf.len());
}

#[test]
fn x86_64_4level_sample() {
    let mut mmu = x86::Cpu::new(&X86_64_4LEVEL);
    let cases = cases_x86::sample(&X86_64_4LEVEL, QUICK);
    let answered = compare(&X86_64_4LEVEL, &mut mmu, cases, usize::MAX);
    catch(&X86_64_4LEVEL, seeds::x86(), &answered);
    let deaf: [Deaf; 6] = [
        ("WP", |c| c.x86_wp = true),
        ("NXE", |c| c.x86_nxe = true),
        ("SMEP", |c| c.x86_smep = false),
        ("SMAP", |c| c.x86_smap = false),
        ("PKRU", |c| c.x86_pkru = None),
        ("MAXPHYADDR", |c| c.x86_pa_bits = 52),
    ];
    catch_controls(&X86_64_4LEVEL, &deaf, &answered);
}

#[test]
fn arm64_4k_sample() {
    let mut mmu = arm64::Cpu::new(&ARM64_4K);
    let cases = cases_arm64::sample(&ARM64_4K, 0, QUICK, cases_arm64::CONTROLS);
    let answered = compare(&ARM64_4K, &mut mmu, cases, usize::MAX);
    catch(&ARM64_4K, seeds::arm64(), &answered);
    let deaf: [Deaf; 4] = [
        ("WXN", |c| c.arm_wxn = false),
        ("PAN", |c| c.arm_pan = false),
        ("HPD", |c| c.arm_hpd = false),
        ("the want of HA", |c| c.arm_ha = true),
    ];
    catch_controls(&ARM64_4K, &deaf, &answered);
}

#[test]
#[ignore = "long: run by tools/conform (TEXTBED_LONG)"]
fn x86_64_4level_every_combination() {
    let f = &X86_64_4LEVEL;
    compare(f, &mut x86::Cpu::new(f), cases_x86::every(f, f.last_level()), 0);
}

#[test]
#[ignore = "long: run by tools/conform (TEXTBED_LONG)"]
fn arm64_every_combination() {
    let lower = [&ARM64_4K_39, &ARM64_16K_36, &ARM64_16K_47, &ARM64_64K_42];
    for f in [&ARM64_4K, &ARM64_16K, &ARM64_64K].into_iter().chain(lower) {
        compare(
            f,
            &mut arm64::Cpu::new(f),
            cases_arm64::every(f, 0, f.last_level(), cases_arm64::CONTROLS),
            0,
        );
    }
}

#[test]
fn x86_64_5level_sample() {
    let f = &X86_64_5LEVEL;
    compare(f, &mut x86::Cpu::new(f), cases_x86::sample(f, QUICK / 2), 0);
}

#[test]
fn arm64_other_formats_sample() {
    let lower = [&ARM64_4K_39, &ARM64_16K_36, &ARM64_16K_47, &ARM64_64K_42];
    for f in [&ARM64_16K, &ARM64_64K].into_iter().chain(lower) {
        compare(
            f,
            &mut arm64::Cpu::new(f),
            cases_arm64::sample(f, 0, QUICK / 2, cases_arm64::CONTROLS),
            0,
        );
    }
}

#[test]
fn the_generator_repeats_itself() {
    let (mut a, mut b) = (Rng(7), Rng(7));
    assert!((0..100).all(|_| a.next() == b.next()));
}
