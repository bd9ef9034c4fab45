//! Events with their fields: what each kind says.
//!
//! `virt` and `phys` are where an access starts; `len` is in bytes. A `phys` means nothing under
//! [`crate::Flags::PHYS_UNKNOWN`].

use textbed_arch::{
    CpuId, Perm, Pfn, PhysAddr, VirtAddr,
    effect::{Barrier, CacheScope, Domain, Reach, SyncCause, TlbScope},
};

use crate::values::{
    Access, ControlRegister, CpuState, FaultReason, LeafChange, MemOrder, Need, Promise,
    RcuFlavour, RefusalReason, WarnReason, WindowPurpose,
};
use crate::{Bytes, CallRef, KindSet, NameId};

/// One event's content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum View {
    /// Events of these kinds were lost here, on the CPUs of the mask (bit n = CPU n).
    Gap {
        /// CPUs concerned, CPUs from 63 on share the top bit. No CPU at all: nobody knows where
        /// they were lost, so what came before may lack them as well.
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
    /// The entry that pointed to a page-table page does not any more: a leaf took its place, or
    /// nothing did (told before that leaf's event). The page is still the tables'.
    TableUnlinked {
        /// First address that it served.
        virt: VirtAddr,
        /// Bytes that it served.
        len: u64,
        /// Where it is; below 2^52.
        phys: PhysAddr,
        /// Its level, 0 = root.
        level: u8,
    },
    /// The entry that points to a page-table page leaves other rights possible below than it did;
    /// the same page is where it points (told before the events of the leaves below).
    TableRights {
        /// First address that it serves.
        virt: VirtAddr,
        /// Bytes that it serves.
        len: u64,
        /// Where the entry is; below 2^52.
        entry: PhysAddr,
        /// What it left possible.
        before: Perm,
        /// What it leaves possible.
        after: Perm,
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
        /// `log2` of the leaves that it says it is about (below 64; 0 is none): others may stay.
        leaf: Option<u8>,
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
    /// Frames went back to the page allocator. With [`Flags::PHYS_UNKNOWN`](crate::Flags) it is not
    /// known which: those behind a range of addresses, which stands in their place.
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
    /// A list of sites, such as those of a static key, names this one, or goes through to replace
    /// it: what lies there is meant to be what lay there when the list got it.
    ListedSite {
        /// Where.
        virt: VirtAddr,
        /// The list names it from here on; else it is about to be replaced because the list does.
        begins: bool,
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
    /// A lock was taken: for one holder, or (with [`Flags::SHARED`](crate::Flags)) for several.
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

impl View {
    /// The mask with one CPU's bit.
    #[must_use]
    pub fn cpu_bit(cpu: CpuId) -> u64 {
        1u64 << cpu.0.min(63)
    }
}
