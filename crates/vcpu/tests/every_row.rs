//! Every row of the instruction table, executed on a CPU: what the row says is what happens, or the
//! row is refused by name. Which rows are refused is listed, so that none is left out silently.

#![allow(clippy::unwrap_used)]

mod bed;

use std::collections::BTreeSet;

use bed::{ARCHES, Bed, CPU0, DATA, newest};
use textbed_arch::effect::{Effect, SyncCause, Wake};
use textbed_arch::insn::{self, Row, Shape};
use textbed_arch::{Arch, Features, SpaceId, VirtAddr};
use textbed_event::{Flags, MemOrder, View};
use textbed_machine::{Cpu, CpuError, Step};

/// Rows that the model has not, by architecture: the instruction ends with its name.
const REFUSED: [(Arch, &[&str]); 3] = [
    (
        Arch::X86_64,
        &[
            "call (far m)",
            "erets",
            "eretu",
            "invd",
            "invept",
            "invlpga",
            "invvpid",
            "iret",
            "iretd",
            "jmp (far m)",
            "retf",
            "retf (imm16)",
            "rsm",
            "syscall",
            "sysenter",
            "sysexit (32-bit)",
            "sysexit (64-bit)",
            "sysret (32-bit)",
            "sysret (64-bit)",
            "vmcall",
            "vmlaunch",
            "vmmcall",
            "vmresume",
            "vmrun",
        ],
    ),
    (
        Arch::Arm64,
        &[
            "bc.cond",
            "cb<cc> (immediate, equality)",
            "cb<cc> (immediate, order)",
            "cb<cc> (register, equality)",
            "cb<cc> (register, order)",
            "cbb<cc> (equality)",
            "cbb<cc> (order)",
            "cbh<cc> (equality)",
            "cbh<cc> (order)",
            "dc cisw",
            "dc csw",
            "dc isw",
            "dc ivac",
            "drps",
            "eretaa",
            "eretab",
            "msr ttbr0_el2",
            "msr ttbr1_el1",
            "msr ttbr1_el2",
            "msr vttbr_el2",
            "tlbi alle2",
            "tlbi alle2is",
            "tlbi alle3",
            "tlbi alle3is",
            "tlbi ipas2e1",
            "tlbi ipas2e1is",
            "tlbi ipas2e1os",
            "tlbi ipas2le1",
            "tlbi ipas2le1is",
            "tlbi ipas2le1os",
            "tlbi ripas2e1",
            "tlbi ripas2e1is",
            "tlbi ripas2le1",
            "tlbi ripas2le1is",
            "tlbi vae2",
            "tlbi vae2is",
            "tlbi vae3",
            "tlbi vae3is",
            "tlbi vale2",
            "tlbi vale2is",
            "tlbi vale3",
            "tlbi vale3is",
            "trcit",
        ],
    ),
    (Arch::Ppc64le, &["attn", "dcbi", "hrfid", "mtspr lpidr", "rfi", "rfscv", "slbmte", "urfid"]),
];

/// What came of one row.
struct Ran {
    /// Where it stood.
    at: u64,
    len: u64,
    step: Result<Step, CpuError>,
    /// What it emitted itself.
    events: Vec<(View, Flags)>,
    pc: u64,
}

/// An instruction word in the byte order of the guest.
fn word_bytes(arch: Arch, word: u32) -> [u8; 4] {
    if arch.is_little_endian() { word.to_le_bytes() } else { word.to_be_bytes() }
}

fn example_word(arch: Arch, row: &Row) -> u32 {
    let bytes: [u8; 4] = row.example(arch)[..4].try_into().unwrap();
    if arch.is_little_endian() { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) }
}

/// The row's example, with operands where those that are zero would mean something else; and the
/// instruction that has to come before it.
fn code_of(arch: Arch, row: &Row) -> (Vec<u8>, Vec<u8>) {
    let mut bytes = row.example(arch);
    if arch == Arch::X86_64 {
        if row.shape == Shape::X86Rel {
            // Not to the next instruction: 16 bytes on, by the lowest byte of rel8 or rel32.
            let at = bytes.len() - if bytes.len() == 2 { 1 } else { 4 };
            bytes[at] = 16;
        }
        let last = bytes.last_mut().unwrap();
        let before: &[u8] = match (row.name, row.form) {
            // RCX is the type; RAX points to the descriptor. A bit's number in RCX.
            ("invpcid", _) | ("lock bts" | "lock btr" | "lock btc", "m, r") => {
                *last |= 1 << 3;
                &[]
            }
            ("int", _) => {
                *last = 0x80;
                &[]
            }
            // LGDT [RAX]: a table with a task in it.
            ("ltr", _) => &[0x0f, 0x01, 0x10],
            // PCMPEQD of a register with itself: all bytes are to be stored.
            ("maskmovq", _) => &[0x0f, 0x76, 0xc0],
            ("maskmovdqu", _) => &[0x66, 0x0f, 0x76, 0xc0],
            _ => &[],
        };
        return (before.to_vec(), bytes);
    }
    let word = example_word(arch, row);
    if row.effect == Effect::ExceptionReturn {
        // The registers that it returns by; X0 or R4 for the state, X1 or R3 for the address.
        let words: &[u32] = match (arch, row.name) {
            (Arch::Arm64, "eret") => &[0xd518_4000, 0xd518_4021],
            (_, "rfid") => &[0x7c80_00a6, 0x7c7a_03a6, 0x7c9b_03a6],
            _ => &[],
        };
        let before = words.iter().flat_map(|w| word_bytes(arch, *w)).collect();
        return (before, bytes);
    }
    let (before, word) = match (arch, row.name) {
        // Rs = 5, Rn = 1, Rt2 = 2, Rt = 0; the load is the same word with L and Rs = 31.
        (Arch::Arm64, name) if name.starts_with("stx") || name.starts_with("stlx") => {
            let rt2 = if name.ends_with('p') { 2 << 10 } else { 0 };
            (Some(word | rt2 | 0x5f << 16 | 1 << 5), word | rt2 | 5 << 16 | 1 << 5)
        }
        (Arch::Arm64, "casp") => (None, word | 4 << 16 | 1 << 5 | 2),
        (Arch::Arm64, "ldxp" | "ldaxp") => (None, word | 2 << 10),
        // RS = r4, RB = r3, radix and process scoped.
        (_, "tlbie" | "tlbiel") => (None, word | 4 << 21 | 3 << 11 | 1 << 17 | 1 << 16),
        (_, "tw" | "td" | "twi" | "tdi") => (None, word | 31 << 21),
        (_, name) if arch.is_powerpc() && name.starts_with("bc") => (None, word | 20 << 21),
        (_, "lqarx") => (None, word | 4 << 21),
        (_, name) if name.ends_with("cx.") => {
            let load = match row.name {
                "stwcx." => 20,
                "stdcx." => 84,
                "stbcx." => 52,
                "sthcx." => 116,
                _ => 276,
            };
            (Some(31 << 26 | 6 << 21 | load << 1), word | 4 << 21)
        }
        _ => (None, word),
    };
    bytes[..4].copy_from_slice(&word_bytes(arch, word));
    (before.map_or(Vec::new(), |w: u32| word_bytes(arch, w).to_vec()), bytes)
}

/// Executes a row. All registers but the stack pointer point to data, whose first word is the
/// address of code; what an instruction takes from registers otherwise is set by name.
fn execute(arch: Arch, row: &Row) -> Ran {
    let mut bed = newest(arch);
    let (before, bytes) = code_of(arch, row);
    let start = bed.install_bytes(&[before.clone(), bytes.clone()].concat());
    let at = start + before.len() as u64;
    let data = bed.at(DATA, 0x800);
    let target = bed.install("ret42");
    bed.store(data, &target.to_le_bytes());
    bed.start(CPU0, start, &[]);
    let stack_pointer = if arch == Arch::X86_64 { 4 } else { 1 };
    for n in (0..32).filter(|n| arch == Arch::Arm64 || *n != stack_pointer) {
        // A register that there is not is no operand either.
        let _ = bed.cpus[0].set_general(n, data);
    }
    prepare(&mut bed, row, data, target);
    while bed.cpus[0].pc().unwrap().0 != at {
        assert_eq!(bed.step(CPU0), Step::Ran, "{arch}: what comes before {}", row.title());
    }
    if row.name == "ltr" {
        bed.cpus[0].set_general(0, 8).unwrap();
    }
    bed.forget_events();
    let step = bed.cpus[0].step(&mut bed.m);
    let events = bed.events();
    let of_row = events.events.iter().map(|e| (e.view(), e.flags));
    let events = of_row.filter(|(view, _)| !matches!(view, View::Fetch { .. })).collect();
    let pc = bed.cpus[0].pc().unwrap().0;
    Ran { at, len: bytes.len() as u64, step, events, pc }
}

fn prepare(bed: &mut Bed, row: &Row, data: u64, target: u64) {
    let arch = bed.arch();
    let root = bed.m.root(SpaceId::KERNEL).unwrap().0;
    let sp = bed.cpus[0].stack_pointer().unwrap().0;
    let mut set = |n: u8, value: u64| bed.cpus[0].set_general(n, value).unwrap();
    let branches = matches!(row.effect, Effect::Branch(_));
    match (arch, row.name) {
        // The base of GS.
        (Arch::X86_64, "wrmsr" | "wrmsrns") => {
            [(1, 0xc000_0101), (0, 0), (2, 0)].into_iter().for_each(|(n, v)| set(n, v));
        }
        (Arch::X86_64, "mov cr0") => set(0, 0x8005_0033),
        (Arch::X86_64, "mov cr3") => set(0, root),
        (Arch::X86_64, "mov cr4") => set(0, 0x6f0),
        (Arch::X86_64, "mov cr8" | "mov dr") => set(0, 0),
        (Arch::X86_64, "lmsw") => set(0, 0x33),
        // No local table.
        (Arch::X86_64, "lldt") => set(0, 0),
        (Arch::X86_64, "ltr") => {
            // Ten bytes for LGDT; descriptor 1 is a 64-bit task that is not busy.
            let table = data + 0x100;
            bed.store(data, &[&0x1fu16.to_le_bytes()[..], &table.to_le_bytes()].concat());
            bed.store(table + 8, &[0x67, 0, 0, 0, 0, 0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        }
        (Arch::X86_64, "lock bts" | "lock btr" | "lock btc") => set(1, 5),
        (Arch::X86_64, "invpcid") => {
            set(1, 0);
            bed.store(data, &[0; 16]);
        }
        (Arch::X86_64, "invlpgb") => {
            [(1, 0), (2, 0)].into_iter().for_each(|(n, v)| set(n, v));
        }
        (Arch::X86_64, "iretq") => {
            let selectors = bed.cpus[0].code_selector().unwrap();
            for (n, word) in [target, selectors, 0x202, sp, 0].into_iter().enumerate() {
                bed.store(sp - 64 + 8 * n as u64, &word.to_le_bytes());
            }
            bed.cpus[0].set_general(4, sp - 64).unwrap();
        }
        (Arch::X86_64, "ret") => bed.store(sp, &target.to_le_bytes()),
        // A range: two pages of 4 KiB (TG 1), in units of them.
        (Arch::Arm64, name) if name.starts_with("tlbi r") => {
            (0..31).for_each(|n| set(n, (1 << 46) | ((data >> 12) & ((1 << 37) - 1))));
        }
        (Arch::Arm64, "eret") => [(0, 5), (1, target)].into_iter().for_each(|(n, v)| set(n, v)),
        (_, "rfid") => set(3, target),
        // IS = 0: one address.
        (_, "tlbie" | "tlbiel") => set(3, data & !0xfff),
        (_, "mtspr pid") => set(0, 0),
        (Arch::Arm64, name) if name.starts_with("msr ttbr") => set(0, 0),
        (Arch::Arm64, _) if branches => (0..31).for_each(|n| set(n, target)),
        _ => {}
    }
}

/// Whether a branch has no condition, or one that the example's operands make true.
fn is_always_taken(arch: Arch, row: &Row) -> bool {
    match arch {
        Arch::X86_64 => ["jmp", "call", "ret"].contains(&row.name),
        Arch::Arm64 => !matches!(
            row.shape,
            Shape::CondBranch | Shape::CompareBranch | Shape::TestBranch | Shape::CompareRegBranch
        ),
        _ => true,
    }
}

/// What is wrong with what a row did.
fn wrong(arch: Arch, row: &Row, ran: &Ran) -> Option<String> {
    let features = Features::default_for(arch);
    let said = format!("{:?}, {:?}, PC {:#x}", ran.step, ran.events, ran.pc.wrapping_sub(ran.at));
    let must = |holds: bool, what: &str| (!holds).then(|| format!("{what}: {said}"));
    let there = |wanted: &dyn Fn(&View) -> bool| ran.events.iter().any(|(view, _)| wanted(view));
    let syncs = |cause| there(&|v| matches!(v, View::ContextSync { cause: c } if *c == cause));
    let synced = there(&|v| matches!(v, View::ContextSync { .. }));
    let went_on = ran.step == Ok(Step::Ran) && ran.pc == ran.at + ran.len;
    let quiet = ran.events.is_empty();
    let serialises = arch == Arch::X86_64 && row.serialises(features);
    // What a row does beside its effect: serialising, on x86.
    let beside = synced == serialises;
    let stored = |order| there(&|v| matches!(v, View::Store { order: o, .. } if *o == order));
    let loaded = |order| there(&|v| matches!(v, View::Load { order: o, .. } if *o == order));
    let stores = there(&|v| matches!(v, View::Store { .. }));
    let loads = there(&|v| matches!(v, View::Load { .. }));
    match row.effect {
        Effect::CacheClean(scope) => must(
            went_on
                && beside
                && there(&|v| matches!(v, View::CacheClean { scope: s, .. } if *s == scope)),
            "no clean",
        ),
        Effect::IcacheInvalidate(scope, reach) => must(
            went_on
                && beside
                && there(&|v| {
                    matches!(v, View::IcacheInvalidate { scope: s, reach: r, .. }
                        if (*s, *r) == (scope, reach))
                }),
            "no invalidation",
        ),
        Effect::TlbInvalidate(scope, reach) => must(
            went_on
                && beside
                && there(&|v| {
                    matches!(v, View::TlbInvalidate { scope: s, reach: r, .. }
                        if (*s, *r) == (scope, reach))
                }),
            "no invalidation",
        ),
        Effect::Barrier(barrier, domain) => must(
            went_on
                && beside
                && there(&|v| *v == View::Barrier { barrier, domain })
                && (!row.name.starts_with("lock ") || stored(MemOrder::Full)),
            "no barrier",
        ),
        Effect::ContextSync(cause) => must(
            went_on && if arch == Arch::X86_64 { beside } else { syncs(cause) },
            "no synchronisation",
        ),
        Effect::SpaceSwitch => must(
            went_on && beside && there(&|v| matches!(v, View::SpaceLoaded { .. })),
            "no switch",
        ),
        // Of MSRs only EFER has an event, and this is another.
        Effect::Control if row.name.starts_with("wrmsr") => {
            must(went_on && if serialises { synced } else { quiet }, "no write")
        }
        Effect::Control => {
            must(went_on && beside && there(&|v| matches!(v, View::Control { .. })), "no write")
        }
        Effect::ExceptionReturn => {
            must(ran.step == Ok(Step::Ran) && syncs(SyncCause::ExceptionReturn), "no return")
        }
        Effect::Trap => must(
            matches!(ran.step, Ok(Step::Trapped { virt, .. }) if virt.0 == ran.at)
                && there(&|v| matches!(v, View::Trap { .. })),
            "no trap",
        ),
        Effect::Branch(_) => {
            let taken = there(
                &|v| matches!(v, View::Branch { from, to, .. } if from.0 == ran.at && to.0 == ran.pc),
            );
            let to_caller = matches!(ran.step, Ok(Step::Returned(_))) && taken;
            let behind = !is_always_taken(arch, row) && ran.pc == ran.at + ran.len;
            must(to_caller || ran.step == Ok(Step::Ran) && (taken || behind), "no branch")
        }
        // Nothing is watched or reserved, and nothing is there that would wake it.
        Effect::Wait(until @ (Wake::Taken | Wake::Interrupt | Wake::Event)) => must(
            ran.step == Ok(Step::Waits { virt: VirtAddr(ran.at), until })
                && ran.pc == ran.at + ran.len,
            "no wait",
        ),
        Effect::Wait(_) | Effect::Watch | Effect::SendEvent(_) | Effect::Nop => {
            must(went_on && quiet, "not nothing")
        }
        Effect::Exclusive if row.name == "clrex" => must(went_on && quiet, "not nothing"),
        Effect::Exclusive => must(
            went_on
                && (loads || stores)
                && (!row.name.starts_with("ldax") || loaded(MemOrder::Acquire))
                && (!row.name.starts_with("stlx") || stored(MemOrder::Release)),
            "no access",
        ),
        Effect::Atomic => must(went_on && loads && stores, "no access"),
        Effect::LoadAcquire => must(went_on && loaded(MemOrder::Acquire), "no acquire"),
        Effect::StoreRelease => must(went_on && stored(MemOrder::Release), "no release"),
        Effect::NonTemporalStore => {
            let relaxed = ran
                .events
                .iter()
                .any(|(v, flags)| matches!(v, View::Store { .. }) && flags.has(Flags::NONTEMPORAL));
            must(went_on && relaxed, "no non-temporal store")
        }
        Effect::CacheInvalidate(_) => must(false, "not modelled"),
    }
}

#[test]
fn every_row_does_what_it_says_or_is_refused_by_name() {
    for arch in ARCHES {
        let mut complaints = Vec::new();
        let mut refused = BTreeSet::new();
        let (mut rows, mut right) = (0, 0);
        for row in insn::rows(arch) {
            rows += 1;
            let ran = execute(arch, row);
            match &ran.step {
                Err(CpuError::NotModelled(text)) => {
                    let told = text.contains(row.name) && ran.pc == ran.at;
                    if !told {
                        complaints.push(format!("{}: refused as {text:?}", row.title()));
                    }
                    refused.insert(row.title());
                }
                _ => match wrong(arch, row, &ran) {
                    Some(text) => complaints.push(format!("{}: {text}", row.title())),
                    None => right += 1,
                },
            }
        }
        let listed = REFUSED.iter().find(|(a, _)| {
            a.is_powerpc() == arch.is_powerpc() && (arch.is_powerpc() || *a == arch)
        });
        let listed: BTreeSet<String> = listed.unwrap().1.iter().map(ToString::to_string).collect();
        assert!(complaints.is_empty(), "{arch}:\n{}", complaints.join("\n"));
        assert_eq!(refused, listed, "{arch}");
        assert_eq!(rows, right + refused.len());
        // Seen with `--nocapture`.
        #[allow(clippy::print_stdout)]
        {
            println!("{arch}: {rows} rows, {right} as they say, {} refused", refused.len());
        }
    }
}
