//! Events with their fields: what each kind says.
//!
//! `virt` and `phys` are where an access starts; `len` is in bytes. A `phys` means nothing under
//! [`crate::Flags::PHYS_UNKNOWN`].

use textbed_arch::{
    CpuId, Perm, Pfn, PhysAddr, VirtAddr,
    effect::{Barrier, CacheScope, Domain, Reach, SyncCause, TlbScope},
};

use crate::{Bytes, CallRef, KindSet, NameId};

/// One event's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// Events of these kinds were lost here, on the CPUs of the mask (bit n = CPU n).
    Gap {
        /// CPUs concerned, CPUs from 63 on share the top bit.
        cpus: u64,
        /// Kinds of which some may be missing.
        kinds: KindSet,
    },
    /// A step of the workload, as the source names it.
    Marker {
        /// What it says.
        name: NameId,
    },
    /// A call began; until it returns, events inside it carry it as their cause.
    CallEntered {
        /// The instance.
        call: CallRef,
        /// What was called.
        name: NameId,
        /// Arguments: a little-endian u64 each.
        args: Bytes,
    },
    /// A call returned.
    CallReturned {
        /// The instance.
        call: CallRef,
        /// Its result; negative = -errno where the function returns one.
        value: i64,
        /// Whether `value` is an error code of the callee's convention.
        failed: bool,
    },
    /// The caller looked at the result.
    ResultUsed {
        /// The instance.
        call: CallRef,
    },
    /// The caller dropped the result.
    ResultDropped {
        /// The instance.
        call: CallRef,
    },
    /// The kernel complained (WARN) but went on.
    Warned {
        /// Inside which call.
        call: CallRef,
        /// About what.
        reason: WarnReason,
        /// The address it was about.
        virt: VirtAddr,
    },
    /// A call refused a change of permissions, and changed nothing of it.
    Refused {
        /// The call that refused.
        call: CallRef,
        /// What it was asked for.
        what: Promise,
        /// Why it refused.
        reason: RefusalReason,
        /// First address concerned.
        virt: VirtAddr,
        /// Bytes concerned, up to 2^40.
        len: u64,
    },
    /// From here on the callee promises this of the range (by physical address under
    /// [`crate::Flags::BY_PHYS`]).
    Promised {
        /// The call that promises.
        call: CallRef,
        /// What.
        what: Promise,
        /// First address.
        virt: VirtAddr,
        /// Bytes.
        len: u64,
    },
    /// An authorised temporary alias of a range of physical memory was opened (of virtual memory
    /// where frames are not known, see [`crate::Flags::PHYS_UNKNOWN`]).
    WindowOpened {
        /// A number for it, unique in the stream.
        window: u32,
        /// What for.
        purpose: WindowPurpose,
        /// First byte.
        phys: PhysAddr,
        /// Bytes.
        len: u64,
    },
    /// The alias is gone, as far as its opener is concerned.
    WindowClosed {
        /// Which.
        window: u32,
    },
    /// This range belongs to somebody; for people, and to find an owner of a finding.
    Region {
        /// First address.
        virt: VirtAddr,
        /// Bytes.
        len: u64,
        /// What kind of thing ("module", "bpf", "direct map").
        owner: NameId,
        /// Which one.
        name: NameId,
    },
    /// Leaf entries were made, changed or removed: `count` leaves of one size from `virt` on, with
    /// physical addresses ascending from `phys`.
    Leaf {
        /// First address.
        virt: VirtAddr,
        /// Physical address of the first leaf (after the change; before it if it was removed).
        phys: PhysAddr,
        /// Sizes and permissions.
        change: LeafChange,
    },
    /// A page-table page went back to the allocator.
    TableFreed {
        /// Where it was.
        phys: PhysAddr,
        /// Its level, 0 = root.
        level: u8,
    },
    /// An area of kernel virtual memory was reserved.
    AreaMade {
        /// First address.
        virt: VirtAddr,
        /// Bytes, without guard page.
        len: u64,
        /// `log2` of the leaf size that the allocation aims at.
        shift: u8,
    },
    /// The area was given back.
    AreaRemoved {
        /// First address.
        virt: VirtAddr,
        /// Bytes, without guard page.
        len: u64,
    },
    /// This CPU uses the event's address space from here on.
    SpaceLoaded {
        /// Root table.
        root: PhysAddr,
        /// ASID, PCID or PID.
        asid: u16,
        /// Old translations of that identifier were not invalidated.
        no_flush: bool,
    },
    /// A control register that changes translation was written.
    Control {
        /// Which.
        register: ControlRegister,
        /// Its new value.
        value: u64,
    },
    /// Data was cleaned to where instruction fetches look.
    CacheClean {
        /// How much.
        scope: CacheScope,
        /// Address used.
        virt: VirtAddr,
        /// Address reached.
        phys: PhysAddr,
    },
    /// Instruction caches were told to forget.
    IcacheInvalidate {
        /// How much.
        scope: CacheScope,
        /// On which CPUs.
        reach: Reach,
        /// Address used.
        virt: VirtAddr,
        /// Address reached.
        phys: PhysAddr,
    },
    /// Translations were told to be forgotten.
    TlbInvalidate {
        /// How much.
        scope: TlbScope,
        /// On which CPUs.
        reach: Reach,
        /// First address, for scopes with one.
        virt: VirtAddr,
        /// Bytes, for scopes with an address.
        len: u64,
        /// ASID, PCID or PID concerned.
        asid: u16,
    },
    /// A barrier.
    Barrier {
        /// Which.
        barrier: Barrier,
        /// How far.
        domain: Domain,
    },
    /// This CPU dropped what it had fetched ahead.
    ContextSync {
        /// Why.
        cause: SyncCause,
    },
    /// Bytes were stored.
    Store {
        /// Address used.
        virt: VirtAddr,
        /// Address reached.
        phys: PhysAddr,
        /// What was stored.
        bytes: Bytes,
        /// Its order.
        order: MemOrder,
    },
    /// A pattern was stored again and again over a range.
    Fill {
        /// Address used.
        virt: VirtAddr,
        /// Address reached.
        phys: PhysAddr,
        /// Payload: the length in bytes as a little-endian u64, then the pattern.
        what: Bytes,
    },
    /// A store that happened earlier, withheld until its frame mattered.
    StoreLate {
        /// Address used.
        virt: VirtAddr,
        /// Address reached.
        phys: PhysAddr,
        /// Bytes.
        len: u64,
    },
    /// Frames were handed out by the page allocator.
    FrameAlloc {
        /// First.
        pfn: Pfn,
        /// How many 4 KiB frames.
        count: u64,
        /// Whether they come zeroed.
        zeroed: bool,
    },
    /// Frames went back to the page allocator.
    FrameFree {
        /// First.
        pfn: Pfn,
        /// How many 4 KiB frames.
        count: u64,
    },
    /// An instruction is about to be replaced by a patcher.
    PatchSite {
        /// Where.
        virt: VirtAddr,
        /// Bytes of the instruction that is replaced.
        old_len: u16,
        /// Bytes of the new one.
        new_len: u16,
        /// Whether a handler is registered for a trap there.
        handler: bool,
    },
    /// A device accessed memory.
    Dma {
        /// First byte.
        phys: PhysAddr,
        /// Bytes.
        len: u64,
        /// Whether it wrote.
        write: bool,
    },
    /// An interrupt was sent to other CPUs.
    IpiSent {
        /// A number for it, unique in the stream.
        ipi: u32,
        /// What the receivers will run.
        function: NameId,
        /// Receivers (bit n = CPU n; CPUs from 63 on share the top bit).
        targets: u64,
    },
    /// A receiver began to serve it.
    IpiTaken {
        /// Which.
        ipi: u32,
        /// Whether by an interrupt (else a polling CPU picked it up).
        by_interrupt: bool,
    },
    /// The event's CPU served it: as receiver, that it is done; as sender (`waited`), that all are.
    IpiDone {
        /// Which.
        ipi: u32,
        /// The sender waited for all receivers up to here.
        waited: bool,
    },
    /// A lock was taken.
    LockAcquired {
        /// Which, as a name.
        lock: NameId,
    },
    /// A lock was released.
    LockReleased {
        /// Which, as a name.
        lock: NameId,
    },
    /// A value was published by a release store.
    Publish {
        /// The variable.
        slot: NameId,
        /// The value.
        value: u64,
    },
    /// A published value was seen by a load-acquire.
    Observe {
        /// The variable.
        slot: NameId,
        /// The value.
        value: u64,
    },
    /// A load whose result mattered.
    Load {
        /// Address used.
        virt: VirtAddr,
        /// Address reached.
        phys: PhysAddr,
        /// Bytes.
        len: u16,
        /// Its order.
        order: MemOrder,
    },
    /// All other CPUs stand still from here (or until here).
    StopMachine {
        /// It begins.
        begin: bool,
    },
    /// A grace period of this flavour passed for the event's CPU.
    GracePeriod {
        /// Which flavour.
        flavour: RcuFlavour,
    },
    /// A read-side section began or ended.
    ReadSide {
        /// Which flavour.
        flavour: RcuFlavour,
        /// It begins.
        begin: bool,
    },
    /// The CPU changed its state.
    Cpu {
        /// To what.
        state: CpuState,
    },
    /// Code was fetched and executed.
    Fetch {
        /// First byte.
        virt: VirtAddr,
        /// Where the translation that was used leads.
        phys: PhysAddr,
        /// Bytes; never across a page.
        len: u32,
    },
    /// A fetch that happened earlier, withheld until a store to its frame.
    FetchLate {
        /// First byte.
        virt: VirtAddr,
        /// Where the translation that was used led.
        phys: PhysAddr,
        /// Bytes.
        len: u32,
    },
    /// A branch was taken.
    Branch {
        /// From where.
        from: VirtAddr,
        /// Where to.
        to: VirtAddr,
        /// Through a register or memory.
        indirect: bool,
    },
    /// An access was refused by the CPU.
    Fault {
        /// The address.
        virt: VirtAddr,
        /// What was tried.
        access: Access,
        /// Why it was refused.
        reason: FaultReason,
    },
    /// An instruction raised an exception.
    Trap {
        /// The instruction.
        virt: VirtAddr,
        /// The architecture's number for it.
        vector: u16,
    },
    /// What a simulator fed a fetch: the age of the bytes. Only tests and reports read it.
    Observed {
        /// The code.
        virt: VirtAddr,
        /// Where it lies.
        phys: PhysAddr,
        /// How many stores to this code the fetched bytes are behind memory; 0 = newest.
        behind: u32,
    },
    /// From here on a trap taken in this range is (or is no longer) known to whoever handles it: a
    /// patcher published, or took back, what says how the trap is to be resolved.
    TrapHandler {
        /// First byte of the instruction that may trap.
        virt: VirtAddr,
        /// Bytes of it, below 2^32.
        len: u32,
        /// Known from here on; else forgotten.
        registered: bool,
    },
    /// What a call's own contract asks of the context that it runs in. Emitted inside the call, at
    /// the place where the contract counts.
    Needs {
        /// The call whose contract it is.
        call: CallRef,
        /// What it needs.
        what: Need,
        /// Which lock, for [`Need::LockHeld`].
        lock: NameId,
    },
    /// A patcher or generator compared memory with what it expected there: before it replaces
    /// code, or reading back what it wrote.
    Compared {
        /// First address.
        virt: VirtAddr,
        /// Where it lies.
        phys: PhysAddr,
        /// What was expected, below 2^30 bytes.
        bytes: Bytes,
        /// Whether memory held that.
        equal: bool,
    },
    /// A task that does not run stands in code: it was preempted there, sleeps there, or will
    /// return there; or it has left.
    TaskStands {
        /// Which task, as a name.
        task: NameId,
        /// Where it goes on.
        virt: VirtAddr,
        /// It stands there from here on; else it runs again from there.
        stands: bool,
    },
    /// A load, as [`View::Load`], that did not return the newest bytes: it was carried out before a
    /// store that stands earlier in the stream (out of program order, or while that store still
    /// waited in its CPU's store buffer).
    LoadOld {
        /// Address used.
        virt: VirtAddr,
        /// Address reached.
        phys: PhysAddr,
        /// Bytes.
        len: u16,
        /// Its order.
        order: MemOrder,
        /// It saw the stores to these bytes up to the event of this number, below 2^46.
        from: u64,
    },
}

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
}

impl LeafChange {
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
            /// Every value, in numeric order.
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

impl View {
    /// The mask with one CPU's bit.
    #[must_use]
    pub fn cpu_bit(cpu: CpuId) -> u64 {
        1u64 << cpu.0.min(63)
    }
}
