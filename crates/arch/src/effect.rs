//! What an instruction does to caches, translations, order and the fetch queue, in one vocabulary
//! for all architectures.
//!
//! The instruction table gives each row an [`Effect`]; machines carry it out, events record it and
//! rules read it. Not modelled: what ordinary computation does.

use std::fmt;

use crate::isa::Arch;

/// How far a maintenance operation reaches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Reach {
    /// The CPU that executes it.
    Local = 0,
    /// Every CPU of the Inner Shareable domain; on x86 and powerpc every CPU.
    Broadcast = 1,
}

/// What a cache maintenance operation covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum CacheScope {
    /// The line of one address.
    Line = 0,
    /// Everything.
    All = 1,
}

/// What a translation invalidation covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum TlbScope {
    /// The page of one address in the current or given address space, and global entries of it.
    Address = 0,
    /// As `Address`, but only last-level entries (upper levels stay cached).
    AddressLastLevel = 1,
    /// All entries of one address space but global ones.
    Space = 2,
    /// Everything but global entries.
    AllButGlobal = 3,
    /// Everything.
    All = 4,
}

/// A barrier, by what it orders.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Barrier {
    /// arm64 `dmb` ISH/SY...: loads, stores and cache cleans among each other.
    DmbFull = 0,
    /// arm64 `dmb ..ld`.
    DmbLoad = 1,
    /// arm64 `dmb ..st`.
    DmbStore = 2,
    /// arm64 `dsb` without suffix: also waits for cleans, IC and TLBI of this CPU.
    DsbFull = 3,
    /// arm64 `dsb ..ld`.
    DsbLoad = 4,
    /// arm64 `dsb ..st`.
    DsbStore = 5,
    /// x86 `mfence`, and the locked instructions.
    Mfence = 6,
    /// x86 `lfence`.
    Lfence = 7,
    /// x86 `sfence`.
    Sfence = 8,
    /// powerpc `sync` (heavyweight).
    Sync = 9,
    /// powerpc `lwsync`.
    Lwsync = 10,
    /// powerpc `ptesync`.
    Ptesync = 11,
    /// powerpc `eieio`.
    Eieio = 12,
    /// powerpc `tlbsync`; x86 (AMD) `tlbsync`.
    Tlbsync = 13,
}

impl Barrier {
    /// Whether it is Power's barrier that also orders stores to page tables with walks and
    /// completes invalidations of translations: `ptesync`; on 32-bit, which has no other, `sync`.
    #[must_use]
    pub fn orders_tables(self, arch: Arch) -> bool {
        match self {
            Barrier::Ptesync => arch.is_powerpc(),
            Barrier::Sync => arch == Arch::Ppc32,
            _ => false,
        }
    }
}

/// Shareability domain of an arm64 barrier; other architectures have one domain ([`Self::System`]).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Domain {
    /// Non-shareable: this CPU.
    NonShareable = 0,
    /// Inner Shareable.
    Inner = 1,
    /// Outer Shareable.
    Outer = 2,
    /// Full system.
    System = 3,
}

/// What made a CPU drop what it had fetched ahead.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum SyncCause {
    /// arm64 `isb`, powerpc `isync`: an instruction whose purpose it is.
    Instruction = 0,
    /// Exception or interrupt entry, where it synchronises.
    ExceptionEntry = 1,
    /// Exception return (`iret`, `eret`, `rfid`), where it synchronises.
    ExceptionReturn = 2,
    /// x86 serialising instruction other than `iret`.
    Serialising = 3,
    /// A change of address space (x86 MOV to CR3).
    SpaceSwitch = 4,
    /// The CPU starts from reset: nothing was fetched before.
    Reset = 5,
}

/// What a wait is for. An interrupt that is taken ends every one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Wake {
    /// Nothing: it may end at once (arm64 `yield`, x86 `pause`, powerpc `pause_short`).
    Anything,
    /// An interrupt that can be taken (x86 `hlt`).
    Taken,
    /// An interrupt, masked or not (arm64 `wfi`, powerpc `wait` and `stop`).
    Interrupt,
    /// The event register (arm64 `wfe`).
    Event,
    /// A store to the line that is watched (x86 `mwait`).
    Line,
    /// The loss of the reservation, or an interrupt, masked or not (powerpc `waitrsv`).
    Reservation,
}

impl Wake {
    /// Whether an interrupt that is masked ends the wait, too.
    #[must_use]
    pub const fn by_masked(self) -> bool {
        matches!(self, Self::Interrupt | Self::Reservation)
    }
}

impl fmt::Display for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anything => "nothing",
            Self::Taken => "an interrupt that it lets in",
            Self::Interrupt => "an interrupt",
            Self::Event => "an event",
            Self::Line => "a store to the line that it watches",
            Self::Reservation => "the loss of its reservation",
        })
    }
}

/// Why a branch leads elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Flow {
    /// To go on there.
    Jump,
    /// To come back.
    Call,
    /// To where it was called from.
    Return,
}

/// What an instruction of the table does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Cleans data to where instruction fetches look (`dc cvau`, `dcbst`).
    CacheClean(CacheScope),
    /// Drops data from caches without writing it back (`dc ivac`, `dcbi`, `invd`).
    CacheInvalidate(CacheScope),
    /// Invalidates instruction caches.
    IcacheInvalidate(CacheScope, Reach),
    /// Invalidates translations.
    TlbInvalidate(TlbScope, Reach),
    /// Orders.
    Barrier(Barrier, Domain),
    /// Synchronises this CPU's context.
    ContextSync(SyncCause),
    /// Loads another address space (x86 MOV to CR3, arm64 MSR TTBR, powerpc mtspr PIDR).
    SpaceSwitch,
    /// Writes another control register that changes translation.
    Control,
    /// Raises an exception when executed (breakpoint, undefined, system call).
    Trap,
    /// Returns from an exception.
    ExceptionReturn,
    /// Leads elsewhere.
    Branch(Flow),
    /// Waits.
    Wait(Wake),
    /// Sets the event register of this CPU, or of every CPU (arm64 `sevl`, `sev`).
    SendEvent(Reach),
    /// Watches the line of an address for stores (x86 `monitor`).
    Watch,
    /// Load or store exclusive, or reserve and conditional.
    Exclusive,
    /// An atomic read-modify-write in one instruction without the ordering of a barrier.
    Atomic,
    /// A load that later accesses may not pass (arm64 `ldar`, `ldapr`).
    LoadAcquire,
    /// A store that may not pass earlier accesses (arm64 `stlr`).
    StoreRelease,
    /// A store that other stores may pass until `sfence` (x86 `movnti`).
    NonTemporalStore,
    /// Does nothing that is modelled (NOP).
    Nop,
}
