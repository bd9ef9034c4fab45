//! Encodings for people: words with their masks, x86 as Intel's manual writes opcodes (SDM 2A
//! 3.1.1).
//!
//! Not shown: which registers are excluded, what vendors read differently (see [`X86Pattern`]).

use std::fmt;

use super::row::{
    Imm, LivePatch, Lock, Mandatory, ModRm, OpcodeMap, PatchList, Pattern, Serialising, X86Pattern,
};

/// Fixed bits as digits, with the mask where some are not fixed.
fn word(f: &mut fmt::Formatter<'_>, mask: u32, value: u32) -> fmt::Result {
    match mask {
        u32::MAX => write!(f, "{value:08x}"),
        _ => write!(f, "{value:08x}/{mask:08x}"),
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Pattern::Word { mask, value } => word(f, mask, value),
            Pattern::Prefixed { prefix_mask, prefix, mask, value } => {
                word(f, prefix_mask, prefix)?;
                f.write_str(" ")?;
                word(f, mask, value)
            }
            Pattern::X86(x86) => x86.fmt(f),
        }
    }
}

impl fmt::Display for X86Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lock {
            Lock::Required => f.write_str("F0 ")?,
            Lock::Absent | Lock::Allowed => {}
        }
        f.write_str(match self.mandatory {
            Mandatory::Any => "",
            Mandatory::None => "NP ",
            Mandatory::P66 => "66 ",
            Mandatory::Pf2 => "F2 ",
            Mandatory::Pf3 => "F3 ",
            Mandatory::NoRepeat => "NFx ",
        })?;
        f.write_str(match self.rex_w {
            None => "",
            Some(true) => "REX.W ",
            Some(false) => "REX.W=0 ",
        })?;
        f.write_str(match self.map {
            OpcodeMap::Primary => "",
            OpcodeMap::Of => "0F ",
            OpcodeMap::Of38 => "0F 38 ",
        })?;
        match self.mask {
            0xff => write!(f, "{:02X}", self.opcode)?,
            mask => write!(f, "{:02X}/{mask:02X}", self.opcode)?,
        }
        match self.modrm {
            ModRm::Absent => {}
            ModRm::Any => f.write_str(" /r")?,
            ModRm::Memory => f.write_str(" /r m")?,
            ModRm::Register | ModRm::ForcedRegister => f.write_str(" /r r")?,
            ModRm::AnyExt(n) => write!(f, " /{n}")?,
            ModRm::MemoryExt(n) => write!(f, " /{n} m")?,
            ModRm::RegisterExt(n) | ModRm::ForcedRegisterExt(n) => write!(f, " /{n} r")?,
            ModRm::Fixed(byte) => write!(f, " {byte:02X}")?,
        }
        f.write_str(match self.imm {
            Imm::None => "",
            Imm::I8 => " ib",
            Imm::I16 => " iw",
            Imm::Iz => " iz",
            Imm::Rel32 => " cd",
            Imm::Rel8 => " cb",
        })
    }
}

impl fmt::Display for LivePatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.list {
            PatchList::Cmodx(since) => {
                write!(f, "modifiable while executed since {}", since.name())
            }
            PatchList::PatchClass => f.write_str("patch class"),
        }
    }
}

impl fmt::Display for Serialising {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.intel, self.amd) {
            (true, true) => "serialising",
            (true, false) => "serialising (Intel)",
            (false, true) => "serialising (AMD)",
            (false, false) => "",
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::insn;
    use crate::isa::Arch;

    #[test]
    fn encodings_read_as_in_the_manuals() {
        let text = |arch, title: &str| {
            let row = insn::rows(arch).iter().find(|row| row.title() == title);
            row.map(|row| row.pattern.to_string()).unwrap_or_default()
        };
        for (title, wanted) in [
            ("int3", "CC"),
            ("cpuid", "0F A2"),
            ("serialize", "NP 0F 01 E8"),
            ("invlpg", "0F 01 /7 m"),
            ("iretq", "REX.W CF"),
            ("invpcid", "66 0F 38 82 /r m"),
            ("mov cr3", "0F 22 /3 r"),
        ] {
            assert_eq!(text(Arch::X86_64, title), wanted, "{title}");
        }
        for (title, wanted) in [
            ("isb", "d50330df/fffff0ff"),
            ("dsb ish", "d5033b9f"),
            ("ic ivau", "d50b7520/ffffffe0"),
            ("nop", "d503201f"),
        ] {
            assert_eq!(text(Arch::Arm64, title), wanted, "{title}");
        }
        assert_eq!(text(Arch::Ppc64le, "isync"), "4c00012c");
    }

    #[test]
    fn no_two_rows_read_the_same() {
        for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
            let mut seen = std::collections::BTreeSet::new();
            for row in insn::rows(arch) {
                let text = format!("{} {}", row.title(), row.pattern);
                assert!(seen.insert(text.clone()), "{arch}: {text}");
            }
        }
    }
}
