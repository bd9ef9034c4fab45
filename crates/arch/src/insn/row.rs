//! A row of the instruction table: encoding, operands, effect, source.

use crate::cite::Cite;
use crate::effect::{Effect, Flow};
use crate::features::Features;
use crate::isa::Arch;

/// Number of a row, the same in every version: it is written into event files. The top four bits
/// are the family (1 x86, 2 arm64, 3 powerpc). A number is never used again for another
/// instruction.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct OpId(pub u16);

impl OpId {
    /// No instruction.
    pub const NONE: OpId = OpId(0);
}

/// Instruction sets; every Power shares one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// x86-64, 64-bit mode.
    X86,
    /// AArch64.
    Arm64,
    /// Power.
    Powerpc,
}

impl Family {
    /// The instruction set of an architecture.
    #[must_use]
    pub const fn of(arch: Arch) -> Family {
        match arch {
            Arch::X86_64 => Family::X86,
            Arch::Arm64 => Family::Arm64,
            Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => Family::Powerpc,
        }
    }
}

/// A row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Row {
    /// Its number.
    pub id: OpId,
    /// Its instruction set.
    pub family: Family,
    /// The manual's spelling in lower case: the mnemonic, with the operation where the mnemonic
    /// alone names a group (`dc cvau`, `dsb ish`, `mov cr3`).
    pub name: &'static str,
    /// What tells apart encodings of one name (`rel8`, `m64`, `imm`); may be empty.
    pub form: &'static str,
    /// How it is encoded.
    pub pattern: Pattern,
    /// How the operands are encoded.
    pub shape: Shape,
    /// What it does besides serialising. Whether an x86 instruction also synchronises context is
    /// [`Row::serialises`], which depends on the vendor.
    pub effect: Effect,
    /// Whether, and by which list, it may be modified while another CPU executes it.
    pub live_patchable: Option<LivePatch>,
    /// Whether it is a serialising instruction (x86), by vendor.
    pub serialising: Serialising,
    /// Whether it may be executed at kernel privilege only.
    pub privileged: bool,
    /// Where effect and encoding are defined.
    pub cite: Cite,
}

impl Row {
    /// A row of an instruction set of 32-bit words, by mask and value, that nothing qualifies.
    pub(super) const fn word(
        family: Family,
        id: OpId,
        name: &'static str,
        (mask, value): (u32, u32),
        shape: Shape,
        effect: Effect,
        cite: Cite,
    ) -> Row {
        Row {
            id,
            family,
            name,
            form: "",
            pattern: Pattern::Word { mask, value },
            shape,
            effect,
            live_patchable: None,
            serialising: Serialising::NO,
            privileged: false,
            cite,
        }
    }

    /// Whether it may be modified while another CPU executes it, by the list as of `revision`
    /// (arm64) or by the patch class (Power).
    #[must_use]
    pub fn live_patchable_as_of(&self, revision: CmodxRevision) -> bool {
        self.live_patchable.is_some_and(|patch| match patch.list {
            PatchList::Cmodx(since) => since <= revision,
            PatchList::PatchClass => true,
        })
    }

    /// Whether this instruction serialises under the vendor in `features` (x86). WRMSR depends on
    /// its register: see [`super::msr_write_serialises`].
    #[must_use]
    pub fn serialises(&self, features: Features) -> bool {
        if features.contains(Features::X86_AMD) {
            self.serialising.amd
        } else {
            self.serialising.intel
        }
    }

    /// Whether it is a return, from a function or an exception. Landing pads are asked of indirect
    /// jumps and calls alone (Intel SDM 1, 17.3: near indirect CALL and JMP; Arm ARM D8.4: BTYPE is
    /// 0 after RET).
    #[must_use]
    pub fn is_return(&self) -> bool {
        matches!(self.effect, Effect::Branch(Flow::Return) | Effect::ExceptionReturn)
    }

    /// Name and form, as a diagnostic prints them.
    #[must_use]
    pub fn title(&self) -> String {
        if self.form.is_empty() {
            self.name.to_owned()
        } else {
            format!("{} ({})", self.name, self.form)
        }
    }
}

/// How a row is encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// A 32-bit word: `word & mask == value`.
    Word {
        /// Bits that are fixed.
        mask: u32,
        /// Their values.
        value: u32,
    },
    /// A prefixed Power instruction: two words, prefix first.
    Prefixed {
        /// Fixed bits of the prefix.
        prefix_mask: u32,
        /// Their values.
        prefix: u32,
        /// Fixed bits of the suffix.
        mask: u32,
        /// Their values.
        value: u32,
    },
    /// An x86 instruction.
    X86(X86Pattern),
}

/// x86 opcode maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpcodeMap {
    /// One-byte opcodes.
    Primary,
    /// After 0F.
    Of,
    /// After 0F 38.
    Of38,
}

/// What an x86 row demands of the prefixes 66, F2 and F3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mandatory {
    /// They may be there; they change nothing that matters here.
    Any,
    /// None of 66, F2, F3.
    None,
    /// 66 and neither F2 nor F3.
    P66,
    /// F2 (the last of F2 and F3 counts).
    Pf2,
    /// F3 (the last of F2 and F3 counts).
    Pf3,
    /// Neither F2 nor F3; 66 may be there.
    NoRepeat,
}

/// What follows an x86 opcode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ModRm {
    /// No ModRM byte.
    Absent,
    /// Memory form, any register field.
    Memory,
    /// Register form, any register field.
    Register,
    /// Either form, any register field.
    Any,
    /// Memory form with this register field (`/n`).
    MemoryExt(u8),
    /// Register form with this register field and any r/m.
    RegisterExt(u8),
    /// Either form with this register field.
    AnyExt(u8),
    /// Exactly this byte.
    Fixed(u8),
    /// The mod field is ignored and taken as 3 (MOV to and from CR and DR); any register field.
    ForcedRegister,
    /// As [`ModRm::ForcedRegister`], with this register field, REX.R counted.
    ForcedRegisterExt(u8),
}

/// Encoding of an x86 row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct X86Pattern {
    /// Mandatory prefix.
    pub mandatory: Mandatory,
    /// Opcode map.
    pub map: OpcodeMap,
    /// Opcode byte: `byte & mask == opcode`.
    pub opcode: u8,
    /// Bits of the opcode byte that are fixed.
    pub mask: u8,
    /// What follows.
    pub modrm: ModRm,
    /// REX.W must be this, if some.
    pub rex_w: Option<bool>,
    /// What the row demands of the LOCK prefix.
    pub lock: Lock,
    /// What follows ModRM.
    pub imm: Imm,
    /// A near branch whose target is in a register or memory, or a return: the prefix 66 without
    /// REX.W is read differently by vendors, so the row does not match then.
    pub near_branch: bool,
    /// REX.B must be 0 (90 with it is XCHG, not NOP).
    pub no_rex_b: bool,
}

/// The LOCK prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lock {
    /// Must not be there (it raises #UD).
    Absent,
    /// Must be there: without it the instruction is another row or none.
    Required,
    /// May be there; the instruction locks in any case (XCHG with memory).
    Allowed,
}

/// Immediate of an x86 instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Imm {
    /// None.
    None,
    /// One byte.
    I8,
    /// Two bytes.
    I16,
    /// Four bytes, two with the prefix 66 and without REX.W.
    Iz,
    /// Four bytes, a branch offset. With the prefix 66 and without REX.W vendors differ, so the
    /// row does not match then.
    Rel32,
    /// One byte, a branch offset; the same holds.
    Rel8,
}

/// How operands are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// None.
    None,
    /// arm64: Xt in bits 4:0 (absent if 31 for operations without an address).
    Xt,
    /// arm64: Xn in bits 9:5.
    Xn,
    /// arm64: 16-bit immediate in bits 20:5.
    Imm16,
    /// arm64: 16-bit immediate in bits 15:0.
    Udf,
    /// arm64: 26-bit branch offset.
    Branch26,
    /// arm64: register in 4:0 and 19-bit branch offset (cbz).
    CompareBranch,
    /// arm64: condition in 3:0 and 19-bit branch offset.
    CondBranch,
    /// arm64: register, bit number, 14-bit branch offset (tbz).
    TestBranch,
    /// arm64: register in 4:0, second operand in 20:16 or 20:15, 9-bit branch offset (`cb<cc>`).
    CompareRegBranch,
    /// arm64: Rs 20:16, Rt 4:0, \[Xn\] 9:5.
    Exclusive,
    /// arm64: Rt 4:0, \[Xn\] 9:5.
    LoadStoreXn,
    /// arm64: a barrier's option in bits 11:8.
    BarrierOption,
    /// powerpc: RA in 20:16 (0 means no register), RB in 15:11; an effective address.
    RaRb,
    /// powerpc: RT/RS in 25:21, RA, RB as an effective address.
    RtRaRb,
    /// powerpc: RB and RS (tlbie): RB in 15:11, RS in 25:21, RIC 19:18, PRS 17, R 16.
    Tlbie,
    /// powerpc: TO in 25:21, RA in 20:16, RB in 15:11.
    TrapRegs,
    /// powerpc: TO in 25:21, RA in 20:16, immediate in 15:0.
    TrapImm,
    /// powerpc: 24-bit branch offset, AA and LK.
    BranchI,
    /// powerpc: BO 25:21, BI 20:16, 14-bit branch offset, AA, LK.
    BranchB,
    /// powerpc: BO 25:21, BI 20:16.
    BranchXl,
    /// powerpc: RS in 25:21.
    Rs,
    /// powerpc: RS in 25:21, RB in 15:11.
    RsRb,
    /// powerpc: level in 11:5.
    Level,
    /// x86: no operands beyond the pattern.
    X86None,
    /// x86: r/m.
    X86Rm,
    /// x86: register field, then r/m.
    X86RegRm,
    /// x86: control or debug register in the register field, general register in r/m.
    X86SysReg,
    /// x86: immediate.
    X86Imm,
    /// x86: branch offset.
    X86Rel,
}

/// Lists of instructions that may be modified while executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PatchList {
    /// arm64: concurrent modification and execution, since this revision of the manual.
    Cmodx(CmodxRevision),
    /// powerpc: the patch class.
    PatchClass,
}

/// Revisions of the arm64 list, oldest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CmodxRevision {
    /// DDI 0487 A.a (2013), B2.6.5: B, BL, NOP, BRK, SVC, HVC, SMC.
    Aa,
    /// D.a (2018), B2.2.5: and ISB.
    Da,
    /// Middle revisions: and B.cond, CBZ, CBNZ, TBZ, TBNZ.
    Middle,
    /// Latest: and the compare-and-branch instructions, TRCIT, UDF.
    Latest,
}

impl CmodxRevision {
    /// Every revision, oldest first.
    pub const ALL: [CmodxRevision; 4] = [Self::Aa, Self::Da, Self::Middle, Self::Latest];

    /// Its name in options: the revision of DDI 0487 where that is known.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Aa => "a.a",
            Self::Da => "d.a",
            Self::Middle => "middle",
            Self::Latest => "latest",
        }
    }
}

/// Why an instruction is live-patchable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LivePatch {
    /// The list that names it.
    pub list: PatchList,
    /// Where that list is.
    pub cite: Cite,
}

/// Vendors whose manual lists the instruction as serialising.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Serialising {
    /// Intel SDM.
    pub intel: bool,
    /// AMD APM.
    pub amd: bool,
}

impl Serialising {
    /// Neither.
    pub const NO: Serialising = Serialising { intel: false, amd: false };
    /// Both.
    pub const BOTH: Serialising = Serialising { intel: true, amd: true };
    /// Intel only.
    pub const INTEL: Serialising = Serialising { intel: true, amd: false };
    /// AMD only.
    pub const AMD: Serialising = Serialising { intel: false, amd: true };
}
