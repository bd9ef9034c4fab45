//! Where a fact comes from, and how far it was checked.
//!
//! A finding is `certain` only if every fact that it needed is [`Evidence::Read`] or
//! [`Evidence::Deduced`] from a source that was read; what rests on memory makes it `possible`.
//!
//! Sources are named after their makers. What a name tells (what kind of text it is, of which
//! architecture) is asked here and nowhere else.

use std::fmt;

use crate::Arch;

/// How a fact was established.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Evidence {
    /// The text or source named was read and says so.
    Read,
    /// Concluded from a text or source that was read.
    Deduced,
    /// From memory, not checked.
    Memory,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Evidence::Read => "read",
            Evidence::Deduced => "deduced",
            Evidence::Memory => "memory",
        })
    }
}

/// What kind of text a source is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Text {
    /// A manual of an architecture or of a processor.
    Manual,
    /// A kernel: its source, the messages of its commits, mails about it.
    Kernel,
    /// A formal model.
    Model,
}

impl Text {
    /// All of them, in the order of lists.
    pub const ALL: [Text; 3] = [Text::Manual, Text::Kernel, Text::Model];
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Text::Manual => "manual",
            Text::Kernel => "kernel",
            Text::Model => "model",
        })
    }
}

/// How names of sources begin.
const MAKERS: [(&str, Text); 10] = [
    ("Intel ", Text::Manual),
    ("SDM ", Text::Manual),
    ("AMD ", Text::Manual),
    ("APM ", Text::Manual),
    ("Arm ", Text::Manual),
    ("Power ISA", Text::Manual),
    ("IBM ", Text::Manual),
    ("Linux", Text::Kernel),
    ("linuxppc-dev", Text::Kernel),
    ("herdtools7", Text::Model),
];

/// Words in names of sources that are about one kind of machine.
const X86: [&str; 4] = ["SDM", "APM", "Intel", "AMD"];
const ARM: [&str; 3] = ["Arm ARM", "aarch64", "arm64"];
const POWER: [&str; 4] = ["Power", "IBM", "powerpc", "radix_tlb"];

/// A citation: a manual section with its revision, or a kernel path with its version.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cite {
    /// The source, for example `SDM 3A 8.1.3 (325384-059)` or `Linux 6.12 mm/vmalloc.c`.
    pub source: &'static str,
    /// How far it was checked.
    pub evidence: Evidence,
}

impl Cite {
    /// A source that was read.
    #[must_use]
    pub const fn read(source: &'static str) -> Self {
        Self { source, evidence: Evidence::Read }
    }

    /// A conclusion from a source that was read.
    #[must_use]
    pub const fn deduced(source: &'static str) -> Self {
        Self { source, evidence: Evidence::Deduced }
    }

    /// A source named from memory.
    #[must_use]
    pub const fn memory(source: &'static str) -> Self {
        Self { source, evidence: Evidence::Memory }
    }

    /// What kind of text it is; one that names several counts by the first. None where the name
    /// begins with no maker that is known.
    #[must_use]
    pub fn text(&self) -> Option<Text> {
        MAKERS.iter().find(|(name, _)| self.source.starts_with(name)).map(|(_, text)| *text)
    }

    /// Whether it is about `arch`, or about no architecture in particular.
    #[must_use]
    pub fn concerns(&self, arch: Arch) -> bool {
        let says = |words: &[&str]| words.iter().any(|w| self.source.contains(w));
        let (x86, arm, power) = (says(&X86), says(&ARM), says(&POWER));
        match arch {
            Arch::X86_64 => x86 || !arm && !power,
            Arch::Arm64 => arm || !x86 && !power,
            Arch::Ppc64le | Arch::Ppc64 | Arch::Ppc32 => power || !x86 && !arm,
        }
    }
}

impl fmt::Display for Cite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.source, self.evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_kind_of_text_and_the_architecture() {
        let manual = Cite::read("Arm ARM DDI 0487 B2.7.4.2");
        assert_eq!(manual.text(), Some(Text::Manual));
        assert!(manual.concerns(Arch::Arm64) && !manual.concerns(Arch::X86_64));
        let both = Cite::read("IBM 750GX UM 3.2; Linux 6.19 arch/powerpc/lib/code-patching.c");
        assert_eq!(both.text(), Some(Text::Manual));
        let kernel = Cite::deduced("Linux 6.12 mm/vmalloc.c");
        assert_eq!(kernel.text(), Some(Text::Kernel));
        assert!(kernel.concerns(Arch::Ppc32) && kernel.concerns(Arch::X86_64));
        assert_eq!(Cite::read("herdtools7 aarch64.cat").text(), Some(Text::Model));
        assert_eq!(Cite::memory("somewhere").text(), None);
    }
}
