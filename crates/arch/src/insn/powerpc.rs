//! Power rows, for 64- and 32-bit, either byte order.
//!
//! Sources: Power ISA Books I to III; encodings were compared with capstone where it knows the
//! instruction. Live patching: Book II 1.8.1 names I-form branches and the preferred no-op. Not in
//! the table: data cache hints and `dcbz` (a store), transactional memory, most prefixed
//! instructions (whose length [`super::word_insn_len`] gives). Reserved fields, which hardware
//! ignores, are fixed at zero in the barriers and returns: nobody writes them otherwise.

use super::row::{Family, LivePatch, OpId, PatchList, Pattern, Row, Shape};
use crate::cite::Cite;
use crate::effect::{Barrier, CacheScope, Domain, Effect, Flow, Reach, SyncCause, TlbScope, Wake};

const BOOK_I: Cite = Cite::read("Power ISA 3.1 Book I, text of the instruction");
const ILLEGAL: Cite = Cite::memory("Power ISA Book I: a word of zeros is no instruction");
const TRAP: Cite = Cite::read("Power ISA 3.1 Book I, text of tw, td, twi, tdi");
const CACHE: Cite = Cite::read("IBM 750GX UM 3.2; Linux 6.19 powerpc lib/code-patching.c");
const ISYNC: Cite = Cite::read("Power ISA 'isync' (paraphrase, 3.0 or later); 405 UM 9-70");
const SYNC: Cite = Cite::read("Power ISA 3.1 Book II, text of sync and eieio");
const PTESYNC: Cite = Cite::read("Power ISA 'tlbsync', 'tlbiel' (paraphrase); Linux 6.19 radix.h");
const CSI: Cite = Cite::read("Power ISA 2.03 Book III-S ch. 10 (context synchronising)");
const CSI_TEXT: Cite =
    Cite::read("Power ISA 3.1 Book III, text of scv, hrfid, rfscv, urfid, mtmsr and mtmsrd");
const TLB: Cite = Cite::read("Power ISA 'tlbie', 'tlbiel', 2.03 p. 456; Linux 6.19 radix_tlb.c");
const BOOK_III: Cite = Cite::memory("Power ISA Book III");
const SLB: Cite = Cite::read("Power ISA 3.1 Book III, text of the instruction");
const BOOK_II: Cite = Cite::read("Power ISA 3.1 Book II, text of the instruction");
const SPR: Cite = Cite::read("Power ISA 3.1 Book III, text of mtspr; Linux 6.18 powerpc asm/reg.h");
const PATCH: Cite = Cite::read("Power ISA 2.03 Book II 1.8.1 (patch class)");

const WORD: u32 = 0xffff_ffff;
/// Primary opcode 31 with an extended opcode in bits 10:1.
const fn x31(xo: u32) -> u32 {
    31 << 26 | xo << 1
}

const fn w(
    id: u16,
    name: &'static str,
    mask: u32,
    value: u32,
    shape: Shape,
    effect: Effect,
    cite: Cite,
) -> Row {
    Row::word(Family::Powerpc, OpId(id), name, (mask, value), shape, effect, cite)
}

const fn kernel(mut row: Row) -> Row {
    row.privileged = true;
    row
}

const fn form(mut row: Row, form: &'static str) -> Row {
    row.form = form;
    row
}

const fn patch_class(mut row: Row) -> Row {
    row.live_patchable = Some(LivePatch { list: PatchList::PatchClass, cite: PATCH });
    row
}

/// mtspr: the two halves of the register's number are swapped in the word.
const fn mtspr(id: u16, name: &'static str, spr: u32, effect: Effect) -> Row {
    let value = x31(467) | (spr & 31) << 16 | (spr >> 5) << 11;
    kernel(w(id, name, 0xfc1f_ffff, value, Shape::Rs, effect, SPR))
}

const fn branch(id: u16, name: &'static str, mask: u32, value: u32, shape: Shape) -> Row {
    w(id, name, mask, value, shape, Effect::Branch(Flow::Jump), BOOK_I)
}

const fn call(id: u16, name: &'static str, mask: u32, value: u32, shape: Shape) -> Row {
    Row { effect: Effect::Branch(Flow::Call), ..branch(id, name, mask, value, shape) }
}

const fn ret(id: u16, name: &'static str, mask: u32, value: u32, shape: Shape) -> Row {
    Row { effect: Effect::Branch(Flow::Return), ..branch(id, name, mask, value, shape) }
}

const fn sync(id: u16, name: &'static str, value: u32, kind: Barrier, cite: Cite) -> Row {
    w(id, name, WORD, value, Shape::None, Effect::Barrier(kind, Domain::System), cite)
}

const fn wait(id: u16, name: &'static str, wc: u32, wake: Wake) -> Row {
    w(id, name, 0xfffc_ffff, x31(30) | wc << 21, Shape::None, Effect::Wait(wake), BOOK_II)
}

const fn reserve(id: u16, name: &'static str, xo: u32) -> Row {
    w(id, name, 0xfc00_07fe, x31(xo), Shape::RtRaRb, Effect::Exclusive, BOOK_II)
}

const fn conditional(id: u16, name: &'static str, xo: u32) -> Row {
    w(id, name, 0xfc00_07ff, x31(xo) | 1, Shape::RtRaRb, Effect::Exclusive, BOOK_II)
}

const RA_RB: u32 = 0xffe0_07ff;
const CLEAN: Effect = Effect::CacheClean(CacheScope::Line);
const CONTEXT: Effect = Effect::ContextSync(SyncCause::Instruction);

/// The rows.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // Caches. icbi reaches every CPU; it takes the address that is executed.
    w(0x3001, "dcbst", RA_RB, x31(54), Shape::RaRb, CLEAN, CACHE),
    w(0x3002, "dcbf", RA_RB, x31(86), Shape::RaRb, CLEAN, CACHE),
    w(0x3003, "dcbfl", RA_RB, x31(86) | 1 << 21, Shape::RaRb, CLEAN, BOOK_II),
    w(0x3004, "dcbflp", RA_RB, x31(86) | 3 << 21, Shape::RaRb, CLEAN, BOOK_II),
    w(0x3005, "dcbfps", RA_RB, x31(86) | 4 << 21, Shape::RaRb, CLEAN, BOOK_II),
    w(0x3006, "dcbstps", RA_RB, x31(86) | 6 << 21, Shape::RaRb, CLEAN, BOOK_II),
    kernel(w(0x3007, "dcbi", RA_RB, x31(470), Shape::RaRb,
        Effect::CacheInvalidate(CacheScope::Line), BOOK_III)),
    w(0x3010, "icbi", RA_RB, x31(982), Shape::RaRb, Effect::IcacheInvalidate(CacheScope::Line,
        Reach::Broadcast), CACHE),
    // Barriers.
    sync(0x3020, "sync", 0x7c00_04ac, Barrier::Sync, SYNC),
    sync(0x3021, "lwsync", 0x7c20_04ac, Barrier::Lwsync, SYNC),
    kernel(sync(0x3022, "ptesync", 0x7c40_04ac, Barrier::Ptesync, PTESYNC)),
    sync(0x3023, "phwsync", 0x7c80_04ac, Barrier::Sync, SYNC),
    sync(0x3024, "plwsync", 0x7ca0_04ac, Barrier::Lwsync, SYNC),
    sync(0x3025, "eieio", 0x7c00_06ac, Barrier::Eieio, SYNC),
    kernel(sync(0x3026, "tlbsync", 0x7c00_046c, Barrier::Tlbsync, PTESYNC)),
    w(0x3028, "isync", WORD, 0x4c00_012c, Shape::None, CONTEXT, ISYNC),
    // Translations. RIC, PRS and R are operands; RIC 0 drops translations of one address, 2 all of
    // a process with its walk caches: the scope here is that of RIC 0.
    kernel(w(0x3030, "tlbie", 0xfc10_07ff, x31(306), Shape::Tlbie,
        Effect::TlbInvalidate(TlbScope::Address, Reach::Broadcast), TLB)),
    kernel(w(0x3031, "tlbiel", 0xfc10_07ff, x31(274), Shape::Tlbie,
        Effect::TlbInvalidate(TlbScope::Address, Reach::Local), TLB)),
    kernel(w(0x3032, "tlbia", WORD, x31(370), Shape::None, Effect::TlbInvalidate(TlbScope::All,
        Reach::Local), BOOK_III)),
    kernel(w(0x3033, "slbie", 0xffff_07ff, x31(434), Shape::RsRb,
        Effect::TlbInvalidate(TlbScope::Space, Reach::Local), SLB)),
    kernel(w(0x3034, "slbia", 0xff1f_ffff, x31(498), Shape::None,
        Effect::TlbInvalidate(TlbScope::All, Reach::Local), SLB)),
    kernel(w(0x3035, "slbieg", 0xfc1f_07ff, x31(466), Shape::RsRb,
        Effect::TlbInvalidate(TlbScope::Space, Reach::Broadcast), SLB)),
    kernel(w(0x3036, "slbmte", 0xfc1f_07ff, x31(402), Shape::RsRb, Effect::Control, SLB)),
    kernel(w(0x3037, "slbsync", WORD, x31(338), Shape::None, Effect::Barrier(Barrier::Tlbsync,
        Domain::System), SLB)),
    // Traps, calls into the kernel, returns.
    w(0x3040, "trap", WORD, 0x7fe0_0008, Shape::TrapRegs, Effect::Trap, TRAP),
    w(0x3041, "tw", 0xfc00_07ff, x31(4), Shape::TrapRegs, Effect::Trap, TRAP),
    w(0x3042, "td", 0xfc00_07ff, x31(68), Shape::TrapRegs, Effect::Trap, TRAP),
    w(0x3043, "twi", 0xfc00_0000, 3 << 26, Shape::TrapImm, Effect::Trap, TRAP),
    w(0x3044, "tdi", 0xfc00_0000, 2 << 26, Shape::TrapImm, Effect::Trap, TRAP),
    w(0x3045, "illegal", WORD, 0, Shape::None, Effect::Trap, ILLEGAL),
    w(0x3046, "attn", 0xfc00_07fe, 0x0000_0200, Shape::None, Effect::Trap, BOOK_III),
    w(0x3048, "sc", 0xfc00_0002, 0x4400_0002, Shape::Level, Effect::Trap, CSI),
    w(0x3049, "scv", 0xfc00_0003, 0x4400_0001, Shape::Level, Effect::Trap, CSI_TEXT),
    kernel(w(0x3050, "rfid", WORD, 0x4c00_0024, Shape::None, Effect::ExceptionReturn, CSI)),
    kernel(w(0x3051, "hrfid", WORD, 0x4c00_0224, Shape::None, Effect::ExceptionReturn, CSI_TEXT)),
    kernel(w(0x3052, "rfi", WORD, 0x4c00_0064, Shape::None, Effect::ExceptionReturn, CSI)),
    kernel(w(0x3053, "rfscv", WORD, 0x4c00_00a4, Shape::None, Effect::ExceptionReturn, CSI_TEXT)),
    kernel(w(0x3054, "urfid", WORD, 0x4c00_0264, Shape::None, Effect::ExceptionReturn, CSI_TEXT)),
    // Branches. LK is bit 0, AA bit 1.
    patch_class(branch(0x3060, "b", 0xfc00_0003, 0x4800_0000, Shape::BranchI)),
    patch_class(call(0x3061, "bl", 0xfc00_0003, 0x4800_0001, Shape::BranchI)),
    patch_class(branch(0x3062, "ba", 0xfc00_0003, 0x4800_0002, Shape::BranchI)),
    patch_class(call(0x3063, "bla", 0xfc00_0003, 0x4800_0003, Shape::BranchI)),
    branch(0x3064, "bc", 0xfc00_0003, 0x4000_0000, Shape::BranchB),
    call(0x3065, "bcl", 0xfc00_0003, 0x4000_0001, Shape::BranchB),
    branch(0x3066, "bca", 0xfc00_0003, 0x4000_0002, Shape::BranchB),
    call(0x3067, "bcla", 0xfc00_0003, 0x4000_0003, Shape::BranchB),
    ret(0x3068, "blr", WORD, 0x4e80_0020, Shape::BranchXl),
    branch(0x3069, "bctr", WORD, 0x4e80_0420, Shape::BranchXl),
    call(0x306a, "bctrl", WORD, 0x4e80_0421, Shape::BranchXl),
    ret(0x306b, "bclr", 0xfc00_e7ff, 0x4c00_0020, Shape::BranchXl),
    call(0x306c, "bclrl", 0xfc00_e7ff, 0x4c00_0021, Shape::BranchXl),
    branch(0x306d, "bcctr", 0xfc00_e7ff, 0x4c00_0420, Shape::BranchXl),
    call(0x306e, "bcctrl", 0xfc00_e7ff, 0x4c00_0421, Shape::BranchXl),
    branch(0x306f, "bctar", 0xfc00_e7ff, 0x4c00_0460, Shape::BranchXl),
    call(0x3070, "bctarl", 0xfc00_e7ff, 0x4c00_0461, Shape::BranchXl),
    // No-ops and waiting.
    patch_class(w(0x3078, "nop", WORD, 0x6000_0000, Shape::None, Effect::Nop, BOOK_I)),
    w(0x3079, "xnop", WORD, 0x6800_0000, Shape::None, Effect::Nop, BOOK_I),
    Row {
        id: OpId(0x307a),
        pattern: Pattern::Prefixed { prefix_mask: WORD, prefix: 0x0700_0000, mask: WORD, value: 0 },
        ..w(0, "pnop", 0, 0, Shape::None, Effect::Nop, BOOK_I)
    },
    // By WC; PL is for pauses, and WC = 3 is reserved.
    wait(0x307b, "wait", 0, Wake::Interrupt),
    wait(0x307d, "waitrsv", 1, Wake::Reservation),
    wait(0x307e, "pause_short", 2, Wake::Anything),
    kernel(w(0x307c, "stop", WORD, 0x4c00_02e4, Shape::None, Effect::Wait(Wake::Interrupt), SLB)),
    // Machine state and translation control.
    form(kernel(w(0x3080, "mtmsrd", 0xfc01_07fe, x31(178), Shape::Rs, CONTEXT, CSI_TEXT)), "L=0"),
    form(kernel(w(0x3081, "mtmsrd", 0xfc01_07fe, x31(178) | 1 << 16, Shape::Rs, Effect::Control,
        CSI_TEXT)), "L=1"),
    form(kernel(w(0x3082, "mtmsr", 0xfc01_07fe, x31(146), Shape::Rs, CONTEXT, CSI_TEXT)), "L=0"),
    form(kernel(w(0x3083, "mtmsr", 0xfc01_07fe, x31(146) | 1 << 16, Shape::Rs, Effect::Control,
        CSI_TEXT)), "L=1"),
    mtspr(0x3088, "mtspr pid", 48, Effect::SpaceSwitch),
    mtspr(0x3089, "mtspr lpidr", 319, Effect::SpaceSwitch),
    mtspr(0x308a, "mtspr lpcr", 318, Effect::Control),
    mtspr(0x308b, "mtspr ptcr", 464, Effect::Control),
    mtspr(0x308c, "mtspr sdr1", 25, Effect::Control),
    mtspr(0x308d, "mtspr amr", 29, Effect::Control),
    mtspr(0x308e, "mtspr iamr", 61, Effect::Control),
    kernel(w(0x3090, "mtsr", 0xfc00_07fe, x31(210), Shape::Rs, Effect::Control, BOOK_III)),
    kernel(w(0x3091, "mtsrin", 0xfc00_07fe, x31(242), Shape::RsRb, Effect::Control, BOOK_III)),
    kernel(w(0x3092, "mtspr bat", 0xfc10_ffff, x31(467) | 1 << 20 | 16 << 11, Shape::Rs,
        Effect::Control, BOOK_III)),
    // Reservations.
    reserve(0x30a0, "lwarx", 20),
    reserve(0x30a1, "ldarx", 84),
    reserve(0x30a2, "lbarx", 52),
    reserve(0x30a3, "lharx", 116),
    reserve(0x30a4, "lqarx", 276),
    conditional(0x30a8, "stwcx.", 150),
    conditional(0x30a9, "stdcx.", 214),
    conditional(0x30aa, "stbcx.", 694),
    conditional(0x30ab, "sthcx.", 726),
    conditional(0x30ac, "stqcx.", 182),
];
