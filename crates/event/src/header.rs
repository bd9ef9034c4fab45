//! What a source is and what it can see: the frame in which its events are to be read.

use bitflags::bitflags;
use textbed_arch::{Arch, Features};

use crate::KindSet;

/// What produced a stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    /// The simulator: everything is seen, in total order.
    Simulator,
    /// A log recorded on a real kernel.
    Log,
    /// A real kernel watched in an emulator.
    Watch,
}

bitflags! {
    /// What a source knows beside the kinds of event that it records. A rule that needs a fact
    /// which is missing is `not-checkable`.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
    pub struct Facts: u32 {
        /// Physical addresses of mappings are known.
        const PHYS = 1;
        /// Every mapping of a frame is in the stream, aliases too.
        const ALL_ALIASES = 1 << 1;
        /// Stored bytes are in the stream.
        const CONTENTS = 1 << 2;
        /// Every store to code is in the stream.
        const ALL_STORES = 1 << 3;
        /// Every fetch of code is in the stream.
        const ALL_FETCHES = 1 << 4;
        /// Whether results were looked at is in the stream.
        const RESULT_USE = 1 << 5;
        /// Maintenance and barriers are in the stream one by one.
        const MAINTENANCE = 1 << 6;
        /// Frames handed out and taken back are in the stream.
        const FRAMES = 1 << 7;
        /// The order of events of different CPUs is total.
        const TOTAL_ORDER = 1 << 8;
        /// Synchronisation between CPUs (locks, publication, IPIs) is in the stream.
        const SYNCHRONISATION = 1 << 9;
    }
}

/// The frame of a stream, sent before its first batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The architecture.
    pub arch: Arch,
    /// The kernel's version as people write it, where one is known.
    pub kernel: Option<String>,
    /// What produced the stream.
    pub source: Source,
    /// Number of CPUs; 0 = unknown.
    pub cpus: u16,
    /// `log2` of the kernel's base page in bytes.
    pub page_shift: u8,
    /// CPU features as read or configured.
    pub features: Features,
    /// Data cache line in bytes.
    pub dline_bytes: u32,
    /// Instruction cache line in bytes.
    pub iline_bytes: u32,
    /// Kinds of event that the source records.
    pub records: KindSet,
    /// What else it knows.
    pub facts: Facts,
}

impl Header {
    /// The header of a source that sees everything, with the architecture's default features and
    /// 4 KiB pages.
    #[must_use]
    pub fn all_seeing(arch: Arch, cpus: u16) -> Self {
        let line = if arch.is_powerpc() { 128 } else { 64 };
        Self {
            arch,
            kernel: None,
            source: Source::Simulator,
            cpus,
            page_shift: 12,
            features: Features::default_for(arch),
            dline_bytes: line,
            iline_bytes: line,
            records: KindSet::ALL,
            facts: Facts::all(),
        }
    }
}
