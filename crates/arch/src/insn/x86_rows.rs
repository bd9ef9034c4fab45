//! x86-64 rows.
//!
//! Sources: Intel SDM vol 2 for encodings (compared with capstone and iced), SDM 3A 8.3 / 10.3 and
//! AMD APM vol 2 7.6.4 for what serialises, 4.10.4 and 5.5 for what invalidates. Not in the table:
//! VEX and EVEX forms (also of the non-temporal stores), moves from control registers, string
//! instructions, transactions, SGX, SMX.

use super::row::{
    Family, Imm, Lock, Mandatory, ModRm, OpId, OpcodeMap, Pattern, Row, Serialising, Shape,
    X86Pattern,
};
use crate::cite::Cite;
use crate::effect::{Barrier, CacheScope, Domain, Effect, Flow, Reach, SyncCause, TlbScope, Wake};

const JUMP: Effect = Effect::Branch(Flow::Jump);
const CALL: Effect = Effect::Branch(Flow::Call);
const RETURN: Effect = Effect::Branch(Flow::Return);
const VOL2: Cite = Cite::read("Intel SDM vol 2, page of the instruction");
const NO_PAGE: Cite = Cite::memory("APM vol 3 or Intel SDM vol 2; the page was not found");
const LMSW: Cite = Cite::read("Intel SDM 2A LMSW; not in SDM 3A 8.3 nor APM vol 2 7.6.4");
const SERIAL: Cite = Cite::read("SDM 3A 8.3 (325384-059); APM vol 2 7.6.4 (24593 rev 3.44)");
const SERIAL_INTEL: Cite = Cite::read("SDM 3A 8.3 (325384-059), 10.3; not in APM vol 2 7.6.4");
const SERIALIZE: Cite = Cite::read("SDM 2B SERIALIZE, 3A 10.3; not in APM vol 2 7.6.4");
const INVALIDATE: Cite = Cite::read("SDM 3A 4.10.4.1 (325384-059); APM vol 2 5.5.3");
const INVPCID: Cite = Cite::read("SDM 3A 4.10.4.1, 4.10.4.3 (325384-059); not in APM vol 2 7.6.4");
const BROADCAST: Cite = Cite::read("APM vol 2 5.5.3 (24593 rev 3.44); Linux 6.19 x86 tlb.h");
const FENCE: Cite = Cite::read("SDM 3A 8.2.2, 8.3 (325384-059); APM vol 2 7.6.3, 7.6.4");
const LOCKED: Cite = Cite::read("SDM 3A 8.1.2.2 (325384-059): no means to make stores fetchable");
const NOT_SERIAL: Cite = Cite::read("SDM 3A 8.3 by omission; Linux 6.19 sync_core.h");
const UNKNOWN_SERIAL: Cite =
    Cite::memory("FRED returns: in no list of serialising instructions seen");
const NONTEMPORAL: Cite = Cite::read("SDM 3A 8.2.2 (325384-059)");

/// A pattern with nothing but an opcode of a map.
const fn op(map: OpcodeMap, opcode: u8) -> X86Pattern {
    X86Pattern {
        mandatory: Mandatory::Any,
        map,
        opcode,
        mask: 0xff,
        modrm: ModRm::Absent,
        rex_w: None,
        lock: Lock::Absent,
        imm: Imm::None,
        near_branch: false,
        no_rex_b: false,
    }
}

const fn one(opcode: u8) -> X86Pattern {
    op(OpcodeMap::Primary, opcode)
}

const fn of(opcode: u8) -> X86Pattern {
    op(OpcodeMap::Of, opcode)
}

/// 0F 01 or 0F AE and the like with all of ModRM fixed, without 66, F2 and F3.
const fn fixed(opcode: u8, modrm: u8) -> X86Pattern {
    X86Pattern { mandatory: Mandatory::None, modrm: ModRm::Fixed(modrm), ..of(opcode) }
}

const fn with(p: X86Pattern, modrm: ModRm) -> X86Pattern {
    X86Pattern { modrm, ..p }
}

const fn prefix(p: X86Pattern, mandatory: Mandatory) -> X86Pattern {
    X86Pattern { mandatory, ..p }
}

const fn imm(p: X86Pattern, imm: Imm) -> X86Pattern {
    X86Pattern { imm, ..p }
}

const fn wide(p: X86Pattern, w: bool) -> X86Pattern {
    X86Pattern { rex_w: Some(w), ..p }
}

const fn near(p: X86Pattern) -> X86Pattern {
    X86Pattern { near_branch: true, ..p }
}

/// Locked read-modify-write of memory; bit 0 of the opcode is the operand's width.
const fn locked(p: X86Pattern, modrm: ModRm) -> X86Pattern {
    X86Pattern { lock: Lock::Required, modrm, mask: 0xfe, ..p }
}

const fn exact(p: X86Pattern) -> X86Pattern {
    X86Pattern { mask: 0xff, ..p }
}

const fn x(
    id: u16,
    name: &'static str,
    p: X86Pattern,
    shape: Shape,
    effect: Effect,
    cite: Cite,
) -> Row {
    Row {
        id: OpId(id),
        family: Family::X86,
        name,
        form: "",
        pattern: Pattern::X86(p),
        shape,
        effect,
        live_patchable: None,
        serialising: Serialising::NO,
        privileged: false,
        cite,
    }
}

const fn form(mut row: Row, form: &'static str) -> Row {
    row.form = form;
    row
}

const fn kernel(mut row: Row) -> Row {
    row.privileged = true;
    row
}

const fn serial(mut row: Row, by: Serialising) -> Row {
    row.serialising = by;
    row
}

/// Privileged and serialising for both vendors.
const fn serial_kernel(row: Row) -> Row {
    kernel(serial(row, Serialising::BOTH))
}

const fn jcc(id: u16, short: bool, condition: u8, name: &'static str) -> Row {
    let p = if short {
        imm(one(0x70 | condition), Imm::Rel8)
    } else {
        imm(of(0x80 | condition), Imm::Rel32)
    };
    let row = x(id | condition as u16, name, p, Shape::X86Rel, JUMP, VOL2);
    form(row, if short { "rel8" } else { "rel32" })
}

const fn lock(id: u16, name: &'static str, p: X86Pattern, shape: Shape) -> Row {
    x(id, name, p, shape, LOCK, LOCKED)
}

/// `op [m], imm` with a lock: 80 (imm8), 81 (imm), 83 (signed imm8).
const fn lock_imm(id: u16, name: &'static str, ext: u8, opcode: u8) -> Row {
    let size = if opcode == 0x81 { Imm::Iz } else { Imm::I8 };
    let p = exact(locked(imm(one(opcode), size), ModRm::MemoryExt(ext)));
    let text = match opcode {
        0x80 => "m8, imm8",
        0x81 => "m, imm",
        _ => "m, imm8",
    };
    form(lock(id, name, p, Shape::X86Rm), text)
}

const fn fence(kind: Barrier) -> Effect {
    Effect::Barrier(kind, Domain::System)
}

const LOCK: Effect = fence(Barrier::Mfence);
const SYNC: Effect = Effect::ContextSync(SyncCause::Serialising);
const INVLPG: Effect = Effect::TlbInvalidate(TlbScope::Address, Reach::Local);
const NT: Effect = Effect::NonTemporalStore;
const NO_REPEAT: Mandatory = Mandatory::NoRepeat;
use ModRm::{AnyExt, ForcedRegister, ForcedRegisterExt, Memory, MemoryExt, RegisterExt};
use Shape::{X86Imm, X86None, X86RegRm, X86Rel, X86Rm, X86SysReg};

/// The rows.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // Serialising instructions. WRMSR has exceptions by register.
    serial(x(0x1001, "cpuid", of(0xa2), X86None, SYNC, SERIAL), Serialising::BOTH),
    serial(x(0x1002, "serialize", fixed(0x01, 0xe8), X86None, SYNC, SERIALIZE), Serialising::INTEL),
    serial(x(0x1003, "iretq", wide(one(0xcf), true), X86None, Effect::ExceptionReturn, SERIAL),
        Serialising::BOTH),
    serial(x(0x1004, "iretd", wide(X86Pattern { mandatory: Mandatory::None, ..one(0xcf) }, false),
        X86None, Effect::ExceptionReturn, SERIAL), Serialising::BOTH),
    serial(x(0x1005, "iret", wide(prefix(one(0xcf), Mandatory::P66), false), X86None,
        Effect::ExceptionReturn, SERIAL), Serialising::BOTH),
    serial_kernel(x(0x1006, "rsm", prefix(of(0xaa), NO_REPEAT), X86None, Effect::ExceptionReturn,
        SERIAL)),
    serial_kernel(x(0x1007, "invd", of(0x08), X86None, Effect::CacheInvalidate(CacheScope::All),
        SERIAL)),
    serial_kernel(x(0x1008, "wbinvd", prefix(of(0x09), NO_REPEAT), X86None,
        Effect::CacheClean(CacheScope::All), SERIAL)),
    kernel(serial(x(0x1009, "wbnoinvd", prefix(of(0x09), Mandatory::Pf3), X86None,
        Effect::CacheClean(CacheScope::All), SERIAL), Serialising::AMD)),
    serial_kernel(x(0x100a, "lgdt", with(of(0x01), MemoryExt(2)), X86Rm, SYNC, SERIAL)),
    serial_kernel(x(0x100b, "lidt", with(of(0x01), MemoryExt(3)), X86Rm, SYNC, SERIAL)),
    serial_kernel(x(0x100c, "lldt", with(of(0x00), AnyExt(2)), X86Rm, SYNC, SERIAL)),
    serial_kernel(x(0x100d, "ltr", with(of(0x00), AnyExt(3)), X86Rm, SYNC, SERIAL)),
    serial_kernel(x(0x100e, "wrmsr", prefix(of(0x30), NO_REPEAT), X86None, Effect::Control,
        SERIAL)),
    kernel(x(0x100f, "wrmsrns", fixed(0x01, 0xc6), X86None, Effect::Control, NO_PAGE)),
    // Control registers. CR8 (the task priority) is an exception in Intel's list alone.
    serial_kernel(x(0x1010, "mov cr0", with(of(0x22), ForcedRegisterExt(0)), X86SysReg,
        Effect::Control, SERIAL)),
    serial_kernel(x(0x1011, "mov cr2", with(of(0x22), ForcedRegisterExt(2)), X86SysReg, SYNC,
        SERIAL)),
    serial_kernel(x(0x1012, "mov cr3", with(of(0x22), ForcedRegisterExt(3)), X86SysReg,
        Effect::SpaceSwitch, SERIAL)),
    serial_kernel(x(0x1013, "mov cr4", with(of(0x22), ForcedRegisterExt(4)), X86SysReg,
        Effect::Control, SERIAL)),
    kernel(serial(x(0x1014, "mov cr8", with(of(0x22), ForcedRegisterExt(8)), X86SysReg,
        Effect::Control, SERIAL), Serialising::AMD)),
    serial_kernel(x(0x1015, "mov dr", with(of(0x23), ForcedRegister), X86SysReg, SYNC, SERIAL)),
    kernel(serial(x(0x1016, "lmsw", with(of(0x01), AnyExt(6)), X86Rm, Effect::Control, LMSW),
        Serialising::INTEL)),
    // Translations.
    serial_kernel(x(0x1020, "invlpg", with(of(0x01), MemoryExt(7)), X86Rm, INVLPG, SERIAL)),
    kernel(serial(x(0x1021, "invpcid", with(prefix(op(OpcodeMap::Of38, 0x82), Mandatory::P66),
        Memory), X86RegRm, INVLPG, INVPCID), Serialising::INTEL)),
    kernel(x(0x1022, "invlpgb", fixed(0x01, 0xfe), X86None, Effect::TlbInvalidate(TlbScope::Address,
        Reach::Broadcast), BROADCAST)),
    kernel(x(0x1023, "tlbsync", fixed(0x01, 0xff), X86None, fence(Barrier::Tlbsync), BROADCAST)),
    kernel(serial(x(0x1024, "invept", with(prefix(op(OpcodeMap::Of38, 0x80), Mandatory::P66),
        Memory), X86RegRm, Effect::TlbInvalidate(TlbScope::All, Reach::Local), SERIAL_INTEL),
        Serialising::INTEL)),
    kernel(serial(x(0x1025, "invvpid", with(prefix(op(OpcodeMap::Of38, 0x81), Mandatory::P66),
        Memory), X86RegRm, Effect::TlbInvalidate(TlbScope::All, Reach::Local), SERIAL_INTEL),
        Serialising::INTEL)),
    kernel(x(0x1026, "invlpga", prefix(fixed(0x01, 0xdf), Mandatory::Any), X86None, INVLPG,
        INVALIDATE)),
    // Fences. MFENCE serialises on AMD only; LFENCE at most stops dispatch.
    serial(x(0x1030, "mfence", with(prefix(of(0xae), Mandatory::None), RegisterExt(6)), X86None,
        fence(Barrier::Mfence), FENCE), Serialising::AMD),
    x(0x1031, "lfence", with(prefix(of(0xae), Mandatory::None), RegisterExt(5)), X86None,
        fence(Barrier::Lfence), FENCE),
    x(0x1032, "sfence", with(prefix(of(0xae), Mandatory::None), RegisterExt(7)), X86None,
        fence(Barrier::Sfence), FENCE),
    // Data caches: instruction fetch is coherent, so these matter for devices and memory only.
    x(0x1038, "clflush", with(prefix(of(0xae), Mandatory::None), MemoryExt(7)), X86Rm,
        Effect::CacheClean(CacheScope::Line), VOL2),
    x(0x1039, "clflushopt", with(prefix(of(0xae), Mandatory::P66), MemoryExt(7)), X86Rm,
        Effect::CacheClean(CacheScope::Line), VOL2),
    x(0x103a, "clwb", with(prefix(of(0xae), Mandatory::P66), MemoryExt(6)), X86Rm,
        Effect::CacheClean(CacheScope::Line), VOL2),
    // Traps and system calls.
    x(0x1040, "int3", one(0xcc), X86None, Effect::Trap, VOL2),
    x(0x1041, "int", imm(one(0xcd), Imm::I8), X86Imm, Effect::Trap, VOL2),
    x(0x1042, "int1", one(0xf1), X86None, Effect::Trap, VOL2),
    x(0x1043, "ud2", of(0x0b), X86None, Effect::Trap, VOL2),
    x(0x1044, "ud1", with(of(0xb9), ModRm::Any), X86RegRm, Effect::Trap, VOL2),
    x(0x1045, "ud0", with(of(0xff), ModRm::Any), X86RegRm, Effect::Trap, VOL2),
    x(0x1046, "syscall", of(0x05), X86None, Effect::Trap, VOL2),
    x(0x1047, "sysenter", of(0x34), X86None, Effect::Trap, VOL2),
    x(0x1048, "vmcall", fixed(0x01, 0xc1), X86None, Effect::Trap, VOL2),
    x(0x1049, "vmmcall", prefix(fixed(0x01, 0xd9), NO_REPEAT), X86None, Effect::Trap, NO_PAGE),
    kernel(x(0x104a, "vmlaunch", fixed(0x01, 0xc2), X86None, Effect::Trap, VOL2)),
    kernel(x(0x104b, "vmresume", fixed(0x01, 0xc3), X86None, Effect::Trap, VOL2)),
    kernel(x(0x104c, "vmrun", prefix(fixed(0x01, 0xd8), Mandatory::Any), X86None, Effect::Trap,
        NO_PAGE)),
    // Returns that do not serialise, and those of FRED, of which nothing was found.
    kernel(form(x(0x1050, "sysret", wide(of(0x07), true), X86None, Effect::ExceptionReturn,
        NOT_SERIAL), "64-bit")),
    kernel(form(x(0x1051, "sysret", wide(of(0x07), false), X86None, Effect::ExceptionReturn,
        NOT_SERIAL), "32-bit")),
    kernel(form(x(0x1052, "sysexit", wide(of(0x35), true), X86None, Effect::ExceptionReturn,
        NOT_SERIAL), "64-bit")),
    kernel(form(x(0x1053, "sysexit", wide(of(0x35), false), X86None, Effect::ExceptionReturn,
        NOT_SERIAL), "32-bit")),
    kernel(x(0x1054, "erets", with(prefix(of(0x01), Mandatory::Pf2), ModRm::Fixed(0xca)), X86None,
        Effect::ExceptionReturn, UNKNOWN_SERIAL)),
    kernel(x(0x1055, "eretu", with(prefix(of(0x01), Mandatory::Pf3), ModRm::Fixed(0xca)), X86None,
        Effect::ExceptionReturn, UNKNOWN_SERIAL)),
    // No-ops and waiting. F3 90 is PAUSE; 90 with REX.B is XCHG.
    form(x(0x1060, "nop", X86Pattern { no_rex_b: true, mandatory: NO_REPEAT, ..one(0x90) }, X86None,
        Effect::Nop, VOL2), "90"),
    form(x(0x1061, "nop", with(of(0x1f), AnyExt(0)), X86Rm, Effect::Nop, VOL2), "0F 1F"),
    x(0x1062, "pause", X86Pattern { no_rex_b: true, mandatory: Mandatory::Pf3, ..one(0x90) },
        X86None, Effect::Wait(Wake::Anything), VOL2),
    kernel(x(0x1063, "hlt", one(0xf4), X86None, Effect::Wait(Wake::Taken), VOL2)),
    kernel(x(0x1064, "monitor", fixed(0x01, 0xc8), X86None, Effect::Watch, VOL2)),
    kernel(x(0x1065, "mwait", fixed(0x01, 0xc9), X86None, Effect::Wait(Wake::Line), VOL2)),
    x(0x1066, "monitorx", fixed(0x01, 0xfa), X86None, Effect::Watch, NO_PAGE),
    x(0x1067, "mwaitx", fixed(0x01, 0xfb), X86None, Effect::Wait(Wake::Line), NO_PAGE),
    x(0x1068, "endbr64", with(prefix(of(0x1e), Mandatory::Pf3), ModRm::Fixed(0xfa)), X86None,
        Effect::Nop, VOL2),
    // Branches.
    form(x(0x1070, "jmp", imm(one(0xe9), Imm::Rel32), X86Rel, JUMP, VOL2), "rel32"),
    form(x(0x1071, "jmp", imm(one(0xeb), Imm::Rel8), X86Rel, JUMP, VOL2), "rel8"),
    form(x(0x1072, "jmp", near(with(one(0xff), AnyExt(4))), X86Rm, JUMP, VOL2), "r/m64"),
    form(x(0x1073, "jmp", with(one(0xff), MemoryExt(5)), X86Rm, JUMP, VOL2), "far m"),
    form(x(0x1074, "call", imm(one(0xe8), Imm::Rel32), X86Rel, CALL, VOL2), "rel32"),
    form(x(0x1075, "call", near(with(one(0xff), AnyExt(2))), X86Rm, CALL, VOL2), "r/m64"),
    form(x(0x1076, "call", with(one(0xff), MemoryExt(3)), X86Rm, CALL, VOL2), "far m"),
    form(x(0x1077, "ret", near(one(0xc3)), X86None, RETURN, VOL2), ""),
    form(x(0x1078, "ret", near(imm(one(0xc2), Imm::I16)), X86Imm, RETURN, VOL2), "imm16"),
    form(x(0x1079, "retf", one(0xcb), X86None, RETURN, VOL2), ""),
    form(x(0x107a, "retf", imm(one(0xca), Imm::I16), X86Imm, RETURN, VOL2), "imm16"),
    x(0x107b, "loopne", imm(one(0xe0), Imm::Rel8), X86Rel, JUMP, VOL2),
    x(0x107c, "loope", imm(one(0xe1), Imm::Rel8), X86Rel, JUMP, VOL2),
    x(0x107d, "loop", imm(one(0xe2), Imm::Rel8), X86Rel, JUMP, VOL2),
    x(0x107e, "jrcxz", imm(one(0xe3), Imm::Rel8), X86Rel, JUMP, VOL2),
    jcc(0x1080, false, 0, "jo"), jcc(0x1080, false, 1, "jno"), jcc(0x1080, false, 2, "jb"),
        jcc(0x1080, false, 3, "jae"),
    jcc(0x1080, false, 4, "je"), jcc(0x1080, false, 5, "jne"), jcc(0x1080, false, 6, "jbe"),
        jcc(0x1080, false, 7, "ja"),
    jcc(0x1080, false, 8, "js"), jcc(0x1080, false, 9, "jns"), jcc(0x1080, false, 10, "jp"),
        jcc(0x1080, false, 11, "jnp"),
    jcc(0x1080, false, 12, "jl"), jcc(0x1080, false, 13, "jge"), jcc(0x1080, false, 14, "jle"),
        jcc(0x1080, false, 15, "jg"),
    jcc(0x1090, true, 0, "jo"), jcc(0x1090, true, 1, "jno"), jcc(0x1090, true, 2, "jb"), jcc(0x1090,
        true, 3, "jae"),
    jcc(0x1090, true, 4, "je"), jcc(0x1090, true, 5, "jne"), jcc(0x1090, true, 6, "jbe"),
        jcc(0x1090, true, 7, "ja"),
    jcc(0x1090, true, 8, "js"), jcc(0x1090, true, 9, "jns"), jcc(0x1090, true, 10, "jp"),
        jcc(0x1090, true, 11, "jnp"),
    jcc(0x1090, true, 12, "jl"), jcc(0x1090, true, 13, "jge"), jcc(0x1090, true, 14, "jle"),
        jcc(0x1090, true, 15, "jg"),
    // Locked instructions: full barriers for data, nothing for fetches.
    form(lock(0x10a0, "lock add", locked(one(0x00), Memory), X86RegRm), "m, r"),
    form(lock(0x10a1, "lock or", locked(one(0x08), Memory), X86RegRm), "m, r"),
    form(lock(0x10a2, "lock adc", locked(one(0x10), Memory), X86RegRm), "m, r"),
    form(lock(0x10a3, "lock sbb", locked(one(0x18), Memory), X86RegRm), "m, r"),
    form(lock(0x10a4, "lock and", locked(one(0x20), Memory), X86RegRm), "m, r"),
    form(lock(0x10a5, "lock sub", locked(one(0x28), Memory), X86RegRm), "m, r"),
    form(lock(0x10a6, "lock xor", locked(one(0x30), Memory), X86RegRm), "m, r"),
    lock_imm(0x10b0, "lock add", 0, 0x80), lock_imm(0x10b1, "lock or", 1, 0x80), lock_imm(0x10b2,
        "lock adc", 2, 0x80),
    lock_imm(0x10b3, "lock sbb", 3, 0x80), lock_imm(0x10b4, "lock and", 4, 0x80), lock_imm(0x10b5,
        "lock sub", 5, 0x80),
    lock_imm(0x10b6, "lock xor", 6, 0x80),
    lock_imm(0x10b8, "lock add", 0, 0x81), lock_imm(0x10b9, "lock or", 1, 0x81), lock_imm(0x10ba,
        "lock adc", 2, 0x81),
    lock_imm(0x10bb, "lock sbb", 3, 0x81), lock_imm(0x10bc, "lock and", 4, 0x81), lock_imm(0x10bd,
        "lock sub", 5, 0x81),
    lock_imm(0x10be, "lock xor", 6, 0x81),
    lock_imm(0x10c0, "lock add", 0, 0x83), lock_imm(0x10c1, "lock or", 1, 0x83), lock_imm(0x10c2,
        "lock adc", 2, 0x83),
    lock_imm(0x10c3, "lock sbb", 3, 0x83), lock_imm(0x10c4, "lock and", 4, 0x83), lock_imm(0x10c5,
        "lock sub", 5, 0x83),
    lock_imm(0x10c6, "lock xor", 6, 0x83),
    lock(0x10d0, "lock not", locked(one(0xf6), MemoryExt(2)), X86Rm),
    lock(0x10d1, "lock neg", locked(one(0xf6), MemoryExt(3)), X86Rm),
    lock(0x10d2, "lock inc", locked(one(0xfe), MemoryExt(0)), X86Rm),
    lock(0x10d3, "lock dec", locked(one(0xfe), MemoryExt(1)), X86Rm),
    lock(0x10d4, "xchg", X86Pattern { lock: Lock::Allowed, ..locked(one(0x86), Memory) }, X86RegRm),
    form(lock(0x10d5, "lock bts", exact(locked(of(0xab), Memory)), X86RegRm), "m, r"),
    form(lock(0x10d6, "lock btr", exact(locked(of(0xb3), Memory)), X86RegRm), "m, r"),
    form(lock(0x10d7, "lock btc", exact(locked(of(0xbb), Memory)), X86RegRm), "m, r"),
    form(lock(0x10d8, "lock bts", exact(locked(imm(of(0xba), Imm::I8), MemoryExt(5))), X86Rm),
        "m, imm8"),
    form(lock(0x10d9, "lock btr", exact(locked(imm(of(0xba), Imm::I8), MemoryExt(6))), X86Rm),
        "m, imm8"),
    form(lock(0x10da, "lock btc", exact(locked(imm(of(0xba), Imm::I8), MemoryExt(7))), X86Rm),
        "m, imm8"),
    lock(0x10db, "lock cmpxchg", locked(of(0xb0), Memory), X86RegRm),
    lock(0x10dc, "lock xadd", locked(of(0xc0), Memory), X86RegRm),
    lock(0x10dd, "lock cmpxchg8b", wide(exact(locked(of(0xc7), MemoryExt(1))), false), X86Rm),
    lock(0x10de, "lock cmpxchg16b", wide(exact(locked(of(0xc7), MemoryExt(1))), true), X86Rm),
    // Non-temporal stores: other stores may pass them until SFENCE.
    x(0x10e0, "movnti", with(prefix(of(0xc3), Mandatory::None), Memory), X86RegRm, NT, NONTEMPORAL),
    x(0x10e1, "movntps", with(prefix(of(0x2b), Mandatory::None), Memory), X86RegRm, NT,
        NONTEMPORAL),
    x(0x10e2, "movntpd", with(prefix(of(0x2b), Mandatory::P66), Memory), X86RegRm, NT, NONTEMPORAL),
    x(0x10e3, "movntq", with(prefix(of(0xe7), Mandatory::None), Memory), X86RegRm, NT, NONTEMPORAL),
    x(0x10e4, "movntdq", with(prefix(of(0xe7), Mandatory::P66), Memory), X86RegRm, NT, NONTEMPORAL),
    x(0x10e5, "maskmovq", with(prefix(of(0xf7), Mandatory::None), ModRm::Register), X86RegRm, NT,
        NONTEMPORAL),
    x(0x10e6, "maskmovdqu", with(prefix(of(0xf7), Mandatory::P66), ModRm::Register), X86RegRm, NT,
        NONTEMPORAL),
];
