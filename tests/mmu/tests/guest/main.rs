//! Every access of a case by a guest in stock QEMU (Debian's 7.2): does it fault, how, and which
//! frame does it reach?
//!
//! The guest performs the access below a fault handler and hands back what the handler was told;
//! ours is [`Format::access`] and [`Format::syndrome`] over the same entries. Beyond what the tests
//! of `tests/oracle` ask: powerpc, kinds of faults, and what hardware writes to the entries.
//! Without QEMU all of it is skipped, loudly. `ORACLE.md` says which feature is held against what.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod powerpc;
mod qemu;

use std::time::Instant;

use qemu::{Answer, BATCH, Guest, Raw};
use textbed_arch::insn::Family;
use textbed_arch::paging::{
    Controls, Format, RADIX_4K, RADIX_64K, Refused, SYNDROME_ROWS, Syndrome,
};
use textbed_mmu::cases::{Case, LEVELS};
use textbed_mmu::seeds;
use textbed_mmu::tally::Tally;

/// What came of an access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// It reached this physical address.
    Reached(u64),
    /// It faulted: what the handler was told, and the address.
    Fault(Syndrome, u64),
    /// Something else, as the guest told it; never what we say.
    Strange(Answer),
}

/// An access, with the entries as it left them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Outcome {
    seen: Seen,
    entries: [u64; LEVELS],
}

/// What an architecture's guest is given and answers.
trait Arch {
    /// The case as the guest reads it.
    fn ask(&self, case: &Case) -> Raw;
    /// What the guest's answer says.
    fn read(&self, case: &Case, answer: &Answer) -> Seen;
    /// Entries after an access that reached memory, of entries that allowed it.
    fn entries_after(&self, format: &Format, case: &Case) -> [u64; LEVELS];
    /// The address that is accessed.
    fn va(&self, format: &Format, case: &Case) -> u64;
}

/// What we say.
fn ours(format: &Format, arch: &dyn Arch, base: u64, case: &Case) -> Outcome {
    match case.access(format, base) {
        Ok(phys) => {
            Outcome { seen: Seen::Reached(phys), entries: arch.entries_after(format, case) }
        }
        Err(refusal) => {
            let refused = format.refused(refusal, case.who, case.what, &case.controls).unwrap();
            let seen = Seen::Fault(format.syndrome(&refused), arch.va(format, case));
            Outcome { seen, entries: case.entries }
        }
    }
}

/// A case with the guest's answer.
struct Answered {
    case: Case,
    theirs: Outcome,
}

/// Compares cases; returns them with the guest's answers.
fn compare(
    format: &Format,
    arch: &dyn Arch,
    guest: &mut Guest,
    cases: impl Iterator<Item = Case>,
) -> Vec<Answered> {
    let began = Instant::now();
    let (mut tally, mut kinds) = (Tally::default(), Tally::default());
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    let mut cases = cases.peekable();
    while cases.peek().is_some() {
        let batch: Vec<Case> = cases.by_ref().take(BATCH).collect();
        let raw: Vec<Raw> = batch.iter().map(|case| arch.ask(case)).collect();
        for (case, answer) in batch.into_iter().zip(guest.run(&raw)) {
            let mut entries = case.entries;
            let shown = &answer[qemu::ENTRIES..qemu::ENTRIES + LEVELS];
            entries[..=case.leaf].copy_from_slice(&shown[..=case.leaf]);
            let theirs = Outcome { seen: arch.read(&case, &answer), entries };
            let ours = ours(format, arch, guest.base(), &case);
            tally.add(case.column(format), ours == theirs);
            if let Seen::Fault(told, _) = ours.seen {
                let kind = format!("vector {:#x} code {:#x}", told.vector, told.code);
                kinds.add(kind, ours == theirs);
            }
            if ours != theirs && wrong.len() < 10 {
                wrong.push(format!("{case:x?}:\n  ours {ours:x?}\n  theirs {theirs:x?}"));
            }
            all.push(Answered { case, theirs });
        }
    }
    let (faults, _) = kinds.report(&format!("{} faults", format.name));
    let (compared, equal) = tally.report(format.name);
    println!("{}: {:.1} s", format.name, began.elapsed().as_secs_f64());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(faults > 0 && compared > faults && compared == equal);
    all
}

/// Every wrong table must be caught by some answered case.
fn catch(arch: &dyn Arch, base: u64, seeds: &[(String, Format)], answered: &[Answered]) {
    for (what, wrong) in seeds {
        let differs = |a: &&Answered| ours(wrong, arch, base, &a.case) != a.theirs;
        let n = answered.iter().filter(differs).count();
        println!("  {} with {what}: caught by {n} of {} cases", wrong.name, answered.len());
        assert!(n > 0, "{}: no case tells a table with {what}", wrong.name);
    }
    println!("{} wrong tables, {} caught", seeds.len(), seeds.len());
}

/// A control bit by name, and what leaves it out.
type Deaf = (&'static str, fn(&mut Controls));

/// Every control bit must be missed if it is not looked at.
fn catch_controls(
    format: &Format,
    arch: &dyn Arch,
    base: u64,
    deaf: &[Deaf],
    answered: &[Answered],
) {
    for (what, edit) in deaf {
        let differs = |a: &&Answered| {
            let mut case = a.case;
            edit(&mut case.controls);
            ours(format, arch, base, &case) != a.theirs
        };
        let n = answered.iter().filter(differs).count();
        println!("  {} deaf to {what}: caught by {n} of {} cases", format.name, answered.len());
        assert!(n > 0, "{}: no case tells {what}", format.name);
    }
    println!("{}: {} control bits left out, {} noticed", format.name, deaf.len(), deaf.len());
}

/// Every part of a syndrome must have been told of some access: all that was told is as we say.
fn syndromes(format: &Format, base: u64, answered: &[Answered]) {
    let refused: Vec<Refused> = answered
        .iter()
        .filter_map(|a| {
            let why = a.case.access(format, base).err()?;
            format.refused(why, a.case.who, a.case.what, &a.case.controls)
        })
        .collect();
    let family = Family::of(format.arch);
    for row in SYNDROME_ROWS.iter().filter(|row| row.family == family) {
        let n = refused.iter().filter(|r| (row.bits)(r) != 0).count();
        println!("  {} tells {}: {n} of {} faults", format.name, row.name, refused.len());
        assert!(n > 0, "{}: {} is told of no access", format.name, row.name);
    }
}

/// Cases at random of one format, for the quick run: enough for every seed to be caught.
const QUICK: usize = 20_000;
/// And for the long one.
const LONG: usize = 500_000;

fn powerpc_radix(n: usize) {
    let Some(mut guest) = Guest::start(&powerpc::MACHINE, &[]) else { return };
    for format in [&RADIX_4K, &RADIX_64K] {
        let arch = powerpc::Powerpc::new(format, &guest);
        let cases = powerpc::every(format).chain(powerpc::sample(format, n));
        let answered = compare(format, &arch, &mut guest, cases);
        syndromes(format, guest.base(), &answered);
        catch(&arch, guest.base(), &seeds::powerpc(format), &answered);
        let deaf: [Deaf; 2] = [("KUEP", |c| c.ppc_kuep ^= true), ("KUAP", |c| c.ppc_kuap ^= true)];
        catch_controls(format, &arch, guest.base(), &deaf, &answered);
        // Reserved bits have no effect on this MMU: a known difference, and nothing else may hide
        // behind it.
        let as_read = powerpc::as_read(format);
        let cases = powerpc::reserved(format);
        let raw: Vec<Case> = cases.collect();
        let answers = guest.run(&raw.iter().map(|c| arch.ask(c)).collect::<Vec<_>>());
        let seen = raw.iter().zip(&answers).filter(|(case, answer)| {
            let theirs = arch.read(case, answer);
            assert_eq!(theirs, ours(&as_read, &arch, 0, case).seen, "{case:x?}");
            theirs != ours(format, &arch, 0, case).seen
        });
        println!("{} reserved bits: {} asked, {} ignored", format.name, raw.len(), seen.count());
    }
}

#[test]
fn powerpc_radix_sample() {
    powerpc_radix(QUICK);
}

#[test]
#[ignore = "long: run by tools/conform (TEXTBED_LONG)"]
fn powerpc_radix_long() {
    powerpc_radix(LONG);
}
