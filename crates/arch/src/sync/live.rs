//! What may be modified while another CPU may be executing it.
//!
//! Rows say what an executing CPU may see. Which instructions are on a list is in the instruction
//! table ([`crate::insn::Row::live_patchable`]). Not modelled: what happens outside a list; it is
//! unpredictable (arm64: anything executable at that exception level; Power: boundedly undefined).

use super::{Rule, Vendor, When, rule_of, scope};
use crate::cite::Cite;
use crate::features::Features;
use crate::insn::{self, CmodxRevision, Family, Row};
use crate::isa::Arch;

/// A rule about live patching.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveRow {
    /// Id, scope, text and source.
    pub rule: Rule,
    /// What an executing CPU may see.
    pub sees: Sees,
    /// Largest store, in bytes, that the row covers.
    pub store_bytes: u64,
    /// Alignment within which the store must lie, in bytes.
    pub within_bytes: u64,
}

/// What a CPU may execute while the bytes change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Sees {
    /// The old instruction or the new one.
    OldOrNew,
    /// Condition and target each old or new, in any combination.
    OldOrNewByField,
    /// Old or new bytes by aligned quadword, which may be read more than once: an instruction may
    /// be torn where two old ones become one.
    QuadwordReadTwice,
    /// Anything.
    Unpredictable,
}

const CMODX: Cite = Cite::read("Arm ARM DDI 0487 B2.2.5 (list), E2.2.5 (text)");
const CMODX_COND: Cite =
    Cite::read("Arm ARM DDI 0487 E2.2.5, B2.2.5 as quoted by herdtools7 PR 1809");
const CMODX_MAP: Cite = Cite::deduced("Arm ARM DDI 0487 E2.2.5 note (AArch32 text)");
const POWER: Cite = Cite::read("Power ISA 2.03 Book II 1.8.1");
const POWER_ELSE: Cite = Cite::memory("Power ISA Book II 1.8.1: conditions, boundedly undefined");
const APM: Cite = Cite::read("APM vol 2 7.6.1 (24593 rev 3.44)");
const SDM: Cite = Cite::read("SDM 3A 8.1.3 (325384-059); Celeron W108, Core 2 AH33");
const INT3: Cite =
    Cite::memory("no Intel text; confirmed orally to kernel developers (mail of 2023)");
const PREFIXED: Cite =
    Cite::deduced("Linux 6.19 arch/powerpc/kernel/uprobes.c; ISA section not found");

const fn r(
    family: Family,
    vendor: Vendor,
    id: &'static str,
    sees: Sees,
    (store_bytes, within_bytes): (u64, u64),
    text: &'static str,
    cite: Cite,
) -> LiveRow {
    let rule = rule_of(id, scope(family, vendor, When::ALWAYS), text, cite);
    LiveRow { rule, sees, store_bytes, within_bytes }
}

/// The rows.
pub const LIVE_ROWS: &[LiveRow] = &[
    r(
        Family::Arm64,
        Vendor::Any,
        "arm64.live.list",
        Sees::OldOrNew,
        (4, 4),
        "Both instructions are in the list: old or new, never torn; new is sure only after the \
         chain is complete.",
        CMODX,
    ),
    r(
        Family::Arm64,
        Vendor::Any,
        "arm64.live.condition",
        Sees::OldOrNewByField,
        (4, 4),
        "A conditional branch replaced by another with both condition and target changed: old and \
         new conditions and targets may be mixed.",
        CMODX_COND,
    ),
    r(
        Family::Arm64,
        Vendor::Any,
        "arm64.live.else",
        Sees::Unpredictable,
        (4, 4),
        "Otherwise anything that can be executed at that exception level; no CPU may be executing \
         the instruction while it changes.",
        CMODX,
    ),
    r(
        Family::Arm64,
        Vendor::Any,
        "arm64.live.remap",
        Sees::Unpredictable,
        (4, 4),
        "A change of the mapping that changes the contents at an address counts as modification.",
        CMODX_MAP,
    ),
    r(
        Family::Powerpc,
        Vendor::Any,
        "powerpc.live.patch-class",
        Sees::OldOrNew,
        (4, 4),
        "Both instructions are in the patch class (I-form branches and the preferred no-op), \
         stored by one aligned word store: old or new.",
        POWER,
    ),
    r(
        Family::Powerpc,
        Vendor::Any,
        "powerpc.live.else",
        Sees::Unpredictable,
        (4, 4),
        "Otherwise the results are boundedly undefined.",
        POWER_ELSE,
    ),
    r(
        Family::Powerpc,
        Vendor::Any,
        "powerpc.live.prefixed",
        Sees::Unpredictable,
        (8, 64),
        "Whether a prefixed instruction may be patched live is not known; it must not cross a \
         64-byte boundary.",
        PREFIXED,
    ),
    r(
        Family::X86,
        Vendor::Intel,
        "x86.live.first-byte-intel",
        Sees::OldOrNew,
        (1, 1),
        "One byte, the first of an instruction, replaced by INT3 or back: no Intel text allows it, \
         practice does.",
        INT3,
    ),
    r(
        Family::X86,
        Vendor::Intel,
        "x86.live.else-intel",
        Sees::Unpredictable,
        (1, 1),
        "Otherwise behaviour is model-specific; errata list unexpected execution results.",
        SDM,
    ),
    r(
        Family::X86,
        Vendor::Amd,
        "x86.live.quadword-amd",
        Sees::QuadwordReadTwice,
        (8, 8),
        "One store inside a naturally aligned quadword may be made at any time; the quadword may \
         be read more than once, so joining two instructions into one can tear.",
        APM,
    ),
    r(
        Family::X86,
        Vendor::Amd,
        "x86.live.else-amd",
        Sees::Unpredictable,
        (1, 1),
        "A store that crosses an aligned quadword, or several stores, need synchronisation.",
        APM,
    ),
];

/// The rows that hold on `arch` with `features`.
pub fn live_rows(arch: Arch, features: Features) -> impl Iterator<Item = &'static LiveRow> {
    LIVE_ROWS.iter().filter(move |r| r.rule.scope.holds(arch, features))
}

/// Bytes of an aligned unit that a CPU fetches as one, so that a store of it is seen whole or not
/// at all: the widest that a row promises.
#[must_use]
pub fn unit_bytes(arch: Arch, features: Features) -> u64 {
    let promised = live_rows(arch, features).filter(|r| r.sees != Sees::Unpredictable);
    promised.map(|r| r.within_bytes).max().unwrap_or(1)
}

/// The instructions that may be patched live on `arch`: on arm64 those of the list as of
/// `revision`, on powerpc the patch class, none on x86-64.
pub fn patch_list(arch: Arch, revision: CmodxRevision) -> impl Iterator<Item = &'static Row> {
    insn::rows(arch).iter().filter(move |r| r.live_patchable_as_of(revision))
}
