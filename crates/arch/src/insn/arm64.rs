//! AArch64 rows.
//!
//! Sources: Arm ARM DDI 0487 C4 'A64 Instruction Set Encoding', C5 'System instructions', B2.7.4
//! and D8.17 for effects, B2.2.5 for concurrent modification. Encodings were compared with capstone
//! where it knows the instruction. Not in the table: `dc zva` and its kin (stores), address
//! translation, pointer authentication but for branches, SVE and SME, `ldapur`/`stlur`.

use super::row::{CmodxRevision, Family, LivePatch, OpId, PatchList, Row, Shape};
use crate::cite::Cite;
use crate::effect::{Barrier, CacheScope, Domain, Effect, Flow, Reach, SyncCause, TlbScope, Wake};

const JUMP: Effect = Effect::Branch(Flow::Jump);
const CACHE: Cite = Cite::read("Arm ARM DDI 0487 B2.7.4.2, K11.5.2 (cache maintenance)");
const DSB: Cite =
    Cite::read("Arm ARM DDI 0487 K11.5.2; herdtools7 aarch64hwreqs.cat (M.a), DSB-ob");
const DMB: Cite = Cite::read("herdtools7 aarch64hwreqs.cat (M.a)");
const CSE: Cite = Cite::read("Arm ARM DDI 0487 Glossary, Context Synchronization event; RBWCFK");
const TLBI: Cite = Cite::read("Arm ARM DDI 0487 D8.17 (TLB maintenance)");
const TLBI_NXS: Cite =
    Cite::read("Arm A-profile system instructions, 2026-03 (XML): TLBI VAE1IS, VAE1ISNXS and kin");
const C6: Cite = Cite::read("Arm A64 instruction set (XML): encoding and text of the instruction");
const SYSREG: Cite =
    Cite::read("Linux 6.18 arm64 tools/sysreg, asm/sysreg.h; Arm system registers, 2026-03 (XML)");
const CMPBR: Cite = Cite::deduced("encodings in LLVM's MC tests of FEAT_CMPBR");

const CMODX_AA: Cite = Cite::read("Arm ARM DDI 0487 A.a B2.6.5, as quoted by OpenJDK");
const CMODX_DA: Cite = Cite::read("Arm ARM DDI 0487 D.a B2.2.5; E2.2.5 note");
const CMODX_MIDDLE: Cite = Cite::read("Arm ARM DDI 0487 B2.2.5, as listed by herdtools7");
const CMODX_LATEST: Cite = Cite::deduced("Arm ARM DDI 0487 B2.2.5 (latest), two secondary sources");

const ISH: Domain = Domain::Inner;
const WORD: u32 = 0xffff_ffff;

/// A row that nothing qualifies.
const fn w(
    id: u16,
    name: &'static str,
    mask: u32,
    value: u32,
    shape: Shape,
    effect: Effect,
    cite: Cite,
) -> Row {
    Row::word(Family::Arm64, OpId(id), name, (mask, value), shape, effect, cite)
}

/// A system instruction (SYS) with Xt, or without if `xt` is not set.
const fn sys(
    id: u16,
    name: &'static str,
    enc: (u32, u32, u32, u32),
    xt: bool,
    effect: Effect,
    cite: Cite,
) -> Row {
    let value = 0xd508_0000 | enc.0 << 16 | enc.1 << 12 | enc.2 << 8 | enc.3 << 5;
    if xt {
        w(id, name, 0xffff_ffe0, value, Shape::Xt, effect, cite)
    } else {
        w(id, name, WORD, value | 31, Shape::None, effect, cite)
    }
}

/// MSR to the register op0=3, op1, CRn, CRm, op2.
const fn msr(id: u16, name: &'static str, enc: (u32, u32, u32, u32), effect: Effect) -> Row {
    let value = 0xd518_0000 | enc.0 << 16 | enc.1 << 12 | enc.2 << 8 | enc.3 << 5;
    kernel(w(id, name, 0xffff_ffe0, value, Shape::Xt, effect, SYSREG))
}

const fn tlbi(id: u16, name: &'static str, op1: u32, crm: u32, op2: u32, scope: TlbScope) -> Row {
    tlbi_n(id, name, 8, (op1, crm, op2), scope, TLBI)
}

/// The nXS variant: does not wait for accesses with the XS attribute.
const fn nxs(id: u16, name: &'static str, op1: u32, crm: u32, op2: u32, scope: TlbScope) -> Row {
    tlbi_n(id, name, 9, (op1, crm, op2), scope, TLBI_NXS)
}

const fn tlbi_n(
    id: u16,
    name: &'static str,
    crn: u32,
    (op1, crm, op2): (u32, u32, u32),
    scope: TlbScope,
    cite: Cite,
) -> Row {
    // CRm 1, 3, 0 and 2 are broadcast (outer, inner, stage 2 inner, range inner); 5 is range outer
    // for stage 1; 4 holds stage 2 in all three reaches, told apart by op2 (0 and 4: outer).
    let broadcast = match crm {
        0..=3 | 5 => true,
        4 => op2 == 0 || op2 == 3 || op2 == 4 || op2 == 7,
        _ => false,
    };
    let reach = if broadcast { Reach::Broadcast } else { Reach::Local };
    let xt = !matches!(scope, TlbScope::All);
    let effect = Effect::TlbInvalidate(scope, reach);
    kernel(sys(id, name, (op1, crn, crm, op2), xt, effect, cite))
}

const fn dsb(id: u16, name: &'static str, crm: u32, kind: Barrier, domain: Domain) -> Row {
    w(
        id,
        name,
        WORD,
        0xd503_309f | crm << 8,
        Shape::BarrierOption,
        Effect::Barrier(kind, domain),
        DSB,
    )
}

const fn dmb(id: u16, name: &'static str, crm: u32, kind: Barrier, domain: Domain) -> Row {
    w(
        id,
        name,
        WORD,
        0xd503_30bf | crm << 8,
        Shape::BarrierOption,
        Effect::Barrier(kind, domain),
        DMB,
    )
}

const fn hint(id: u16, name: &'static str, number: u32, effect: Effect) -> Row {
    w(id, name, WORD, 0xd503_201f | number << 5, Shape::None, effect, C6)
}

const fn branch(id: u16, name: &'static str, mask: u32, value: u32, shape: Shape) -> Row {
    w(id, name, mask, value, shape, JUMP, C6)
}

const fn call(id: u16, name: &'static str, mask: u32, value: u32, shape: Shape) -> Row {
    Row { effect: Effect::Branch(Flow::Call), ..branch(id, name, mask, value, shape) }
}

const fn ret(id: u16, name: &'static str, mask: u32, value: u32, shape: Shape) -> Row {
    Row { effect: Effect::Branch(Flow::Return), ..branch(id, name, mask, value, shape) }
}

const fn access(
    id: u16,
    name: &'static str,
    mask: u32,
    value: u32,
    shape: Shape,
    effect: Effect,
) -> Row {
    w(id, name, mask, value, shape, effect, C6)
}

const fn kernel(mut row: Row) -> Row {
    row.privileged = true;
    row
}

const fn form(mut row: Row, form: &'static str) -> Row {
    row.form = form;
    row
}

const fn patchable(mut row: Row, revision: CmodxRevision) -> Row {
    let cite = match revision {
        CmodxRevision::Aa => CMODX_AA,
        CmodxRevision::Da => CMODX_DA,
        CmodxRevision::Middle => CMODX_MIDDLE,
        CmodxRevision::Latest => CMODX_LATEST,
    };
    row.live_patchable = Some(LivePatch { list: PatchList::Cmodx(revision), cite });
    row
}

const CLEAN: Effect = Effect::CacheClean(CacheScope::Line);
const SYNC: Effect = Effect::ContextSync(SyncCause::Instruction);
use CmodxRevision::{Aa, Da, Latest, Middle};
use TlbScope::{Address, AddressLastLevel, All, Space};

/// The rows.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // Cache maintenance: (op1, CRn, CRm, op2).
    sys(0x2001, "dc cvau", (3, 7, 11, 1), true, CLEAN, CACHE),
    sys(0x2002, "dc cvac", (3, 7, 10, 1), true, CLEAN, CACHE),
    sys(0x2003, "dc civac", (3, 7, 14, 1), true, CLEAN, CACHE),
    sys(0x2004, "dc cvap", (3, 7, 12, 1), true, CLEAN, C6),
    sys(0x2005, "dc cvadp", (3, 7, 13, 1), true, CLEAN, C6),
    kernel(sys(0x2006, "dc ivac", (0, 7, 6, 1), true, Effect::CacheInvalidate(CacheScope::Line),
        C6)),
    kernel(sys(0x2007, "dc isw", (0, 7, 6, 2), true, Effect::CacheInvalidate(CacheScope::Line),
        C6)),
    kernel(sys(0x2008, "dc csw", (0, 7, 10, 2), true, CLEAN, C6)),
    kernel(sys(0x2009, "dc cisw", (0, 7, 14, 2), true, CLEAN, C6)),
    sys(0x2010, "ic ivau", (3, 7, 5, 1), true, Effect::IcacheInvalidate(CacheScope::Line,
        Reach::Broadcast), CACHE),
    kernel(sys(0x2011, "ic ialluis", (0, 7, 1, 0), false, Effect::IcacheInvalidate(CacheScope::All,
        Reach::Broadcast), CACHE)),
    kernel(sys(0x2012, "ic iallu", (0, 7, 5, 0), false, Effect::IcacheInvalidate(CacheScope::All,
        Reach::Local), CACHE)),
    // Barriers. Reserved options of DSB and DMB are not in the table.
    dsb(0x2020, "dsb sy", 15, Barrier::DsbFull, Domain::System),
    dsb(0x2021, "dsb st", 14, Barrier::DsbStore, Domain::System),
    dsb(0x2022, "dsb ld", 13, Barrier::DsbLoad, Domain::System),
    dsb(0x2023, "dsb ish", 11, Barrier::DsbFull, ISH),
    dsb(0x2024, "dsb ishst", 10, Barrier::DsbStore, ISH),
    dsb(0x2025, "dsb ishld", 9, Barrier::DsbLoad, ISH),
    dsb(0x2026, "dsb nsh", 7, Barrier::DsbFull, Domain::NonShareable),
    dsb(0x2027, "dsb nshst", 6, Barrier::DsbStore, Domain::NonShareable),
    dsb(0x2028, "dsb nshld", 5, Barrier::DsbLoad, Domain::NonShareable),
    dsb(0x2029, "dsb osh", 3, Barrier::DsbFull, Domain::Outer),
    dsb(0x202a, "dsb oshst", 2, Barrier::DsbStore, Domain::Outer),
    dsb(0x202b, "dsb oshld", 1, Barrier::DsbLoad, Domain::Outer),
    w(0x202c, "dsb synxs", WORD, 0xd503_3e3f, Shape::None, Effect::Barrier(Barrier::DsbFull,
        Domain::System), C6),
    w(0x202d, "dsb ishnxs", WORD, 0xd503_3a3f, Shape::None, Effect::Barrier(Barrier::DsbFull, ISH),
        C6),
    w(0x202e, "dsb nshnxs", WORD, 0xd503_363f, Shape::None, Effect::Barrier(Barrier::DsbFull,
        Domain::NonShareable), C6),
    w(0x202f, "dsb oshnxs", WORD, 0xd503_323f, Shape::None, Effect::Barrier(Barrier::DsbFull,
        Domain::Outer), C6),
    dmb(0x2030, "dmb sy", 15, Barrier::DmbFull, Domain::System),
    dmb(0x2031, "dmb st", 14, Barrier::DmbStore, Domain::System),
    dmb(0x2032, "dmb ld", 13, Barrier::DmbLoad, Domain::System),
    dmb(0x2033, "dmb ish", 11, Barrier::DmbFull, ISH),
    dmb(0x2034, "dmb ishst", 10, Barrier::DmbStore, ISH),
    dmb(0x2035, "dmb ishld", 9, Barrier::DmbLoad, ISH),
    dmb(0x2036, "dmb nsh", 7, Barrier::DmbFull, Domain::NonShareable),
    dmb(0x2037, "dmb nshst", 6, Barrier::DmbStore, Domain::NonShareable),
    dmb(0x2038, "dmb nshld", 5, Barrier::DmbLoad, Domain::NonShareable),
    dmb(0x2039, "dmb osh", 3, Barrier::DmbFull, Domain::Outer),
    dmb(0x203a, "dmb oshst", 2, Barrier::DmbStore, Domain::Outer),
    dmb(0x203b, "dmb oshld", 1, Barrier::DmbLoad, Domain::Outer),
    patchable(w(0x2040, "isb", 0xffff_f0ff, 0xd503_30df, Shape::BarrierOption, SYNC, CSE), Da),
    // Speculation barriers synchronise no context and order nothing that is modelled.
    w(0x2041, "sb", WORD, 0xd503_30ff, Shape::None, Effect::Nop, C6),
    hint(0x2042, "csdb", 20, Effect::Nop),
    // TLB maintenance, stage 1 of EL1&0.
    tlbi(0x2050, "tlbi vmalle1is", 0, 3, 0, All),
    tlbi(0x2051, "tlbi vae1is", 0, 3, 1, Address),
    tlbi(0x2052, "tlbi aside1is", 0, 3, 2, Space),
    tlbi(0x2053, "tlbi vaae1is", 0, 3, 3, Address),
    tlbi(0x2054, "tlbi vale1is", 0, 3, 5, AddressLastLevel),
    tlbi(0x2055, "tlbi vaale1is", 0, 3, 7, AddressLastLevel),
    tlbi(0x2056, "tlbi vmalle1", 0, 7, 0, All),
    tlbi(0x2057, "tlbi vae1", 0, 7, 1, Address),
    tlbi(0x2058, "tlbi aside1", 0, 7, 2, Space),
    tlbi(0x2059, "tlbi vaae1", 0, 7, 3, Address),
    tlbi(0x205a, "tlbi vale1", 0, 7, 5, AddressLastLevel),
    tlbi(0x205b, "tlbi vaale1", 0, 7, 7, AddressLastLevel),
    tlbi(0x205c, "tlbi vmalle1os", 0, 1, 0, All),
    tlbi(0x205d, "tlbi vae1os", 0, 1, 1, Address),
    tlbi(0x205e, "tlbi aside1os", 0, 1, 2, Space),
    tlbi(0x205f, "tlbi vaae1os", 0, 1, 3, Address),
    tlbi(0x2060, "tlbi vale1os", 0, 1, 5, AddressLastLevel),
    tlbi(0x2061, "tlbi vaale1os", 0, 1, 7, AddressLastLevel),
    // Ranges: the register holds base, scale and number.
    tlbi(0x2062, "tlbi rvae1is", 0, 2, 1, Address),
    tlbi(0x2063, "tlbi rvaae1is", 0, 2, 3, Address),
    tlbi(0x2064, "tlbi rvale1is", 0, 2, 5, AddressLastLevel),
    tlbi(0x2065, "tlbi rvaale1is", 0, 2, 7, AddressLastLevel),
    tlbi(0x2066, "tlbi rvae1os", 0, 5, 1, Address),
    tlbi(0x2067, "tlbi rvaae1os", 0, 5, 3, Address),
    tlbi(0x2068, "tlbi rvale1os", 0, 5, 5, AddressLastLevel),
    tlbi(0x2069, "tlbi rvaale1os", 0, 5, 7, AddressLastLevel),
    tlbi(0x206a, "tlbi rvae1", 0, 6, 1, Address),
    tlbi(0x206b, "tlbi rvaae1", 0, 6, 3, Address),
    tlbi(0x206c, "tlbi rvale1", 0, 6, 5, AddressLastLevel),
    tlbi(0x206d, "tlbi rvaale1", 0, 6, 7, AddressLastLevel),
    // Stage 2, and the regimes of EL2 and EL3.
    tlbi(0x2070, "tlbi ipas2e1is", 4, 0, 1, Address),
    tlbi(0x2071, "tlbi ipas2le1is", 4, 0, 5, AddressLastLevel),
    tlbi(0x2072, "tlbi ripas2e1is", 4, 0, 2, Address),
    tlbi(0x2073, "tlbi ripas2le1is", 4, 0, 6, AddressLastLevel),
    tlbi(0x2074, "tlbi ipas2e1", 4, 4, 1, Address),
    tlbi(0x2075, "tlbi ipas2le1", 4, 4, 5, AddressLastLevel),
    tlbi(0x2076, "tlbi ripas2e1", 4, 4, 2, Address),
    tlbi(0x2077, "tlbi ripas2le1", 4, 4, 6, AddressLastLevel),
    tlbi(0x2078, "tlbi ipas2e1os", 4, 4, 0, Address),
    tlbi(0x2079, "tlbi ipas2le1os", 4, 4, 4, AddressLastLevel),
    tlbi(0x207a, "tlbi alle1is", 4, 3, 4, All),
    tlbi(0x207b, "tlbi vmalls12e1is", 4, 3, 6, All),
    tlbi(0x207c, "tlbi alle1", 4, 7, 4, All),
    tlbi(0x207d, "tlbi vmalls12e1", 4, 7, 6, All),
    tlbi(0x207e, "tlbi alle2is", 4, 3, 0, All),
    tlbi(0x207f, "tlbi vae2is", 4, 3, 1, Address),
    tlbi(0x2080, "tlbi vale2is", 4, 3, 5, AddressLastLevel),
    tlbi(0x2081, "tlbi alle2", 4, 7, 0, All),
    tlbi(0x2082, "tlbi vae2", 4, 7, 1, Address),
    tlbi(0x2083, "tlbi vale2", 4, 7, 5, AddressLastLevel),
    tlbi(0x2084, "tlbi alle3is", 6, 3, 0, All),
    tlbi(0x2085, "tlbi vae3is", 6, 3, 1, Address),
    tlbi(0x2086, "tlbi vale3is", 6, 3, 5, AddressLastLevel),
    tlbi(0x2087, "tlbi alle3", 6, 7, 0, All),
    tlbi(0x2088, "tlbi vae3", 6, 7, 1, Address),
    tlbi(0x2089, "tlbi vale3", 6, 7, 5, AddressLastLevel),
    tlbi(0x208a, "tlbi alle1os", 4, 1, 4, All),
    tlbi(0x208b, "tlbi vmalls12e1os", 4, 1, 6, All),
    // nXS variants of those that Linux uses.
    nxs(0x2090, "tlbi vmalle1isnxs", 0, 3, 0, All),
    nxs(0x2091, "tlbi vae1isnxs", 0, 3, 1, Address),
    nxs(0x2092, "tlbi aside1isnxs", 0, 3, 2, Space),
    nxs(0x2093, "tlbi vaae1isnxs", 0, 3, 3, Address),
    nxs(0x2094, "tlbi vale1isnxs", 0, 3, 5, AddressLastLevel),
    nxs(0x2095, "tlbi vaale1isnxs", 0, 3, 7, AddressLastLevel),
    nxs(0x2096, "tlbi rvae1isnxs", 0, 2, 1, Address),
    nxs(0x2097, "tlbi rvale1isnxs", 0, 2, 5, AddressLastLevel),
    // Exceptions and returns.
    patchable(w(0x20a0, "brk", 0xffe0_001f, 0xd420_0000, Shape::Imm16, Effect::Trap, C6), Aa),
    patchable(w(0x20a1, "svc", 0xffe0_001f, 0xd400_0001, Shape::Imm16, Effect::Trap, C6), Aa),
    kernel(patchable(w(0x20a2, "hvc", 0xffe0_001f, 0xd400_0002, Shape::Imm16, Effect::Trap, C6),
        Aa)),
    kernel(patchable(w(0x20a3, "smc", 0xffe0_001f, 0xd400_0003, Shape::Imm16, Effect::Trap, C6),
        Aa)),
    w(0x20a4, "hlt", 0xffe0_001f, 0xd440_0000, Shape::Imm16, Effect::Trap, C6),
    patchable(w(0x20a5, "udf", 0xffff_0000, 0, Shape::Udf, Effect::Trap, C6), Latest),
    w(0x20a6, "dcps1", 0xffe0_001f, 0xd4a0_0001, Shape::Imm16, Effect::Trap, CSE),
    w(0x20a7, "dcps2", 0xffe0_001f, 0xd4a0_0002, Shape::Imm16, Effect::Trap, CSE),
    w(0x20a8, "dcps3", 0xffe0_001f, 0xd4a0_0003, Shape::Imm16, Effect::Trap, CSE),
    kernel(w(0x20a9, "eret", WORD, 0xd69f_03e0, Shape::None, Effect::ExceptionReturn, CSE)),
    kernel(w(0x20aa, "eretaa", WORD, 0xd69f_0bff, Shape::None, Effect::ExceptionReturn, CSE)),
    kernel(w(0x20ab, "eretab", WORD, 0xd69f_0fff, Shape::None, Effect::ExceptionReturn, CSE)),
    kernel(w(0x20ac, "drps", WORD, 0xd6bf_03e0, Shape::None, Effect::ExceptionReturn, CSE)),
    // Branches.
    patchable(branch(0x20b0, "b", 0xfc00_0000, 0x1400_0000, Shape::Branch26), Aa),
    patchable(call(0x20b1, "bl", 0xfc00_0000, 0x9400_0000, Shape::Branch26), Aa),
    patchable(branch(0x20b2, "b.cond", 0xff00_0010, 0x5400_0000, Shape::CondBranch), Middle),
    branch(0x20b3, "bc.cond", 0xff00_0010, 0x5400_0010, Shape::CondBranch),
    patchable(branch(0x20b4, "cbz", 0x7f00_0000, 0x3400_0000, Shape::CompareBranch), Middle),
    patchable(branch(0x20b5, "cbnz", 0x7f00_0000, 0x3500_0000, Shape::CompareBranch), Middle),
    patchable(branch(0x20b6, "tbz", 0x7f00_0000, 0x3600_0000, Shape::TestBranch), Middle),
    patchable(branch(0x20b7, "tbnz", 0x7f00_0000, 0x3700_0000, Shape::TestBranch), Middle),
    branch(0x20b8, "br", 0xffff_fc1f, 0xd61f_0000, Shape::Xn),
    call(0x20b9, "blr", 0xffff_fc1f, 0xd63f_0000, Shape::Xn),
    ret(0x20ba, "ret", 0xffff_fc1f, 0xd65f_0000, Shape::Xn),
    branch(0x20bb, "braaz", 0xffff_fc1f, 0xd61f_081f, Shape::Xn),
    branch(0x20bc, "brabz", 0xffff_fc1f, 0xd61f_0c1f, Shape::Xn),
    call(0x20bd, "blraaz", 0xffff_fc1f, 0xd63f_081f, Shape::Xn),
    call(0x20be, "blrabz", 0xffff_fc1f, 0xd63f_0c1f, Shape::Xn),
    branch(0x20bf, "braa", 0xffff_fc00, 0xd71f_0800, Shape::Xn),
    branch(0x20c0, "brab", 0xffff_fc00, 0xd71f_0c00, Shape::Xn),
    call(0x20c1, "blraa", 0xffff_fc00, 0xd73f_0800, Shape::Xn),
    call(0x20c2, "blrab", 0xffff_fc00, 0xd73f_0c00, Shape::Xn),
    ret(0x20c3, "retaa", WORD, 0xd65f_0bff, Shape::None),
    ret(0x20c4, "retab", WORD, 0xd65f_0fff, Shape::None),
    // FEAT_CMPBR: conditions 4 and 5 are reserved, hence two rows each.
    patchable(form(w(0x20c8, "cb<cc>", 0x7f80_c000, 0x7400_0000, Shape::CompareRegBranch,
        JUMP, CMPBR), "register, order"), Latest),
    patchable(form(w(0x20c9, "cb<cc>", 0x7fc0_c000, 0x74c0_0000, Shape::CompareRegBranch,
        JUMP, CMPBR), "register, equality"), Latest),
    patchable(form(w(0x20ca, "cb<cc>", 0x7f80_4000, 0x7500_0000, Shape::CompareRegBranch,
        JUMP, CMPBR), "immediate, order"), Latest),
    patchable(form(w(0x20cb, "cb<cc>", 0x7fc0_4000, 0x75c0_0000, Shape::CompareRegBranch,
        JUMP, CMPBR), "immediate, equality"), Latest),
    patchable(form(w(0x20cc, "cbb<cc>", 0xff80_c000, 0x7400_8000, Shape::CompareRegBranch,
        JUMP, CMPBR), "order"), Latest),
    patchable(form(w(0x20cd, "cbb<cc>", 0xffc0_c000, 0x74c0_8000, Shape::CompareRegBranch,
        JUMP, CMPBR), "equality"), Latest),
    patchable(form(w(0x20ce, "cbh<cc>", 0xff80_c000, 0x7400_c000, Shape::CompareRegBranch,
        JUMP, CMPBR), "order"), Latest),
    patchable(form(w(0x20cf, "cbh<cc>", 0xffc0_c000, 0x74c0_c000, Shape::CompareRegBranch,
        JUMP, CMPBR), "equality"), Latest),
    // Hints.
    patchable(hint(0x20d0, "nop", 0, Effect::Nop), Aa),
    hint(0x20d1, "yield", 1, Effect::Wait(Wake::Anything)),
    hint(0x20d2, "wfe", 2, Effect::Wait(Wake::Event)),
    hint(0x20d3, "wfi", 3, Effect::Wait(Wake::Interrupt)),
    hint(0x20d4, "sev", 4, Effect::SendEvent(Reach::Broadcast)),
    hint(0x20d5, "sevl", 5, Effect::SendEvent(Reach::Local)),
    hint(0x20d6, "esb", 16, Effect::Nop),
    hint(0x20d7, "psb csync", 17, Effect::Nop),
    hint(0x20d8, "tsb csync", 18, Effect::Nop),
    w(0x20d9, "bti", 0xffff_ff3f, 0xd503_241f, Shape::None, Effect::Nop, C6),
    patchable(sys(0x20da, "trcit", (3, 7, 2, 7), true, Effect::Nop, C6), Latest),
    // Translation control.
    msr(0x20e0, "msr ttbr0_el1", (0, 2, 0, 0), Effect::SpaceSwitch),
    msr(0x20e1, "msr ttbr1_el1", (0, 2, 0, 1), Effect::SpaceSwitch),
    msr(0x20e2, "msr sctlr_el1", (0, 1, 0, 0), Effect::Control),
    msr(0x20e3, "msr tcr_el1", (0, 2, 0, 2), Effect::Control),
    msr(0x20e4, "msr mair_el1", (0, 10, 2, 0), Effect::Control),
    msr(0x20e5, "msr contextidr_el1", (0, 13, 0, 1), Effect::Control),
    msr(0x20e6, "msr ttbr0_el2", (4, 2, 0, 0), Effect::SpaceSwitch),
    msr(0x20e7, "msr ttbr1_el2", (4, 2, 0, 1), Effect::SpaceSwitch),
    msr(0x20e8, "msr vttbr_el2", (4, 2, 1, 0), Effect::SpaceSwitch),
    msr(0x20e9, "msr sctlr_el2", (4, 1, 0, 0), Effect::Control),
    msr(0x20ea, "msr hcr_el2", (4, 1, 1, 0), Effect::Control),
    msr(0x20eb, "msr tcr_el2", (4, 2, 0, 2), Effect::Control),
    msr(0x20ec, "msr vtcr_el2", (4, 2, 1, 2), Effect::Control),
    // Exclusives.
    access(0x20f0, "ldxrb", 0xffff_fc00, 0x085f_7c00, Shape::LoadStoreXn, Effect::Exclusive),
    access(0x20f1, "ldxrh", 0xffff_fc00, 0x485f_7c00, Shape::LoadStoreXn, Effect::Exclusive),
    access(0x20f2, "ldxr", 0xbfff_fc00, 0x885f_7c00, Shape::LoadStoreXn, Effect::Exclusive),
    access(0x20f3, "ldaxrb", 0xffff_fc00, 0x085f_fc00, Shape::LoadStoreXn, Effect::Exclusive),
    access(0x20f4, "ldaxrh", 0xffff_fc00, 0x485f_fc00, Shape::LoadStoreXn, Effect::Exclusive),
    access(0x20f5, "ldaxr", 0xbfff_fc00, 0x885f_fc00, Shape::LoadStoreXn, Effect::Exclusive),
    access(0x20f6, "stxrb", 0xffe0_fc00, 0x0800_7c00, Shape::Exclusive, Effect::Exclusive),
    access(0x20f7, "stxrh", 0xffe0_fc00, 0x4800_7c00, Shape::Exclusive, Effect::Exclusive),
    access(0x20f8, "stxr", 0xbfe0_fc00, 0x8800_7c00, Shape::Exclusive, Effect::Exclusive),
    access(0x20f9, "stlxrb", 0xffe0_fc00, 0x0800_fc00, Shape::Exclusive, Effect::Exclusive),
    access(0x20fa, "stlxrh", 0xffe0_fc00, 0x4800_fc00, Shape::Exclusive, Effect::Exclusive),
    access(0x20fb, "stlxr", 0xbfe0_fc00, 0x8800_fc00, Shape::Exclusive, Effect::Exclusive),
    access(0x20fc, "ldxp", 0xbfff_8000, 0x887f_0000, Shape::LoadStoreXn, Effect::Exclusive),
    access(0x20fd, "ldaxp", 0xbfff_8000, 0x887f_8000, Shape::LoadStoreXn, Effect::Exclusive),
    access(0x20fe, "stxp", 0xbfe0_8000, 0x8820_0000, Shape::Exclusive, Effect::Exclusive),
    access(0x20ff, "stlxp", 0xbfe0_8000, 0x8820_8000, Shape::Exclusive, Effect::Exclusive),
    access(0x2100, "clrex", 0xffff_f0ff, 0xd503_305f, Shape::BarrierOption, Effect::Exclusive),
    // Acquire and release.
    access(0x2110, "ldarb", 0xffff_fc00, 0x08df_fc00, Shape::LoadStoreXn, Effect::LoadAcquire),
    access(0x2111, "ldarh", 0xffff_fc00, 0x48df_fc00, Shape::LoadStoreXn, Effect::LoadAcquire),
    access(0x2112, "ldar", 0xbfff_fc00, 0x88df_fc00, Shape::LoadStoreXn, Effect::LoadAcquire),
    access(0x2113, "ldaprb", 0xffff_fc00, 0x38bf_c000, Shape::LoadStoreXn, Effect::LoadAcquire),
    access(0x2114, "ldaprh", 0xffff_fc00, 0x78bf_c000, Shape::LoadStoreXn, Effect::LoadAcquire),
    access(0x2115, "ldapr", 0xbfff_fc00, 0xb8bf_c000, Shape::LoadStoreXn, Effect::LoadAcquire),
    access(0x2116, "stlrb", 0xffff_fc00, 0x089f_fc00, Shape::LoadStoreXn, Effect::StoreRelease),
    access(0x2117, "stlrh", 0xffff_fc00, 0x489f_fc00, Shape::LoadStoreXn, Effect::StoreRelease),
    access(0x2118, "stlr", 0xbfff_fc00, 0x889f_fc00, Shape::LoadStoreXn, Effect::StoreRelease),
    // Atomics, in every size and order (CASP takes even registers only); A (bit 23)
    // and R (bit 22), or L and o0, are in the word.
    access(0x2120, "swp", 0x3f20_fc00, 0x3820_8000, Shape::Exclusive, Effect::Atomic),
    access(0x2121, "ldadd", 0x3f20_fc00, 0x3820_0000, Shape::Exclusive, Effect::Atomic),
    access(0x2122, "ldclr", 0x3f20_fc00, 0x3820_1000, Shape::Exclusive, Effect::Atomic),
    access(0x2123, "ldeor", 0x3f20_fc00, 0x3820_2000, Shape::Exclusive, Effect::Atomic),
    access(0x2124, "ldset", 0x3f20_fc00, 0x3820_3000, Shape::Exclusive, Effect::Atomic),
    access(0x2125, "ldsmax", 0x3f20_fc00, 0x3820_4000, Shape::Exclusive, Effect::Atomic),
    access(0x2126, "ldsmin", 0x3f20_fc00, 0x3820_5000, Shape::Exclusive, Effect::Atomic),
    access(0x2127, "ldumax", 0x3f20_fc00, 0x3820_6000, Shape::Exclusive, Effect::Atomic),
    access(0x2128, "ldumin", 0x3f20_fc00, 0x3820_7000, Shape::Exclusive, Effect::Atomic),
    access(0x2129, "cas", 0x3fa0_7c00, 0x08a0_7c00, Shape::Exclusive, Effect::Atomic),
    access(0x212a, "casp", 0xbfa1_7c01, 0x0820_7c00, Shape::Exclusive, Effect::Atomic),
];
