//! arm64 and powerpc against capstone.

use super::{Rng, effort, vectors};
use capstone::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use textbed_arch::Arch;
use textbed_arch::insn::{self, Pattern, Row};

/// Rows that capstone 5 does not disassemble; [`super::vectors`] has them.
const UNKNOWN: &[&str] = &[
    "dc cvadp",
    "tlbi vmalle1isnxs",
    "tlbi vae1isnxs",
    "tlbi aside1isnxs",
    "tlbi vaae1isnxs",
    "tlbi vale1isnxs",
    "tlbi vaale1isnxs",
    "tlbi rvae1isnxs",
    "tlbi rvale1isnxs",
    "cb<cc>",
    "cbb<cc>",
    "cbh<cc>",
    "trcit",
    "phwsync",
    "plwsync",
    "illegal",
    "scv",
    "rfscv",
    "urfid",
    "bctar",
    "bctarl",
    "pnop",
    "lqarx",
    "stqcx.",
];

fn capstone_for(arch: Arch) -> Capstone {
    match arch {
        Arch::Arm64 => Capstone::new().arm64().mode(arch::arm64::ArchMode::Arm).build().unwrap(),
        _ => {
            let ppc = Capstone::new().ppc().mode(arch::ppc::ArchMode::Mode64);
            ppc.endian(capstone::Endian::Big).build().unwrap()
        }
    }
}

/// Our view of the byte order in which capstone is asked.
fn asked(arch: Arch) -> Arch {
    if arch == Arch::Arm64 { arch } else { Arch::Ppc64 }
}

fn text(cs: &Capstone, bytes: &[u8]) -> Option<String> {
    let list = cs.disasm_count(bytes, 0x1000_0000, 1).ok()?;
    let insn = list.iter().next()?;
    let operands = insn.op_str().unwrap_or("");
    Some(format!("{} {}", insn.mnemonic()?, operands).trim().to_owned())
}

/// Whether a disassembler's text is one of this row's.
fn accepts(arch: Arch, row: &Row, text: &str) -> bool {
    if arch == Arch::Arm64 { accepts_arm64(row, text) } else { accepts_powerpc(row, text) }
}

/// The name itself, followed by nothing or by operands.
fn exactly(name: &str, text: &str) -> bool {
    text.strip_prefix(name).is_some_and(|r| r.is_empty() || r.starts_with([' ', ',']))
}

fn accepts_arm64(row: &Row, text: &str) -> bool {
    let mnemonic = text.split(' ').next().unwrap_or("");
    // Size and order are letters after the name of an atomic.
    let sized = |name: &str| {
        mnemonic.strip_prefix(name).is_some_and(|rest| rest.chars().all(|c| "albh".contains(c)))
    };
    match row.name {
        "b.cond" => mnemonic.starts_with("b.") && mnemonic.len() == 4,
        "bc.cond" => mnemonic.starts_with("bc.") && mnemonic.len() == 5,
        "swp" | "cas" | "casp" => sized(row.name),
        "ldadd" | "ldclr" | "ldeor" | "ldset" | "ldsmax" | "ldsmin" | "ldumax" | "ldumin" => {
            sized(row.name) || sized(&format!("st{}", &row.name[2..]))
        }
        name => exactly(name, text),
    }
}

fn accepts_powerpc(row: &Row, text: &str) -> bool {
    let (mnemonic, operands) = text.split_once(' ').unwrap_or((text, ""));
    match row.name {
        "bc" | "bcl" | "bca" | "bcla" | "bclr" | "bclrl" | "bcctr" | "bcctrl" => {
            conditional_branch(mnemonic) == Some(row.name)
        }
        // The plain forms are rows of their own, without a branch hint.
        "blr" | "bctr" | "bctrl" => text == row.name,
        "tw" | "td" | "twi" | "tdi" => {
            let (op, immediate) = (&row.name[..2], row.name.ends_with('i'));
            let condition = mnemonic.strip_prefix(op).map(|c| match c.strip_suffix('i') {
                Some(c) => (c, true),
                None => (c, false),
            });
            condition.is_some_and(|(c, i)| {
                i == immediate
                    && [
                        "", "lt", "eq", "gt", "ne", "llt", "lgt", "le", "ge", "lle", "lge", "u",
                        "ng", "nl", "lng", "lnl",
                    ]
                    .contains(&c)
            })
        }
        "dcbf" | "dcbfps" | "dcbstps" if mnemonic == "dcbf" => {
            operands.split(", ").nth(2)
                == match row.name {
                    "dcbfps" => Some("4"),
                    "dcbstps" => Some("6"),
                    _ => None,
                }
        }
        "mtspr pid" => mnemonic == "mtpid" || text.starts_with("mtspr 0x30,"),
        "mtspr lpidr" => text.starts_with("mtspr 0x13f,"),
        "mtspr lpcr" => text.starts_with("mtspr 0x13e,"),
        "mtspr ptcr" => text.starts_with("mtspr 0x1d0,"),
        "mtspr sdr1" => text.starts_with("mtspr 0x19,"),
        "mtspr amr" => mnemonic == "mtamr",
        "mtspr iamr" => text.starts_with("mtspr 0x3d,"),
        "mtspr bat" => mnemonic.starts_with("mtibat") || mnemonic.starts_with("mtdbat"),
        "sync" => text == "sync" || text == "hwsync",
        // As ISA 2.06 called it.
        "pause_short" => text == "waitimpl",
        name => exactly(name, text),
    }
}

/// The row that a conditional branch's extended mnemonic belongs to.
fn conditional_branch(mnemonic: &str) -> Option<&'static str> {
    let plain = mnemonic.trim_end_matches(['+', '-']);
    let rest = plain.strip_prefix('b')?;
    const CONDITIONS: [&str; 17] = [
        "dnzf", "dnzt", "dnz", "dzf", "dzt", "dz", "lt", "gt", "eq", "so", "ge", "le", "ne", "ns",
        "t", "f", "c",
    ];
    let suffix = CONDITIONS.iter().find_map(|c| rest.strip_prefix(c)).or(match rest {
        // Always: only for returns, where a hint or a BH field makes it another row than blr.
        "lr" | "lrl" | "ctr" | "ctrl" => Some(rest),
        _ => None,
    })?;
    Some(match suffix {
        "" => "bc",
        "l" => "bcl",
        "a" => "bca",
        "la" => "bcla",
        "lr" => "bclr",
        "lrl" => "bclrl",
        "ctr" => "bcctr",
        "ctrl" => "bcctrl",
        _ => return None,
    })
}

/// Words on which capstone and the manuals differ, by reason; they are not compared.
fn excused(arch: Arch, word: u32, ours: Option<&Row>, theirs: Option<&str>) -> bool {
    let name = ours.map_or("", |r| r.name);
    if arch == Arch::Arm64 {
        // Operations without a register: Rt other than 31 is constrained unpredictable.
        let system = word & 0xffe0_0000 == 0xd500_0000 && name.is_empty() && word & 31 != 31;
        // Both halves of a pair in one register: constrained unpredictable.
        let pair = ["ldxp", "ldaxp"].contains(&name) && word & 31 == word >> 10 & 31;
        // Register fields that should be ones, of exclusives: constrained unpredictable.
        let ones = ours.is_none()
            && word & 0x3f00_0000 == 0x0800_0000
            && (word >> 16 & 31 != 31 || word >> 10 & 31 != 31)
            && theirs
                .is_some_and(|t| t.starts_with("ldxp") || t.starts_with("ldaxp") || is_stxr(t));
        return system || pair || ones;
    }
    // Fields that came after the ISA that capstone knows.
    let wait = ["wait", "waitrsv", "pause_short"].contains(&name)
        && theirs.is_none_or(|t| t.starts_with("wait"));
    wait || (["tlbie", "tlbiel", "slbia"].contains(&name) && theirs.is_none())
}

fn is_stxr(text: &str) -> bool {
    ["stxr", "stlxr"].iter().any(|n| text.starts_with(n))
}

fn unknown(row: &Row) -> bool {
    UNKNOWN.contains(&row.name)
}

fn every_example(arch: Arch) {
    let cs = capstone_for(arch);
    let (mut n, mut skipped, mut wrong) = (0, BTreeSet::new(), Vec::new());
    for row in insn::rows(arch) {
        let bytes = row.example(asked(arch));
        let pair = ["ldxp", "ldaxp"].contains(&row.name);
        let got =
            text(&cs, &if pair { vector(row.name).to_le_bytes().to_vec() } else { bytes.clone() });
        let equal = got.as_deref().is_some_and(|t| accepts(arch, row, t));
        if unknown(row) {
            assert!(!equal, "capstone does know {}", row.title());
            skipped.insert(row.name);
            continue;
        }
        n += 1;
        if !equal {
            wrong.push(format!("{} {bytes:02x?}: {got:?}", row.title()));
        }
    }
    println!("{arch}: {n} compared, {} equal; capstone lacks {skipped:?}", n - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(n > 70);
}

/// Words that hit rows often, and plain random ones.
fn sample(arch: Arch, rng: &mut Rng, per_row: usize, plain: usize) -> Vec<u32> {
    let mut words = Vec::new();
    for row in insn::rows(arch) {
        let Pattern::Word { mask, value } = row.pattern else { continue };
        for i in 0..per_row {
            let free = rng.next() as u32;
            // Also near misses: one fixed bit flipped.
            let flip = if i % 4 == 0 { 1u32 << rng.below(32) } else { 0 };
            words.push(((free & !mask) | value) ^ flip);
        }
    }
    words.extend((0..plain).map(|_| rng.next() as u32));
    words
}

fn both_ways(arch: Arch) {
    let cs = capstone_for(arch);
    let mut rng = Rng::new(0x7e87_bed0);
    let rows: Vec<&Row> = insn::rows(arch).iter().filter(|r| !unknown(r)).collect();
    let (mut n, mut hits, mut wrong) = (0u64, 0u64, BTreeMap::new());
    for word in sample(arch, &mut rng, 60 * effort(), 100_000 * effort()) {
        let bytes = if arch == Arch::Arm64 { word.to_le_bytes() } else { word.to_be_bytes() };
        let ours = insn::decode(asked(arch), &bytes).map(|i| i.row);
        if ours.is_some_and(unknown) {
            continue;
        }
        let theirs = text(&cs, &bytes);
        if excused(arch, word, ours, theirs.as_deref()) {
            continue;
        }
        let theirs_in_table =
            theirs.as_deref().is_some_and(|t| rows.iter().any(|r| accepts(arch, r, t)));
        let agree = match ours {
            Some(row) => theirs.as_deref().is_some_and(|t| accepts(arch, row, t)),
            None => !theirs_in_table,
        };
        n += 1;
        hits += u64::from(ours.is_some());
        if !agree {
            let mnemonic = theirs.as_deref().unwrap_or("-").split(' ').next().unwrap_or("");
            let key = format!("{} / {mnemonic}", ours.map_or("(none)", |r| r.name));
            let list = wrong.entry(key).or_insert_with(Vec::new);
            list.push(format!("{word:08x}: {theirs:?}"));
        }
    }
    let bad: usize = wrong.values().map(Vec::len).sum();
    println!("{arch}: {n} words compared ({hits} in the table), {} equal", n - bad as u64);
    for (name, list) in &wrong {
        println!("ours {name}: {} words, e.g. {:?}", list.len(), &list[..list.len().min(6)]);
    }
    assert!(wrong.is_empty());
}

fn vector(name: &str) -> u32 {
    vectors::ARM64.iter().find(|v| v.0 == name).unwrap().2
}

fn assembled(arch: Arch, vectors: &[vectors::Vector]) {
    for &(name, text, word) in vectors {
        let mut bytes =
            if arch == Arch::Arm64 { word.to_le_bytes() } else { word.to_be_bytes() }.to_vec();
        bytes.resize(8, 0);
        let insn = insn::decode(asked(arch), &bytes);
        assert_eq!(insn.map(|i| i.row.name), Some(name), "{text}");
    }
    for name in UNKNOWN {
        let ours = insn::by_name(arch, name).is_some();
        assert!(!ours || vectors.iter().any(|v| v.0 == *name), "no vector for {name}");
    }
    println!("{arch}: {0} assembled instructions compared, {0} equal", vectors.len());
}

#[test]
fn what_assemblers_wrote() {
    assembled(Arch::Arm64, vectors::ARM64);
    assembled(Arch::Ppc64le, vectors::POWERPC);
}

#[test]
fn arm64_examples() {
    every_example(Arch::Arm64);
}

#[test]
fn powerpc_examples() {
    every_example(Arch::Ppc64le);
}

#[test]
fn arm64_words_both_ways() {
    both_ways(Arch::Arm64);
}

#[test]
fn powerpc_words_both_ways() {
    both_ways(Arch::Ppc64le);
}
