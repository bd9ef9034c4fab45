//! Instructions that the kernel's patchers write: no-operations, branches, breakpoints.
//!
//! From: Linux 6.12 arch/x86/include/asm/text-patching.h, nops.h; arch/arm64/include/asm/brk-imm.h,
//! insn.h; arch/powerpc/include/asm/ppc-opcode.h, kgdb.h. Not here: what JITs and modules contain.

use textbed_arch::{Arch, VirtAddr};

use crate::error::Stop;

/// Five bytes that do nothing (`x86_nops[5]`).
pub(crate) const X86_NOP5: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// x86 INT3.
pub(crate) const INT3: u8 = 0xcc;
/// arm64 NOP.
pub(crate) const ARM64_NOP: u32 = 0xd503_201f;
/// powerpc `ori 0,0,0`.
pub(crate) const POWER_NOP: u32 = 0x6000_0000;
/// powerpc's `mflr r0`.
pub(crate) const POWER_MFLR: u32 = 0x7c08_02a6;
/// powerpc's `mtlr r0`.
pub(crate) const POWER_MTLR: u32 = 0x7c08_03a6;
/// arm64 `AARCH64_BREAK_FAULT`: BRK #0x100.
pub(crate) const ARM64_BREAK_FAULT: u32 = brk(0x100);
/// powerpc `BREAKPOINT_INSTRUCTION`: trap.
pub(crate) const POWER_TRAP: u32 = 0x7fe0_0008;

/// A breakpoint of one user on each architecture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Breakpoint {
    arm64: u32,
    power: u32,
}

/// kprobes' (`BRK64_OPCODE_KPROBES`, `BREAKPOINT_INSTRUCTION`).
pub(crate) const KPROBE: Breakpoint = Breakpoint { arm64: brk(0x004), power: POWER_TRAP };
/// kgdb's (`AARCH64_BREAK_KGDB_DYN_DBG`, `twge r2, r2`).
pub(crate) const KGDB: Breakpoint = Breakpoint { arm64: brk(0x400), power: 0x7d82_1008 };
/// What ends arm64's out-of-line slot (`BRK64_OPCODE_KPROBES_SS`).
pub(crate) const ARM64_KPROBE_STEP: u32 = brk(0x006);

/// arm64's trampoline of return probes (`KRETPROBES_BRK_IMM`).
pub(crate) const ARM64_RETURN_PROBE: u32 = brk(0x007);

/// arm64 `BRK #imm`.
const fn brk(imm: u32) -> u32 {
    0xd420_0000 | imm << 5
}

impl Breakpoint {
    /// As it lies in memory.
    pub(crate) fn bytes(self, arch: Arch) -> Vec<u8> {
        match arch {
            Arch::X86_64 => vec![INT3],
            Arch::Arm64 => word_bytes(arch, self.arm64),
            _ => word_bytes(arch, self.power),
        }
    }
}

/// A 32-bit instruction as it lies in memory.
pub(crate) fn word_bytes(arch: Arch, word: u32) -> Vec<u8> {
    let big = matches!(arch, Arch::Ppc64 | Arch::Ppc32);
    if big { word.to_be_bytes() } else { word.to_le_bytes() }.to_vec()
}

/// The same backwards; missing bytes are 0.
pub(crate) fn word_of(arch: Arch, bytes: &[u8]) -> u32 {
    let four = bytes.get(..4).and_then(|b| b.try_into().ok()).unwrap_or([0; 4]);
    let big = matches!(arch, Arch::Ppc64 | Arch::Ppc32);
    if big { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
}

/// A no-operation of the length of a call.
pub(crate) fn nop(arch: Arch) -> Vec<u8> {
    match arch {
        Arch::X86_64 => X86_NOP5.to_vec(),
        Arch::Arm64 => word_bytes(arch, ARM64_NOP),
        _ => word_bytes(arch, POWER_NOP),
    }
}

/// A branch (or call) from `site` to `target`; `None` where it does not reach.
pub(crate) fn try_branch(
    arch: Arch,
    site: VirtAddr,
    target: VirtAddr,
    call: bool,
) -> Option<Vec<u8>> {
    let offset = target.0.wrapping_sub(site.0) as i64;
    match arch {
        Arch::X86_64 => {
            let disp = i32::try_from(offset.checked_sub(5)?).ok()?;
            let opcode = if call { 0xe8 } else { 0xe9 };
            Some([&[opcode][..], &disp.to_le_bytes()].concat())
        }
        Arch::Arm64 => {
            let opcode: u32 = if call { 0x9400_0000 } else { 0x1400_0000 };
            let fits = (-0x800_0000..0x800_0000).contains(&offset) && offset & 3 == 0;
            let field = (offset >> 2) as u32 & 0x03ff_ffff;
            fits.then(|| word_bytes(arch, opcode | field))
        }
        _ => {
            let fits = (-0x200_0000..0x200_0000).contains(&offset) && offset & 3 == 0;
            let field = offset as u32 & 0x03ff_fffc;
            fits.then(|| word_bytes(arch, 0x4800_0000 | field | u32::from(call)))
        }
    }
}

/// A branch (or call) from `site` to `target`, or the no-operation in its place.
///
/// # Errors
/// The target is out of reach: PLTs and stubs are not modelled.
pub(crate) fn branch(
    arch: Arch,
    site: VirtAddr,
    target: Option<VirtAddr>,
    call: bool,
) -> Result<Vec<u8>, Stop> {
    let Some(target) = target else { return Ok(nop(arch)) };
    let far = || Stop::not_modelled(format!("a branch from {site} that reaches {target}"));
    try_branch(arch, site, target, call).ok_or_else(far)
}

/// What a call site of ftrace reaches where the tracer has no trampoline of its own: a
/// `ftrace_caller` that returns at once, by the convention of the compiler's sites (x86 `call`;
/// arm64 `mov x9, x30; bl`; powerpc `mflr r0; bl`).
pub(crate) fn ftrace_caller(arch: Arch) -> Vec<u8> {
    let words: &[u32] = match arch {
        Arch::X86_64 => return vec![0xc3],
        // mov x10, x30; mov x30, x9; br x10
        Arch::Arm64 => &[0xaa1e_03ea, 0xaa09_03fe, 0xd61f_0140],
        // mflr r12; mtlr r0; mtctr r12; bctr
        _ => &[0x7d88_02a6, POWER_MTLR, 0x7d89_03a6, 0x4e80_0420],
    };
    words.iter().flat_map(|w| word_bytes(arch, *w)).collect()
}
