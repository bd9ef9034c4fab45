//! Where a fact comes from, and how far it was checked.
//!
//! A finding is `certain` only if every fact that it needed is [`Evidence::Read`] or
//! [`Evidence::Deduced`] from a source that was read; what rests on memory makes it `possible`.

use std::fmt;

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
}

impl fmt::Display for Cite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.source, self.evidence)
    }
}
