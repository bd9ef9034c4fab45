//! Every access of a case by a guest in stock QEMU (Debian's 7.2): does it fault, how, and which
//! frame does it reach?
//!
//! The guest performs the access below a fault handler and hands back what the handler was told;
//! ours is [`Format::access`] and [`Format::syndrome`] over the same entries. Beyond what the tests
//! of `tests/oracle` ask: powerpc, kinds of faults, and what hardware writes to the entries.
//! Without QEMU all of it is skipped, loudly. `ORACLE.md` says which feature is held against what.

// A test fails by panicking.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod arm64;
mod ask;
mod compare;
mod hashed;
mod hashed32;
mod hashed64;
mod powerpc;
mod qemu;
mod x86;

use ask::{Arch, Walked};
use compare::{Answered, Subject, catch, compare, told_apart};
use hashed::Looked;
use qemu::{BATCH, Guest, Raw};
use textbed_arch::hashed::{HPT_2_07, HPT_3_0, HPT_32};
use textbed_arch::insn::Family;
use textbed_arch::paging::{
    ARM64_4K, ARM64_4K_39, ARM64_4K_LPA2, ARM64_16K, ARM64_16K_36, ARM64_16K_47, ARM64_16K_LPA2,
    ARM64_64K, ARM64_64K_42, ARM64_64K_LPA, Controls, Format, RADIX_4K, RADIX_64K, Refused,
    SYNDROME_ROWS, X86_64_4LEVEL, X86_64_5LEVEL,
};
use textbed_mmu::cases::{Case, LEVELS, reserved as reserved_cases};
use textbed_mmu::seeds;

/// A control bit by name, and what leaves it out.
type Deaf = (&'static str, fn(&mut Controls));

/// Every control bit must be missed if it is not looked at.
fn catch_controls(walked: &Walked<'_>, deaf: &[Deaf], answered: &[Answered<Case>]) {
    let name = walked.name();
    for (what, edit) in deaf {
        told_apart(name, &format!("deaf to {what}"), answered, |a| {
            let mut case = a.case;
            edit(&mut case.controls);
            walked.taken(&case) != a.theirs
        });
    }
    println!("{name}: {} control bits left out, {} noticed", deaf.len(), deaf.len());
}

/// Every wrong table must be caught.
fn catch_tables(arch: &dyn Arch, seeds: &[(String, Format)], answered: &[Answered<Case>]) {
    let wrong = seeds.iter().map(|(what, format)| (what.as_str(), Walked { format, arch }));
    catch(wrong, answered);
}

/// Every part of a syndrome must have been told of some access: all that was told is as we say.
fn syndromes(&Walked { format, arch }: &Walked<'_>, answered: &[Answered<Case>]) {
    let refused: Vec<Refused> = answered
        .iter()
        .filter_map(|Answered { case, .. }| {
            let why = case.access(format, arch.base()).err()?;
            format.refused(why, case.who, case.what, &case.controls)
        })
        .collect();
    let family = Family::of(format.arch);
    for row in SYNDROME_ROWS.iter().filter(|row| row.family == family) {
        let n = refused.iter().filter(|r| (row.bits)(r) != 0).count();
        println!("  {} tells {}: {n} of {} faults", format.name, row.name, refused.len());
        assert!(n > 0, "{}: {} is told of no access", format.name, row.name);
    }
}

/// Reserved bits, one at a time. An MMU may ignore them or take the entry for malformed, and
/// nothing else.
fn reserved(
    format: &'static Format,
    arch: &dyn Arch,
    guest: &mut Guest,
    open: fn(&'static Format, usize) -> ([u64; LEVELS], Controls),
) {
    let walked = Walked { format, arch };
    let without = Walked { format: &seeds::without_reserved(format), arch };
    let (mut asked, mut ignored) = (0, 0);
    for cases in reserved_cases(format, open).chunks(BATCH) {
        let raw: Vec<Raw> = cases.iter().map(|case| walked.ask(case)).collect();
        for (case, answer) in cases.iter().zip(guest.run(&raw)) {
            let theirs = walked.read(case, &answer).seen;
            let malformed = walked.ours(case).seen;
            let free = without.ours(case).seen;
            assert!(theirs == malformed || theirs == free, "{case:x?}: {theirs:x?}");
            assert_ne!(malformed, free, "{case:x?}");
            asked += 1;
            ignored += usize::from(theirs == free);
        }
    }
    println!("{} reserved bits: {asked} accesses, {ignored} of them as without", format.name);
}

/// Cases at random of one format, for the quick run: enough for every seed to be caught.
const QUICK: usize = 10_000;
/// And for the long one.
const LONG: usize = 250_000;

fn powerpc_radix(n: usize) {
    let Some(mut guest) = Guest::start(&powerpc::MACHINE, &[]) else { return };
    for format in [&RADIX_4K, &RADIX_64K] {
        let arch = powerpc::Powerpc;
        powerpc::prepare(format, &guest);
        let cases = powerpc::every(format).chain(powerpc::sample(format, n));
        let walked = Walked { format, arch: &arch };
        let answered = compare(&walked, &mut guest, cases);
        syndromes(&walked, &answered);
        catch_tables(&arch, &seeds::powerpc(format), &answered);
        let deaf: [Deaf; 2] = [("KUEP", |c| c.ppc_kuep ^= true), ("KUAP", |c| c.ppc_kuap ^= true)];
        catch_controls(&walked, &deaf, &answered);
        reserved(format, &arch, &mut guest, powerpc::open);
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

/// `step`: of every combination one of so many.
fn powerpc_hashed(step: usize, n: usize) {
    for (format, machine) in [(&HPT_2_07, &hashed64::POWER8), (&HPT_3_0, &powerpc::MACHINE)] {
        let Some(mut guest) = Guest::start(machine, &[]) else { return };
        let machine = hashed64::Power64;
        hashed64::prepare(format, &guest);
        let cases = hashed64::every(format, step).chain(hashed64::sample(format, n));
        let looked = Looked { format, machine: &machine };
        let answered = compare(&looked, &mut guest, cases);
        hashed::syndromes(&looked, &answered, &[]);
        hashed::catch_tables(&machine, &seeds::hashed(format), &answered);
    }
}

#[test]
fn powerpc_hashed_sample() {
    powerpc_hashed(37, QUICK);
}

#[test]
#[ignore = "long: run by tools/conform (TEXTBED_LONG)"]
fn powerpc_hashed_long() {
    powerpc_hashed(1, LONG);
}

fn powerpc_hashed32(n: usize) {
    let Some(mut guest) = Guest::start(&hashed32::MACHINE, &[]) else { return };
    let (format, machine) = (&HPT_32, hashed32::Power32);
    hashed32::prepare(format, &guest);
    let cases = hashed32::every(format).chain(hashed32::sample(format, n));
    let looked = Looked { format, machine: &machine };
    let answered = compare(&looked, &mut guest, cases);
    hashed::syndromes(&looked, &answered, &["key"]);
    hashed::catch_tables(&machine, &seeds::hashed32(format), &answered);
}

#[test]
fn powerpc_hashed32_sample() {
    powerpc_hashed32(QUICK);
}

#[test]
#[ignore = "long: run by tools/conform (TEXTBED_LONG)"]
fn powerpc_hashed32_long() {
    powerpc_hashed32(LONG);
}

/// `long`: every combination of one table and the leaf, and more cases at random.
fn arm64_formats(n: usize, long: bool) {
    let Some(mut guest) = Guest::start(&arm64::MACHINE, &[]) else { return };
    let wide = [&ARM64_4K_LPA2, &ARM64_16K_LPA2, &ARM64_64K_LPA];
    let lower = [&ARM64_4K_39, &ARM64_16K_36, &ARM64_16K_47, &ARM64_64K_42];
    for format in [&ARM64_4K, &ARM64_16K, &ARM64_64K].into_iter().chain(wide).chain(lower) {
        let arch = arm64::Arm64;
        arm64::prepare(format, &guest);
        let every = long.then(|| arm64::every(format)).into_iter().flatten();
        let cases = every.chain(arm64::sample(format, n));
        let walked = Walked { format, arch: &arch };
        let answered = compare(&walked, &mut guest, cases);
        syndromes(&walked, &answered);
        reserved(format, &arch, &mut guest, arm64::open);
        let seeds = match format.name {
            "arm64 4k 48-bit" => seeds::arm64(),
            _ if format.va_bits == 52 => seeds::arm64_wide(format),
            _ => Vec::new(),
        };
        if !seeds.is_empty() {
            catch_tables(&arch, &seeds, &answered);
        }
        let mut deaf: Vec<Deaf> = vec![
            ("WXN", |c| c.arm_wxn ^= true),
            ("PAN", |c| c.arm_pan ^= true),
            ("HPD", |c| c.arm_hpd ^= true),
            ("HA", |c| c.arm_ha ^= true),
            ("HD", |c| c.arm_hd ^= true),
        ];
        if format.pa_bits == 48 {
            deaf.push(("IPS", |c| c.arm_pa_bits = 52));
        }
        catch_controls(&walked, &deaf, &answered);
    }
}

#[test]
fn arm64_sample() {
    arm64_formats(QUICK, false);
}

#[test]
#[ignore = "long: run by tools/conform (TEXTBED_LONG)"]
fn arm64_long() {
    arm64_formats(LONG / 2, true);
}

/// `long`: every combination of two tables and the leaf, and more cases at random.
fn x86_formats(n: usize, long: bool) {
    for (format, cpu) in [&X86_64_4LEVEL, &X86_64_5LEVEL].into_iter().zip(x86::CPU) {
        let Some(mut guest) = Guest::start(&x86::MACHINE, &cpu) else { return };
        let arch = x86::X86;
        x86::prepare(format, &guest);
        let every = long.then(|| textbed_mmu::x86::every(format, 2)).into_iter().flatten();
        let cases = every.chain(x86::sample(format, n));
        let walked = Walked { format, arch: &arch };
        let answered = compare(&walked, &mut guest, cases);
        syndromes(&walked, &answered);
        let seeds = if format.levels.len() == 5 { seeds::x86_5level() } else { seeds::x86() };
        catch_tables(&arch, &seeds, &answered);
        let deaf: [Deaf; 6] = [
            ("WP", |c| c.x86_wp ^= true),
            ("NXE", |c| c.x86_nxe ^= true),
            ("SMEP", |c| c.x86_smep ^= true),
            ("SMAP", |c| c.x86_smap ^= true),
            ("PKRU", |c| c.x86_pkru = None),
            ("PKRS", |c| c.x86_pkrs = None),
        ];
        catch_controls(&walked, &deaf, &answered);
    }
}

#[test]
fn x86_sample() {
    x86_formats(QUICK, false);
}

#[test]
#[ignore = "long: run by tools/conform (TEXTBED_LONG)"]
fn x86_long() {
    x86_formats(LONG, true);
}
