//! Views to words and back. The layout is part of the `.tbe` format.
//!
//! Narrow fields share a word from its low end; what does not fit its field is cut by the type
//! that carries it (`LeafChange::count`, `Refused::len` below 2^40), never silently elsewhere.

use textbed_arch::{
    Perm, Pfn, PhysAddr, VirtAddr,
    effect::{Barrier, CacheScope, Domain, Reach, SyncCause, TlbScope},
    paging::{Attributes, MemoryType},
};

use crate::values::{
    Access, ControlRegister, CpuState, FaultReason, LeafChange, MemOrder, Need, Promise,
    RcuFlavour, RefusalReason, WarnReason, WindowPurpose,
};
use crate::{Bytes, CallRef, Kind, KindSet, NameId, View};

const LEN40: u64 = (1 << 40) - 1;
/// A physical address below its level.
const PHYS52: u64 = (1 << 52) - 1;
/// Of a leaf: what is above says what its rights are short of.
const PHYS56: u64 = (1 << 56) - 1;
/// A leaf's size; what is above it in its byte says what else a leaf has.
const SHIFT: u8 = 63;

fn bytes(range: Bytes) -> u64 {
    u64::from(range.offset) << 32 | u64::from(range.len)
}

fn to_bytes(word: u64) -> Bytes {
    Bytes { offset: (word >> 32) as u32, len: word as u32 }
}

/// What the third word of a store says.
#[inline]
pub(crate) fn stored(word: u64) -> (Bytes, MemOrder) {
    (to_bytes(word & !(3 << 30)), MemOrder::from_bits((word >> 30) & 3))
}

/// What an entry that points to a table may take away, without what each leaves possible.
fn rights(perm: Perm) -> u64 {
    u64::from(perm.bits() >> 2)
}

fn to_rights(bits: u64) -> Perm {
    Perm::from_bits_retain((bits as u8) << 2) | Perm::PRESENT | Perm::READ
}

fn two(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn low(word: u64) -> u32 {
    word as u32
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

fn byte(word: u64, index: u32) -> u64 {
    (word >> (8 * index)) & 0xff
}

pub(crate) fn pack(view: View) -> (Kind, [u64; 3]) {
    use View as V;
    match view {
        V::Gap { cpus, kinds } => (Kind::Gap, [cpus, kinds.0, 0]),
        V::Marker { name } => (Kind::Marker, [u64::from(name.0), 0, 0]),
        V::CallEntered { call, name, args } => {
            (Kind::CallEntered, [two(call.0, name.0), bytes(args), 0])
        }
        V::CallReturned { call, value, failed } => {
            (Kind::CallReturned, [u64::from(call.0), value as u64, u64::from(failed)])
        }
        V::ResultUsed { call } => (Kind::ResultUsed, [u64::from(call.0), 0, 0]),
        V::ResultDropped { call } => (Kind::ResultDropped, [u64::from(call.0), 0, 0]),
        V::Warned { call, reason, virt } => (Kind::Warned, [two(call.0, reason as u32), virt.0, 0]),
        V::Refused { call, what, reason, virt, len } => (
            Kind::Refused,
            [
                u64::from(call.0),
                virt.0,
                (len & LEN40) | (what as u64) << 40 | (reason as u64) << 48,
            ],
        ),
        V::Promised { call, what, virt, len } => {
            (Kind::Promised, [two(call.0, what as u32), virt.0, len])
        }
        V::WindowOpened { window, purpose, phys, len } => {
            (Kind::WindowOpened, [two(window, purpose as u32), phys.0, len])
        }
        V::WindowClosed { window } => (Kind::WindowClosed, [u64::from(window), 0, 0]),
        V::Region { virt, len, owner, name } => (Kind::Region, [virt.0, len, two(owner.0, name.0)]),
        V::Leaf { virt, phys, change: c } => (
            Kind::Leaf,
            [
                virt.0,
                (phys.0 & PHYS56) | u64::from(c.denied.bits()) << 56,
                u64::from(c.count)
                    | u64::from(c.shift & SHIFT) << 32
                    | u64::from(c.attributes.contiguous) << 38
                    | u64::from(c.was_contiguous) << 39
                    | u64::from(c.old_shift & SHIFT) << 40
                    | (c.attributes.memory as u64) << 46
                    | u64::from(c.old.bits()) << 48
                    | u64::from(c.new.bits()) << 56,
            ],
        ),
        V::TableUnlinked { virt, len, phys, level } => {
            (Kind::TableUnlinked, [virt.0, len, (phys.0 & PHYS52) | u64::from(level) << 56])
        }
        V::TableRights { virt, len, entry, before, after } => {
            let rights = rights(before) << 52 | rights(after) << 58;
            (Kind::TableRights, [virt.0, len, (entry.0 & PHYS52) | rights])
        }
        V::TableFreed { phys, level } => (Kind::TableFreed, [phys.0, u64::from(level), 0]),
        V::AreaMade { virt, len, shift } => (Kind::AreaMade, [virt.0, len, u64::from(shift)]),
        V::AreaRemoved { virt, len } => (Kind::AreaRemoved, [virt.0, len, 0]),
        V::SpaceLoaded { root, asid, no_flush } => {
            (Kind::SpaceLoaded, [root.0, u64::from(asid), u64::from(no_flush)])
        }
        V::Control { register, value } => (Kind::Control, [register as u64, value, 0]),
        V::CacheClean { scope, virt, phys } => (Kind::CacheClean, [virt.0, phys.0, scope as u64]),
        V::IcacheInvalidate { scope, reach, virt, phys } => {
            (Kind::IcacheInvalidate, [virt.0, phys.0, scope as u64 | (reach as u64) << 8])
        }
        V::TlbInvalidate { scope, reach, virt, len, asid, leaf } => {
            let how = scope as u64 | (reach as u64) << 8 | u64::from(asid) << 16;
            let leaf = u64::from(leaf.unwrap_or(0) & SHIFT);
            (Kind::TlbInvalidate, [virt.0, len, how | leaf << 32])
        }
        V::Barrier { barrier, domain } => {
            (Kind::Barrier, [barrier as u64 | (domain as u64) << 8, 0, 0])
        }
        V::ContextSync { cause } => (Kind::ContextSync, [cause as u64, 0, 0]),
        // The order shares the top of the length word: a store is far below 2^24 bytes.
        V::Store { virt, phys, bytes: b, order } => {
            (Kind::Store, [virt.0, phys.0, bytes(b) ^ (order as u64) << 30])
        }
        V::Fill { virt, phys, what } => (Kind::Fill, [virt.0, phys.0, bytes(what)]),
        V::StoreLate { virt, phys, len } => (Kind::StoreLate, [virt.0, phys.0, len]),
        V::FrameAlloc { pfn, count, zeroed } => {
            (Kind::FrameAlloc, [pfn.0, count, u64::from(zeroed)])
        }
        V::FrameFree { pfn, count } => (Kind::FrameFree, [pfn.0, count, 0]),
        V::PatchSite { virt, old_len, new_len, handler } => (
            Kind::PatchSite,
            [virt.0, u64::from(old_len) | u64::from(new_len) << 16, u64::from(handler)],
        ),
        V::ListedSite { virt, begins } => (Kind::ListedSite, [virt.0, u64::from(begins), 0]),
        V::Dma { phys, len, write } => (Kind::Dma, [phys.0, len, u64::from(write)]),
        V::IpiSent { ipi, function, targets } => {
            (Kind::IpiSent, [two(ipi, function.0), targets, 0])
        }
        V::IpiTaken { ipi, by_interrupt } => {
            (Kind::IpiTaken, [u64::from(ipi), u64::from(by_interrupt), 0])
        }
        V::IpiDone { ipi, waited } => (Kind::IpiDone, [u64::from(ipi), u64::from(waited), 0]),
        V::LockAcquired { lock } => (Kind::LockAcquired, [u64::from(lock.0), 0, 0]),
        V::LockReleased { lock } => (Kind::LockReleased, [u64::from(lock.0), 0, 0]),
        V::Publish { slot, value } => (Kind::Publish, [u64::from(slot.0), value, 0]),
        V::Observe { slot, value } => (Kind::Observe, [u64::from(slot.0), value, 0]),
        V::Load { virt, phys, len, order } => {
            (Kind::Load, [virt.0, phys.0, u64::from(len) | (order as u64) << 16])
        }
        V::StopMachine { begin } => (Kind::StopMachine, [u64::from(begin), 0, 0]),
        V::GracePeriod { flavour } => (Kind::GracePeriod, [flavour as u64, 0, 0]),
        V::ReadSide { flavour, begin } => (Kind::ReadSide, [flavour as u64, u64::from(begin), 0]),
        V::Cpu { state } => (Kind::Cpu, [state as u64, 0, 0]),
        V::Fetch { virt, phys, len } => (Kind::Fetch, [virt.0, phys.0, u64::from(len)]),
        V::FetchLate { virt, phys, len } => (Kind::FetchLate, [virt.0, phys.0, u64::from(len)]),
        V::Branch { from, to, indirect } => (Kind::Branch, [from.0, to.0, u64::from(indirect)]),
        V::Fault { virt, access, reason } => {
            (Kind::Fault, [virt.0, access as u64 | (reason as u64) << 8, 0])
        }
        V::Trap { virt, vector } => (Kind::Trap, [virt.0, u64::from(vector), 0]),
        V::Observed { virt, phys, behind } => (Kind::Observed, [virt.0, phys.0, u64::from(behind)]),
        V::TrapHandler { virt, len, registered } => {
            (Kind::TrapHandler, [virt.0, u64::from(len), u64::from(registered)])
        }
        V::Needs { call, what, lock } => (Kind::Needs, [two(call.0, lock.0), what as u64, 0]),
        // Lengths of payloads are far below 2^30: the top bit of the length word is free.
        V::Compared { virt, phys, bytes: b, equal } => {
            (Kind::Compared, [virt.0, phys.0, bytes(b) ^ u64::from(equal) << 31])
        }
        V::TaskStands { task, virt, stands } => {
            (Kind::TaskStands, [u64::from(task.0), virt.0, u64::from(stands)])
        }
        V::LoadOld { virt, phys, len, order, from } => {
            let rest = u64::from(len) | (order as u64) << 16 | from << 18;
            (Kind::LoadOld, [virt.0, phys.0, rest])
        }
    }
}

pub(crate) fn unpack(kind: Kind, [a, b, c]: [u64; 3]) -> View {
    use View as V;
    match kind {
        Kind::Gap => V::Gap { cpus: a, kinds: KindSet(b) },
        Kind::Marker => V::Marker { name: NameId(low(a)) },
        Kind::CallEntered => {
            V::CallEntered { call: CallRef(low(a)), name: NameId(high(a)), args: to_bytes(b) }
        }
        Kind::CallReturned => {
            V::CallReturned { call: CallRef(low(a)), value: b as i64, failed: c != 0 }
        }
        Kind::ResultUsed => V::ResultUsed { call: CallRef(low(a)) },
        Kind::ResultDropped => V::ResultDropped { call: CallRef(low(a)) },
        Kind::Warned => V::Warned {
            call: CallRef(low(a)),
            reason: WarnReason::from_bits(u64::from(high(a))),
            virt: VirtAddr(b),
        },
        Kind::Refused => V::Refused {
            call: CallRef(low(a)),
            what: Promise::from_bits(byte(c, 5)),
            reason: RefusalReason::from_bits(byte(c, 6)),
            virt: VirtAddr(b),
            len: c & LEN40,
        },
        Kind::Promised => V::Promised {
            call: CallRef(low(a)),
            what: Promise::from_bits(u64::from(high(a))),
            virt: VirtAddr(b),
            len: c,
        },
        Kind::WindowOpened => V::WindowOpened {
            window: low(a),
            purpose: WindowPurpose::from_bits(u64::from(high(a))),
            phys: PhysAddr(b),
            len: c,
        },
        Kind::WindowClosed => V::WindowClosed { window: low(a) },
        Kind::Region => {
            V::Region { virt: VirtAddr(a), len: b, owner: NameId(low(c)), name: NameId(high(c)) }
        }
        Kind::Leaf => V::Leaf {
            virt: VirtAddr(a),
            phys: PhysAddr(b & PHYS56),
            change: LeafChange {
                count: low(c),
                shift: byte(c, 4) as u8 & SHIFT,
                old_shift: byte(c, 5) as u8 & SHIFT,
                old: Perm::from_bits_retain(byte(c, 6) as u8),
                new: Perm::from_bits_retain(byte(c, 7) as u8),
                attributes: Attributes {
                    contiguous: c >> 38 & 1 != 0,
                    memory: MemoryType::from_bits((c >> 46) as u8),
                },
                was_contiguous: c >> 39 & 1 != 0,
                denied: Perm::from_bits_retain(byte(b, 7) as u8),
            },
        },
        Kind::TableUnlinked => V::TableUnlinked {
            virt: VirtAddr(a),
            len: b,
            phys: PhysAddr(c & PHYS52),
            level: byte(c, 7) as u8,
        },
        Kind::TableRights => V::TableRights {
            virt: VirtAddr(a),
            len: b,
            entry: PhysAddr(c & PHYS52),
            before: to_rights(c >> 52),
            after: to_rights(c >> 58),
        },
        Kind::TableFreed => V::TableFreed { phys: PhysAddr(a), level: b as u8 },
        Kind::AreaMade => V::AreaMade { virt: VirtAddr(a), len: b, shift: c as u8 },
        Kind::AreaRemoved => V::AreaRemoved { virt: VirtAddr(a), len: b },
        Kind::SpaceLoaded => V::SpaceLoaded { root: PhysAddr(a), asid: b as u16, no_flush: c != 0 },
        Kind::Control => V::Control { register: ControlRegister::from_bits(a), value: b },
        Kind::CacheClean => {
            V::CacheClean { scope: cache_scope(c), virt: VirtAddr(a), phys: PhysAddr(b) }
        }
        Kind::IcacheInvalidate => V::IcacheInvalidate {
            scope: cache_scope(byte(c, 0)),
            reach: reach(byte(c, 1)),
            virt: VirtAddr(a),
            phys: PhysAddr(b),
        },
        Kind::TlbInvalidate => V::TlbInvalidate {
            scope: tlb_scope(byte(c, 0)),
            reach: reach(byte(c, 1)),
            virt: VirtAddr(a),
            len: b,
            asid: (c >> 16) as u16,
            leaf: Some(byte(c, 4) as u8 & SHIFT).filter(|shift| *shift != 0),
        },
        Kind::Barrier => V::Barrier { barrier: barrier(byte(a, 0)), domain: domain(byte(a, 1)) },
        Kind::ContextSync => V::ContextSync { cause: sync_cause(a) },
        Kind::Store => {
            let (bytes, order) = stored(c);
            V::Store { virt: VirtAddr(a), phys: PhysAddr(b), bytes, order }
        }
        Kind::Fill => V::Fill { virt: VirtAddr(a), phys: PhysAddr(b), what: to_bytes(c) },
        Kind::StoreLate => V::StoreLate { virt: VirtAddr(a), phys: PhysAddr(b), len: c },
        Kind::FrameAlloc => V::FrameAlloc { pfn: Pfn(a), count: b, zeroed: c != 0 },
        Kind::FrameFree => V::FrameFree { pfn: Pfn(a), count: b },
        Kind::PatchSite => V::PatchSite {
            virt: VirtAddr(a),
            old_len: b as u16,
            new_len: (b >> 16) as u16,
            handler: c != 0,
        },
        Kind::ListedSite => V::ListedSite { virt: VirtAddr(a), begins: b != 0 },
        Kind::Dma => V::Dma { phys: PhysAddr(a), len: b, write: c != 0 },
        Kind::IpiSent => V::IpiSent { ipi: low(a), function: NameId(high(a)), targets: b },
        Kind::IpiTaken => V::IpiTaken { ipi: low(a), by_interrupt: b != 0 },
        Kind::IpiDone => V::IpiDone { ipi: low(a), waited: b != 0 },
        Kind::LockAcquired => V::LockAcquired { lock: NameId(low(a)) },
        Kind::LockReleased => V::LockReleased { lock: NameId(low(a)) },
        Kind::Publish => V::Publish { slot: NameId(low(a)), value: b },
        Kind::Observe => V::Observe { slot: NameId(low(a)), value: b },
        Kind::Load => V::Load {
            virt: VirtAddr(a),
            phys: PhysAddr(b),
            len: c as u16,
            order: MemOrder::from_bits(c >> 16),
        },
        Kind::StopMachine => V::StopMachine { begin: a != 0 },
        Kind::GracePeriod => V::GracePeriod { flavour: RcuFlavour::from_bits(a) },
        Kind::ReadSide => V::ReadSide { flavour: RcuFlavour::from_bits(a), begin: b != 0 },
        Kind::Cpu => V::Cpu { state: CpuState::from_bits(a) },
        Kind::Fetch => V::Fetch { virt: VirtAddr(a), phys: PhysAddr(b), len: low(c) },
        Kind::FetchLate => V::FetchLate { virt: VirtAddr(a), phys: PhysAddr(b), len: low(c) },
        Kind::Branch => V::Branch { from: VirtAddr(a), to: VirtAddr(b), indirect: c != 0 },
        Kind::Fault => V::Fault {
            virt: VirtAddr(a),
            access: Access::from_bits(byte(b, 0)),
            reason: FaultReason::from_bits(byte(b, 1)),
        },
        Kind::Trap => V::Trap { virt: VirtAddr(a), vector: b as u16 },
        Kind::Observed => V::Observed { virt: VirtAddr(a), phys: PhysAddr(b), behind: low(c) },
        Kind::TrapHandler => V::TrapHandler { virt: VirtAddr(a), len: low(b), registered: c != 0 },
        Kind::Needs => {
            V::Needs { call: CallRef(low(a)), what: Need::from_bits(b), lock: NameId(high(a)) }
        }
        Kind::Compared => V::Compared {
            virt: VirtAddr(a),
            phys: PhysAddr(b),
            bytes: to_bytes(c & !(1 << 31)),
            equal: c & 1 << 31 != 0,
        },
        Kind::TaskStands => {
            V::TaskStands { task: NameId(low(a)), virt: VirtAddr(b), stands: c != 0 }
        }
        Kind::LoadOld => V::LoadOld {
            virt: VirtAddr(a),
            phys: PhysAddr(b),
            len: c as u16,
            order: MemOrder::from_bits((c >> 16) & 3),
            from: c >> 18,
        },
    }
}

fn cache_scope(number: u64) -> CacheScope {
    if number == 0 { CacheScope::Line } else { CacheScope::All }
}

fn reach(number: u64) -> Reach {
    if number == 0 { Reach::Local } else { Reach::Broadcast }
}

fn tlb_scope(number: u64) -> TlbScope {
    use TlbScope::*;
    [Address, AddressLastLevel, Space, AllButGlobal].get(number as usize).copied().unwrap_or(All)
}

fn domain(number: u64) -> Domain {
    use Domain::*;
    [NonShareable, Inner, Outer].get(number as usize).copied().unwrap_or(System)
}

fn sync_cause(number: u64) -> SyncCause {
    use SyncCause::*;
    let known = [Instruction, ExceptionEntry, ExceptionReturn, Serialising, SpaceSwitch];
    known.get(number as usize).copied().unwrap_or(Reset)
}

fn barrier(number: u64) -> Barrier {
    use Barrier::*;
    let known = [
        DmbFull, DmbLoad, DmbStore, DsbFull, DsbLoad, DsbStore, Mfence, Lfence, Sfence, Sync,
        Lwsync, Ptesync, Eieio,
    ];
    known.get(number as usize).copied().unwrap_or(Tlbsync)
}
