//! What can go wrong: in the use of the machine, in tables, in an access.

use textbed_arch::paging::Attributes;
use textbed_arch::{Arch, CpuId, Perm, Pfn, PhysAddr, SpaceId, VirtAddr};
use textbed_event::{Access, FaultReason};

/// A use of the machine that cannot be.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// Something that the model does not have.
    #[error("not modelled: {what} on {arch}")]
    NotModelled {
        /// What.
        what: &'static str,
        /// Where.
        arch: Arch,
    },
    /// A configuration that makes no machine.
    #[error("unusable configuration: {0}")]
    Config(&'static str),
    /// No such CPU.
    #[error("there is no {cpu} (the machine has {cpus})")]
    NoCpu {
        /// The CPU asked for.
        cpu: CpuId,
        /// How many there are.
        cpus: u16,
    },
    /// No such address space.
    #[error("there is no {0}")]
    NoSpace(SpaceId),
    /// Physical memory is used up, for pages or for tables.
    #[error("no {frames} free frames (aligned to 1 << {align_shift} bytes) are left")]
    OutOfMemory {
        /// Frames wanted.
        frames: u64,
        /// `log2` of the alignment in bytes.
        align_shift: u32,
    },
    /// No frames were asked for, or more than can be, or with an impossible alignment.
    #[error("{frames} frames aligned to 1 << {align_shift} bytes is no possible block")]
    BadBlock {
        /// Frames wanted.
        frames: u64,
        /// `log2` of the alignment in bytes.
        align_shift: u32,
    },
    /// Frames were freed, or claimed, that are not in that state.
    #[error("frames {pfn} to +{frames} are not all {expected}")]
    FrameState {
        /// First frame.
        pfn: Pfn,
        /// How many.
        frames: u64,
        /// `allocated` or `free`.
        expected: &'static str,
    },
    /// A physical range that is not in memory.
    #[error("{phys} +{len:#x} is outside physical memory")]
    OutsideMemory {
        /// First byte.
        phys: PhysAddr,
        /// Bytes.
        len: u64,
    },
    /// A cross-call is waited for and goes to a CPU that would not take it here: it has interrupts
    /// off, or earlier calls to take first.
    #[error("{cpu} has interrupts off or earlier cross-calls to take")]
    WrongContext {
        /// The CPU.
        cpu: CpuId,
    },
    /// The lock is held.
    #[error("lock {name} is held by {by}")]
    LockHeld {
        /// Which.
        name: String,
        /// By whom; the caller itself if it locks twice.
        by: CpuId,
    },
    /// The lock is not held by the CPU that releases it.
    #[error("lock {name} is not held by {cpu}")]
    LockNotHeld {
        /// Which.
        name: String,
        /// Who released it.
        cpu: CpuId,
    },
    /// Table edits.
    #[error(transparent)]
    Map(#[from] MapError),
    /// An access inside a handler or a composed operation faulted.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// An instruction inside a composed operation failed.
    #[error(transparent)]
    Op(#[from] Box<OpError>),
    /// The user's own handler failed.
    #[error("{0}")]
    Handler(String),
}

impl From<OpError> for MachineError {
    fn from(e: OpError) -> Self {
        Self::Op(Box::new(e))
    }
}

/// A table edit that cannot be made. Nothing was changed, but tables may have been added.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// No such address space.
    #[error("there is no {0}")]
    NoSpace(SpaceId),
    /// No such CPU.
    #[error("there is no {0}")]
    NoCpu(CpuId),
    /// The range is empty, wraps, or leaves the addresses that the tables translate.
    #[error("{virt} +{len:#x} is no range that the tables translate")]
    BadRange {
        /// First address.
        virt: VirtAddr,
        /// Bytes.
        len: u64,
    },
    /// An address or length is no multiple of the leaf size.
    #[error("{addr:#x} is not aligned to 1 << {shift}")]
    Unaligned {
        /// The address or length.
        addr: u64,
        /// `log2` of the leaf size.
        shift: u32,
    },
    /// The format, or this CPU, has no leaf of that size.
    #[error("no leaf has 1 << {shift} bytes here")]
    LeafSize {
        /// `log2` of the size asked for.
        shift: u32,
    },
    /// No leaf here has such attributes.
    #[error("no leaf has {attributes:?} here")]
    Attributes {
        /// What was asked for.
        attributes: Attributes,
    },
    /// Something is mapped there already.
    #[error("{virt} is mapped already")]
    AlreadyMapped {
        /// The first such address.
        virt: VirtAddr,
    },
    /// Nothing is mapped where something has to be.
    #[error("{virt} is not mapped")]
    NotMapped {
        /// The address.
        virt: VirtAddr,
    },
    /// A large leaf is covered in part.
    #[error("{virt} lies in a leaf of 1 << {shift} bytes that the range covers in part")]
    PartlyCovered {
        /// First address of the leaf.
        virt: VirtAddr,
        /// `log2` of its size.
        shift: u32,
    },
    /// A leaf of the smallest size was to be split, or one of the largest collapsed into.
    #[error("{virt}: a leaf of 1 << {shift} bytes has no next size that way")]
    NoNextSize {
        /// The address.
        virt: VirtAddr,
        /// `log2` of its size.
        shift: u32,
    },
    /// Leaves that are to become one differ, leave a gap, or are not contiguous.
    #[error("the leaves around {virt} do not make one larger leaf")]
    NotUniform {
        /// First address that does not fit.
        virt: VirtAddr,
    },
    /// The permission has no encoding in the format.
    #[error("{perm:?} cannot be encoded")]
    Permission {
        /// What was asked for.
        perm: Perm,
    },
    /// The physical range is outside memory or cannot be encoded.
    #[error("{phys} is outside physical memory")]
    OutsideMemory {
        /// The address.
        phys: PhysAddr,
    },
    /// An entry on the way is malformed.
    #[error("the tables are malformed at {virt}")]
    Malformed {
        /// The address whose walk met it.
        virt: VirtAddr,
    },
    /// No memory for a table.
    #[error("no memory is left for a page table")]
    OutOfMemory,
}

/// An access that the CPU refused; it was also emitted as an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{} at {virt}: {}", access.text(), reason.text())]
pub struct Fault {
    /// The first address that could not be accessed.
    pub virt: VirtAddr,
    /// What was tried.
    pub access: Access,
    /// Why not. `Spurious`: the entry behind it is gone now, and a retry succeeds.
    pub reason: FaultReason,
}

/// An instruction that the machine cannot carry out.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpError {
    /// No instruction of that name on this architecture.
    #[error("{arch} has no instruction '{name}'")]
    Unknown {
        /// The name.
        name: String,
        /// The architecture.
        arch: Arch,
    },
    /// Its effect is not an operation on the machine (a trap, a branch), or not modelled.
    #[error("not modelled: effect of '{name}' on {arch}")]
    NotModelled {
        /// The instruction.
        name: String,
        /// The architecture.
        arch: Arch,
    },
    /// No such CPU.
    #[error("there is no {0}")]
    NoCpu(CpuId),
    /// The address space operand names no known space.
    #[error("no address space has root or identifier {0:#x}")]
    UnknownSpace(u64),
    /// Its address could not be translated.
    #[error(transparent)]
    Fault(#[from] Fault),
}
