//! What fields of events are made of: values with a number and a text, and a change of leaves.
//!
//! The numbers are part of the encoding of streams (`pack`) and stay for ever.

use textbed_arch::Perm;
use textbed_arch::paging::Attributes;

/// A change of leaf entries: how many, how large, from what to what.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LeafChange {
    /// Number of leaves.
    pub count: u32,
    /// `log2` of a leaf's size in bytes, after the change (before it, if the leaf was removed).
    pub shift: u8,
    /// `log2` of the leaf that covered the range before; equal to `shift` but for split and
    /// collapse.
    pub old_shift: u8,
    /// Effective permission before; empty = there was none.
    pub old: Perm,
    /// Effective permission after; empty = there is none.
    pub new: Perm,
    /// Contiguous bit and memory type after the change; the default if there is none, or where the
    /// source does not say.
    pub attributes: Attributes,
    /// Whether the leaves that were there had the contiguous bit.
    pub was_contiguous: bool,
    /// What the leaves would grant besides after the change, and entries above take away; none
    /// where the source does not say.
    pub denied: Perm,
}

impl LeafChange {
    /// Leaves that keep their size, of usual memory without contiguous bits before and after.
    #[must_use]
    pub fn usual(count: u32, shift: u8, old: Perm, new: Perm) -> Self {
        let (attributes, denied) = (Attributes::default(), Perm::empty());
        Self { count, shift, old_shift: shift, old, new, attributes, was_contiguous: false, denied }
    }

    /// Bytes covered; saturates.
    #[must_use]
    pub fn len(self) -> u64 {
        u64::from(self.count).checked_shl(u32::from(self.shift)).unwrap_or(u64::MAX)
    }

    /// Whether it covers nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.count == 0
    }
}

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal => $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum $name { $($(#[$vdoc])* $variant = $number,)+ }

        impl $name {
            /// Every value; the last one also stands for numbers that have none.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The value with this number; the last one where there is none.
            #[must_use]
            pub(crate) fn from_bits(number: u64) -> Self {
                match number { $($number => $name::$variant,)+ _ => Self::ALL[Self::ALL.len() - 1] }
            }

            /// In words.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }
    };
}

numbered! {
    /// What a kernel complains about in a WARN.
    WarnReason {
        /// A permission change over a mapping of large leaves.
        HugeMapping = 0 => "permission change over a huge mapping",
        /// A mapping became writable and executable.
        WriteExec = 1 => "a mapping became writable and executable",
        /// An address that is not page aligned.
        Unaligned = 2 => "unaligned address",
        /// Nothing is mapped where something should be.
        NotMapped = 3 => "nothing is mapped there",
        /// An address that belongs to no area.
        NoArea = 4 => "no such area",
        /// Called in a context in which it must not be.
        WrongContext = 5 => "called in a wrong context",
        /// An argument that the call does not accept.
        BadArgument = 6 => "argument not accepted",
        /// An entry of a page table that is neither empty nor present.
        OddEntry = 8 => "an entry that is neither empty nor present",
        /// Text holds other bytes than its patcher expected, or cannot be changed.
        NotPatched = 9 => "text is not as expected, or cannot be changed",
        /// Any other.
        Other = 7 => "other complaint",
    }
}

numbered! {
    /// What a call promises (or refuses) for a range.
    Promise {
        /// No translation window grants a store.
        NoWrite = 0 => "not writable",
        /// No translation window grants an instruction fetch.
        NoExec = 1 => "not executable",
        /// No translation window reaches it.
        NoAccess = 2 => "not reachable",
        /// Translations grant a store.
        Write = 3 => "writable",
        /// Translations grant an instruction fetch.
        Exec = 4 => "executable",
        /// No fetch window holds a version older than the newest.
        NoStaleCode = 5 => "no CPU runs old code",
        /// Neither store nor stale store: read-only and executable.
        ReadOnlyExec = 6 => "read-only and executable",
        /// Anything else.
        Other = 7 => "as asked",
    }
}

numbered! {
    /// Why a call refused.
    RefusalReason {
        /// The range is mapped by large leaves, or was allocated to be.
        HugeMapping = 0 => "the range is a huge mapping",
        /// The range belongs to no area that the call accepts.
        NotAnArea = 1 => "the range is no area of the right kind",
        /// The range leaves the area.
        OutOfArea = 2 => "the range leaves its area",
        /// Memory for a page table was not to be had.
        NoMemory = 3 => "out of memory",
        /// The architecture has no such operation.
        NotSupported = 4 => "not supported on this architecture",
        /// Nothing is mapped there.
        NotMapped = 5 => "nothing is mapped there",
        /// Anything else.
        Other = 6 => "refused",
    }
}

numbered! {
    /// What an authorised temporary alias is for.
    WindowPurpose {
        /// A patcher's writable alias in an address space active on one CPU.
        PatchPrivate = 0 => "patcher's alias in a private address space",
        /// A patcher's writable alias that every CPU can use (fixmap, vmalloc page).
        PatchShared = 1 => "patcher's alias visible to all CPUs",
        /// The platform never protects this mapping (linear map).
        Platform = 2 => "mapping that the platform never protects",
        /// Any other; the last number.
        Other = 3 => "authorised alias",
    }
}

numbered! {
    /// Order of a memory access.
    MemOrder {
        /// None.
        Plain = 0 => "plain",
        /// Load-acquire.
        Acquire = 1 => "acquire",
        /// Store-release.
        Release = 2 => "release",
        /// A locked read-modify-write, ordered both ways.
        Full = 3 => "full",
    }
}

numbered! {
    /// A flavour of RCU.
    RcuFlavour {
        /// Plain.
        Normal = 0 => "rcu",
        /// Tasks.
        Tasks = 1 => "rcu tasks",
        /// Tasks trace.
        TasksTrace = 2 => "rcu tasks trace",
        /// Tasks rude.
        TasksRude = 3 => "rcu tasks rude",
    }
}

numbered! {
    /// What a CPU is doing.
    CpuState {
        /// Came up.
        Online = 0 => "online",
        /// Went away.
        Offline = 1 => "offline",
        /// Idle, woken by an interrupt.
        Idle = 2 => "idle",
        /// Idle, polling a flag.
        PollingIdle = 3 => "polling idle",
        /// Running again.
        Running = 4 => "running",
    }
}

numbered! {
    /// What was tried.
    Access {
        /// A load.
        Read = 0 => "load",
        /// A store.
        Write = 1 => "store",
        /// An instruction fetch.
        Exec = 2 => "instruction fetch",
    }
}

numbered! {
    /// What the contract of a call asks of its context.
    Need {
        /// The named lock is held by the CPU.
        LockHeld = 0 => "a lock held",
        /// It may wait: task context, interrupts on, no CPU stands still for it.
        MaySleep = 1 => "a context that may sleep",
        /// Interrupts are on.
        IrqsOn = 2 => "interrupts on",
        /// Interrupts are off.
        IrqsOff = 3 => "interrupts off",
        /// Not in a non-maskable interrupt.
        NotInNmi = 4 => "no non-maskable interrupt",
        /// A task, no interrupt of any kind.
        TaskContext = 5 => "a task's context",
        /// All other CPUs stand still.
        OthersStopped = 6 => "all other CPUs standing still",
        /// Before the other CPUs run.
        AloneAtBoot = 7 => "no other CPU started yet",
        /// Something that this list does not name.
        Other = 8 => "another context",
    }
}

numbered! {
    /// Why a CPU refused an access.
    FaultReason {
        /// No valid translation.
        NotPresent = 0 => "nothing is mapped there",
        /// The translation does not grant it.
        Permission = 1 => "the mapping does not allow it",
        /// The address cannot be translated at all.
        BadAddress = 2 => "the address is not canonical",
        /// Reserved bits or a malformed table.
        Malformed = 3 => "the page tables are malformed",
        /// Two translations conflict.
        Conflict = 4 => "translations conflict",
        /// A stale translation gave the fault; a retry succeeds.
        Spurious = 5 => "a stale translation (spurious)",
        /// The physical address is outside memory.
        NoMemory = 6 => "no memory at that physical address",
    }
}

numbered! {
    /// Control registers and bits that change translation.
    ControlRegister {
        /// x86 CR0.
        Cr0 = 0 => "CR0",
        /// x86 CR4.
        Cr4 = 1 => "CR4",
        /// x86 EFER.
        Efer = 2 => "EFER",
        /// arm64 SCTLR_EL1.
        Sctlr = 3 => "SCTLR_EL1",
        /// arm64 TCR_EL1.
        Tcr = 4 => "TCR_EL1",
        /// powerpc LPCR.
        Lpcr = 5 => "LPCR",
        /// powerpc AMR or x86 PKRS: keys.
        Keys = 6 => "protection keys",
        /// Any other.
        Other = 7 => "control register",
    }
}
