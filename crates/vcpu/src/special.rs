//! What has to be done for an instruction of the table, and by whom: engine, machine, or both.

use textbed_arch::{
    Arch,
    effect::{Effect, Wake},
    insn::{Insn, Pattern, Row},
};
use textbed_event::MemOrder;

use crate::{
    traps::{self, Trap},
    x86,
};

/// How an instruction is carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// The engine executes it; its loads and stores have this order.
    Engine(Order),
    /// The machine carries out its effect; with `first`, after the engine executed it.
    Machine {
        /// The engine executes it first, for its results in registers and memory.
        first: Option<Order>,
    },
    /// It raises this exception.
    Trap(Trap),
    /// A hint: nothing happens but that the program counter moves on.
    Hint,
    /// It waits.
    Wait(Wake),
    /// The machine stores zeros over the block of this many bytes that holds the address.
    ZeroBlock(u64),
    /// arm64 `mrs xN, ctr_el0`: the modelled caches decide the value.
    CacheType,
    /// x86-64 `iretq`: the return state comes from the modelled stack.
    Iretq,
    /// An exception return that the engine carries out from its registers.
    EngineReturn,
    /// Something that the model does not have.
    NotModelled,
}

/// Order of the loads and stores of an instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Order {
    /// Of its loads.
    pub(crate) load: MemOrder,
    /// Of its stores.
    pub(crate) store: MemOrder,
    /// Its stores happen only if the conditional store succeeded.
    pub(crate) conditional: bool,
    /// Its stores are non-temporal.
    pub(crate) non_temporal: bool,
    /// Its load is part of an atomic operation: it returns the newest bytes.
    pub(crate) atomic: bool,
    /// Its load makes a reservation.
    pub(crate) reserves: bool,
}

impl Order {
    /// No order.
    pub(crate) const PLAIN: Order = Order {
        load: MemOrder::Plain,
        store: MemOrder::Plain,
        conditional: false,
        non_temporal: false,
        atomic: false,
        reserves: false,
    };

    const FULL: Order =
        Order { load: MemOrder::Full, store: MemOrder::Full, atomic: true, ..Self::PLAIN };
}

/// Bytes zeroed by arm64 `dc zva` (what DCZID_EL0 of the engine's CPU says) and powerpc `dcbz`.
const ARM64_ZERO_BLOCK: u64 = 64;
const POWER_ZERO_BLOCK: u64 = 128;

/// What is to be done for the instruction `insn` of the table.
pub(crate) fn plan(arch: Arch, insn: &Insn, bytes: &[u8]) -> Plan {
    let row = insn.row;
    match row.effect {
        Effect::Trap => match traps::of_row(arch, row.name, insn.operands.imm()) {
            Some(trap) => Plan::Trap(trap),
            // `tw` and its kin compare registers first.
            None if arch.is_powerpc() && row.name != "attn" => Plan::Engine(Order::PLAIN),
            None => Plan::NotModelled,
        },
        Effect::ExceptionReturn => match row.name {
            "iretq" => Plan::Iretq,
            "eret" | "rfid" => Plan::EngineReturn,
            _ => Plan::NotModelled,
        },
        // What may also go on by itself (`mwait`, `wfe`, `pause`) does.
        Effect::Wait(Wake::Anything) => Plan::Hint,
        Effect::Wait(wake) => Plan::Wait(wake),
        Effect::Exclusive => Plan::Engine(exclusive(arch, row, bytes)),
        Effect::Atomic => Plan::Engine(atomic(bytes)),
        Effect::LoadAcquire => Plan::Engine(Order { load: MemOrder::Acquire, ..Order::PLAIN }),
        Effect::StoreRelease => Plan::Engine(Order { store: MemOrder::Release, ..Order::PLAIN }),
        Effect::NonTemporalStore => Plan::Engine(Order { non_temporal: true, ..Order::PLAIN }),
        Effect::Branch(_) if is_far(row) => Plan::NotModelled,
        // The engine knows no prefixed instructions.
        Effect::Nop if insn.len == 8 => Plan::Hint,
        Effect::Branch(_) | Effect::Nop => Plan::Engine(Order::PLAIN),
        // Segments are those of hash translation.
        Effect::Control if row.name == "slbmte" => Plan::NotModelled,
        _ => Plan::Machine { first: engine_first(arch, row) },
    }
}

/// Far branches load segment descriptors.
fn is_far(row: &Row) -> bool {
    row.name == "retf" || row.form == "far m"
}

/// What is to be done for an instruction outside the table.
pub(crate) fn plan_other(arch: Arch, bytes: &[u8]) -> Plan {
    match (arch, word_of(arch, bytes)) {
        (Arch::X86_64, _) if x86::reads_cr3(bytes) => Plan::NotModelled,
        (Arch::X86_64, _) | (_, None) => Plan::Engine(Order::PLAIN),
        (Arch::Arm64, Some(word)) => match word & !0x1f {
            0xd50b_7420 => Plan::ZeroBlock(ARM64_ZERO_BLOCK),
            0xd53b_0020 => Plan::CacheType,
            // MRS of TTBR0_EL1 and TTBR1_EL1: the roots are the machine's.
            0xd538_2000 | 0xd538_2020 => Plan::NotModelled,
            // SYS and SYSL: maintenance, invalidation and translation that the table lacks.
            other if other & 0xffd8_0000 == 0xd508_0000 => Plan::NotModelled,
            _ => Plan::Engine(Order::PLAIN),
        },
        (_, Some(word)) if word & 0xffe0_07ff == 31 << 26 | 1014 << 1 => {
            Plan::ZeroBlock(POWER_ZERO_BLOCK)
        }
        (_, Some(word)) if goes_round_hooks(word) || reads_pid(word) || waits_unknown(word) => {
            Plan::NotModelled
        }
        _ => Plan::Engine(Order::PLAIN),
    }
}

/// powerpc `mfspr` of PID, whose value is the machine's.
fn reads_pid(word: u32) -> bool {
    let spr = (word >> 16 & 31) | (word >> 11 & 31) << 5;
    word >> 26 == 31 && word >> 1 & 0x3ff == 339 && spr == 48
}

/// powerpc `wait` with a reserved WC, which would halt the engine.
fn waits_unknown(word: u32) -> bool {
    word >> 26 == 31 && word >> 1 & 0x3ff == 30
}

/// Power instructions whose accesses the engine does not report: load and store multiple and
/// string, and prefixed instructions, which it does not know.
fn goes_round_hooks(word: u32) -> bool {
    match word >> 26 {
        1 | 46 | 47 => true,
        31 => matches!(word >> 1 & 0x3ff, 533 | 597 | 661 | 725),
        _ => false,
    }
}

/// The instruction word, on architectures that have words.
pub(crate) fn word_of(arch: Arch, bytes: &[u8]) -> Option<u32> {
    if arch == Arch::X86_64 {
        return None;
    }
    let word = bytes.first_chunk::<4>().copied()?;
    Some(if arch.is_little_endian() { u32::from_le_bytes(word) } else { u32::from_be_bytes(word) })
}

/// Whether the engine executes an instruction before the machine carries out its effect: where it
/// has results in registers or memory. Where the engine's own effect would be wrong or is not to
/// be had (caches, translations, hypervisor registers) it does not.
fn engine_first(arch: Arch, row: &Row) -> Option<Order> {
    let by_engine = match row.effect {
        Effect::Control | Effect::SpaceSwitch => {
            !matches!(row.name, "mtspr lpidr" | "mtspr lpcr" | "mtspr ptcr" | "mtspr sdr1")
                && !row.name.ends_with("_el2")
                && row.name != "wrmsrns"
        }
        Effect::ContextSync(_) => !matches!(row.name, "serialize" | "isb" | "isync"),
        Effect::Barrier(..) => is_locked(arch, row),
        _ => false,
    };
    let order = if is_locked(arch, row) { Order::FULL } else { Order::PLAIN };
    by_engine.then_some(order)
}

/// x86-64 locked read-modify-write, `xchg` with memory among them.
fn is_locked(arch: Arch, row: &Row) -> bool {
    arch == Arch::X86_64
        && matches!(row.effect, Effect::Barrier(..))
        && matches!(row.pattern, Pattern::X86(p) if p.lock != textbed_arch::insn::Lock::Absent)
}

fn ordered(acquire: bool, release: bool) -> Order {
    Order {
        load: if acquire { MemOrder::Acquire } else { MemOrder::Plain },
        store: if release { MemOrder::Release } else { MemOrder::Plain },
        ..Order::PLAIN
    }
}

/// Load and store exclusive: bit 15 (o0) is acquire or release, bit 22 (L) is a load. Reservations
/// of powerpc order nothing.
fn exclusive(arch: Arch, row: &Row, bytes: &[u8]) -> Order {
    if arch != Arch::Arm64 {
        let conditional = row.name.ends_with('.');
        return Order { conditional, atomic: true, reserves: !conditional, ..Order::PLAIN };
    }
    let word = word_of(arch, bytes).unwrap_or(0);
    let (load, ordering) = (word & 1 << 22 != 0, word & 1 << 15 != 0);
    let base = ordered(load && ordering, !load && ordering);
    Order { conditional: !load, atomic: true, reserves: load, ..base }
}

/// LSE atomics: A is bit 23 and R bit 22; of compare-and-swap L (bit 22) and o0 (bit 15).
fn atomic(bytes: &[u8]) -> Order {
    let word = word_of(Arch::Arm64, bytes).unwrap_or(0);
    let bit = |n: u32| word & 1 << n != 0;
    let compare_and_swap = word >> 24 & 0x3f == 0x08;
    let order =
        if compare_and_swap { ordered(bit(22), bit(15)) } else { ordered(bit(23), bit(22)) };
    Order { atomic: true, ..order }
}

#[cfg(test)]
mod tests {
    use textbed_arch::insn::{decode, rows};

    use super::*;

    fn planned(arch: Arch, word: u32) -> Plan {
        let bytes = if arch.is_little_endian() { word.to_le_bytes() } else { word.to_be_bytes() };
        match decode(arch, &bytes) {
            Some(insn) => plan(arch, &insn, &bytes),
            None => plan_other(arch, &bytes),
        }
    }

    #[test]
    fn orders_follow_the_words() {
        let order = |word| match planned(Arch::Arm64, word) {
            Plan::Engine(o) => (o.load, o.store, o.conditional),
            other => panic!("{other:?}"),
        };
        use MemOrder::{Acquire, Plain, Release};
        assert_eq!(order(0x885f_7c03), (Plain, Plain, false), "ldxr");
        assert_eq!(order(0x885f_fc03), (Acquire, Plain, false), "ldaxr");
        assert_eq!(order(0x8804_7c03), (Plain, Plain, true), "stxr");
        assert_eq!(order(0x8804_fc03), (Plain, Release, true), "stlxr");
        assert_eq!(order(0xb8e1_0000), (Acquire, Release, false), "ldaddal");
        assert_eq!(order(0xb821_0000), (Plain, Plain, false), "ldadd");
        assert_eq!(order(0x88e1_fc00), (Acquire, Release, false), "casal");
        assert_eq!(order(0x88df_fc00), (Acquire, Plain, false), "ldar");
        assert_eq!(order(0x889f_fc00), (Plain, Release, false), "stlr");
    }

    #[test]
    fn locked_instructions_run_on_the_engine_and_fences_do_not() {
        let x86 = |bytes: &[u8]| plan(Arch::X86_64, &decode(Arch::X86_64, bytes).unwrap(), bytes);
        let locked = Plan::Machine { first: Some(Order::FULL) };
        assert_eq!(x86(&[0xf0, 0xff, 0x07]), locked, "lock inc");
        assert_eq!(x86(&[0x87, 0x07]), locked, "xchg [rdi], eax");
        assert_eq!(x86(&[0x0f, 0xae, 0xf0]), Plan::Machine { first: None }, "mfence");
        assert_eq!(x86(&[0x0f, 0xa2]), Plan::Machine { first: Some(Order::PLAIN) }, "cpuid");
        assert_eq!(x86(&[0x0f, 0x01, 0xe8]), Plan::Machine { first: None }, "serialize");
        assert_eq!(x86(&[0xcb]), Plan::NotModelled, "retf");
    }

    #[test]
    fn what_goes_round_the_hooks_is_never_left_to_the_engine() {
        assert_eq!(planned(Arch::Arm64, 0xd50b_7423), Plan::ZeroBlock(64), "dc zva, x3");
        assert_eq!(planned(Arch::Arm64, 0xd53b_0024), Plan::CacheType, "mrs x4, ctr_el0");
        assert_eq!(planned(Arch::Arm64, 0xd538_2023), Plan::NotModelled, "mrs x3, ttbr1_el1");
        assert_eq!(planned(Arch::Arm64, 0xd538_1003), Plan::Engine(Order::PLAIN), "mrs sctlr");
        assert_eq!(planned(Arch::Arm64, 0xd508_7800), Plan::NotModelled, "at s1e1r, x0");
        assert_eq!(planned(Arch::Arm64, 0xd50b_7480), Plan::NotModelled, "dc gzva, x0");
        assert_eq!(planned(Arch::Ppc64, 0x7c70_0aa6), Plan::NotModelled, "mfspr r3, 48");
        assert_eq!(planned(Arch::Ppc64, 0x7c68_02a6), Plan::Engine(Order::PLAIN), "mflr r3");
        let cr3 = [0x0f, 0x20, 0xd8];
        assert_eq!(plan_other(Arch::X86_64, &cr3), Plan::NotModelled, "mov rax, cr3");
        let cr4 = [0x0f, 0x20, 0xe0];
        assert_eq!(plan_other(Arch::X86_64, &cr4), Plan::Engine(Order::PLAIN), "mov rax, cr4");
        assert_eq!(planned(Arch::Ppc64, 0x7c00_1fec), Plan::ZeroBlock(128), "dcbz 0, r3");
        assert_eq!(planned(Arch::Ppc64, 0xb861_0000), Plan::NotModelled, "lmw");
        assert_eq!(planned(Arch::Ppc64le, 0x0600_0000), Plan::NotModelled, "a prefix");
        assert_eq!(planned(Arch::Ppc64le, 0x8063_0000), Plan::Engine(Order::PLAIN), "lwz");
    }

    #[test]
    fn every_row_has_a_plan_and_only_named_ones_are_not_modelled() {
        for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
            for row in rows(arch) {
                let insn = Insn { row, len: 4, operands: Default::default() };
                let refused = plan(arch, &insn, &[0; 4]) == Plan::NotModelled;
                let may_be = matches!(row.effect, Effect::Trap | Effect::ExceptionReturn)
                    || is_far(row)
                    || row.name == "slbmte";
                assert!(!refused || may_be, "{arch} {}", row.title());
            }
        }
    }
}
