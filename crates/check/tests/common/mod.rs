//! Builds streams by hand.
#![allow(dead_code, unreachable_pub)] // each test file uses a part
#![allow(clippy::unwrap_used)] // tests may

use textbed_arch::{
    Arch, CpuId, Features, Perm, Pfn, PhysAddr, SpaceId, VirtAddr,
    effect::{Barrier, CacheScope, Domain, Reach, SyncCause, TlbScope},
};
use textbed_check::{Checker, Confidence, Coverage, Finding, Options, Report, rules::RuleId};
use textbed_event::{
    Batch, CallRef, Event, Flags, Header, LeafChange, MemOrder, OpId, Promise, Recorder,
    RefusalReason, Sink, View, WindowPurpose,
};

pub const NONE: Perm = Perm::empty();
pub const RW: Perm = Perm::KERNEL_RW;
pub const RO: Perm = Perm::KERNEL_RO;
pub const ROX: Perm = Perm::KERNEL_ROX;
pub const RWX: Perm = Perm::KERNEL_RWX;

/// Direct map base used by these tests.
pub const DM: u64 = 0xffff_8880_0000_0000;
/// A module-like area.
pub const AREA: u64 = 0xffff_ffff_c000_0000;
/// A frame.
pub const P: u64 = 0x20_0000;

pub const MAINTENANCE: RuleId = RuleId::MissingIcacheMaintenance;
pub const ORDER: RuleId = RuleId::MissingPublicationOrder;
pub const IDC: Features = Features::ARM_IDC;
pub const DIC: Features = Features::ARM_DIC;
pub const COHERENT: Features = Features::PPC_COHERENT_ICACHE;

pub struct Story {
    pub header: Header,
    pub rec: Recorder,
    calls: Vec<(u16, CallRef)>,
    pub space: SpaceId,
    pub flags: Flags,
}

/// Code that was executable with other bytes since the start, written through the direct map.
pub fn patched_area(arch: Arch, on: Features, off: Features) -> Story {
    let mut s = Story::with(arch, on, off);
    s.leaf(0, AREA, P, 1, NONE, ROX);
    s.region(AREA, 0x1000, "bpf", "prog");
    s
}

impl Story {
    pub fn new(arch: Arch) -> Self {
        Self {
            header: Header::all_seeing(arch, 2),
            rec: Recorder::new(),
            calls: Vec::new(),
            space: SpaceId::KERNEL,
            flags: Flags::default(),
        }
    }

    pub fn with(arch: Arch, on: Features, off: Features) -> Self {
        let mut story = Self::new(arch);
        story.header.features = (story.header.features | on) - off;
        story
    }

    pub fn arch(&self) -> Arch {
        self.header.arch
    }

    fn current(&self, cpu: u16) -> CallRef {
        self.calls.iter().rev().find(|(c, _)| *c == cpu).map_or(CallRef::NONE, |(_, r)| *r)
    }

    pub fn emit(&mut self, cpu: u16, view: View) -> u64 {
        self.emit_op(cpu, OpId::NONE, view)
    }

    pub fn emit_op(&mut self, cpu: u16, op: OpId, view: View) -> u64 {
        let event = Event {
            cause: self.current(cpu),
            space: self.space,
            flags: self.flags,
            op,
            at_ns: 10 * (1 + self.rec.pending() as u64),
            ..Event::new(CpuId(cpu), view)
        };
        self.rec.push(event)
    }

    pub fn enter(&mut self, cpu: u16, name: &str) -> CallRef {
        let call = self.rec.new_call();
        let name = self.rec.name(name);
        let args = self.rec.bytes(&[]);
        self.emit(cpu, View::CallEntered { call, name, args });
        self.calls.push((cpu, call));
        call
    }

    pub fn leave(&mut self, cpu: u16, call: CallRef, value: i64) {
        self.emit(cpu, View::CallReturned { call, value, failed: value < 0 });
        self.calls.retain(|(_, c)| *c != call);
    }

    /// A call with its body, which returns 0.
    pub fn call(&mut self, cpu: u16, name: &str, body: impl FnOnce(&mut Self, CallRef)) -> CallRef {
        let call = self.enter(cpu, name);
        body(self, call);
        self.leave(cpu, call, 0);
        call
    }

    pub fn leaf(
        &mut self,
        cpu: u16,
        virt: u64,
        phys: u64,
        pages: u32,
        old: Perm,
        new: Perm,
    ) -> u64 {
        let change = LeafChange::usual(pages, 12, old, new);
        self.emit(cpu, View::Leaf { virt: VirtAddr(virt), phys: PhysAddr(phys), change })
    }

    pub fn huge_leaf(&mut self, cpu: u16, virt: u64, phys: u64, shift: u8, count: u32, new: Perm) {
        let change = LeafChange::usual(count, shift, NONE, new);
        self.emit(cpu, View::Leaf { virt: VirtAddr(virt), phys: PhysAddr(phys), change });
    }

    pub fn in_space(&mut self, space: u32, body: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.space, SpaceId(space));
        body(self);
        self.space = before;
    }

    pub fn load_space(&mut self, cpu: u16, space: u32, asid: u16) {
        self.in_space(space, |s| {
            s.emit(cpu, View::SpaceLoaded { root: PhysAddr(0x1000), asid, no_flush: false });
        });
    }

    pub fn tlbi(&mut self, cpu: u16, reach: Reach, virt: u64, len: u64) {
        let scope = TlbScope::Address;
        let virt = VirtAddr(virt);
        self.emit_op(
            cpu,
            OpId(1),
            View::TlbInvalidate { scope, reach, virt, len, asid: 0, leaf: None },
        );
    }

    /// One of one page that says which size of leaves it is about.
    pub fn tlbi_of(&mut self, cpu: u16, virt: u64, leaf: Option<u8>) {
        let (scope, reach, virt) = (TlbScope::Address, Reach::Broadcast, VirtAddr(virt));
        let view = View::TlbInvalidate { scope, reach, virt, len: 0x1000, asid: 0, leaf };
        self.emit_op(cpu, OpId(1), view);
    }

    pub fn tlb_all(&mut self, cpu: u16, reach: Reach) {
        let (scope, virt) = (TlbScope::All, VirtAddr(0));
        self.emit_op(
            cpu,
            OpId(1),
            View::TlbInvalidate { scope, reach, virt, len: 0, asid: 0, leaf: None },
        );
    }

    pub fn barrier(&mut self, cpu: u16, barrier: Barrier) {
        self.emit_op(cpu, OpId(1), View::Barrier { barrier, domain: Domain::Inner });
    }

    pub fn dsb(&mut self, cpu: u16) {
        self.barrier(cpu, Barrier::DsbFull);
    }

    pub fn sync(&mut self, cpu: u16) {
        let cause = match self.arch() {
            Arch::X86_64 => SyncCause::Serialising,
            _ => SyncCause::Instruction,
        };
        self.emit_op(cpu, OpId(1), View::ContextSync { cause });
    }

    pub fn store(&mut self, cpu: u16, virt: u64, phys: u64, bytes: &[u8]) -> u64 {
        let bytes = self.rec.bytes(bytes);
        let (virt, phys, order) = (VirtAddr(virt), PhysAddr(phys), MemOrder::Plain);
        self.emit(cpu, View::Store { virt, phys, bytes, order })
    }

    pub fn fill(&mut self, cpu: u16, virt: u64, phys: u64, len: u64, pattern: &[u8]) {
        let what: Vec<u8> = len.to_le_bytes().iter().chain(pattern).copied().collect();
        let what = self.rec.bytes(&what);
        self.emit(cpu, View::Fill { virt: VirtAddr(virt), phys: PhysAddr(phys), what });
    }

    pub fn fetch(&mut self, cpu: u16, virt: u64, phys: u64, len: u32) {
        self.emit(cpu, View::Fetch { virt: VirtAddr(virt), phys: PhysAddr(phys), len });
    }

    pub fn clean(&mut self, cpu: u16, virt: u64, phys: u64) {
        let (virt, phys) = (VirtAddr(virt), PhysAddr(phys));
        self.emit_op(cpu, OpId(1), View::CacheClean { scope: CacheScope::Line, virt, phys });
    }

    pub fn icache(&mut self, cpu: u16, virt: u64, phys: u64) {
        let (virt, phys, reach) = (VirtAddr(virt), PhysAddr(phys), Reach::Broadcast);
        let scope = CacheScope::Line;
        self.emit_op(cpu, OpId(1), View::IcacheInvalidate { scope, reach, virt, phys });
    }

    pub fn publish(&mut self, cpu: u16, slot: &str) {
        let slot = self.rec.name(slot);
        self.emit(cpu, View::Publish { slot, value: 1 });
    }

    pub fn observe(&mut self, cpu: u16, slot: &str) {
        let slot = self.rec.name(slot);
        self.emit(cpu, View::Observe { slot, value: 1 });
    }

    /// An interrupt from one CPU to another, taken, with synchronisation, and waited for.
    pub fn ipi(&mut self, ipi: u32, from: u16, to: u16, synchronises: bool) {
        let function = self.rec.name("handler");
        self.emit(from, View::IpiSent { ipi, function, targets: 1 << to });
        self.emit(to, View::IpiTaken { ipi, by_interrupt: synchronises });
        if synchronises {
            self.emit(to, View::ContextSync { cause: SyncCause::ExceptionReturn });
        }
        self.emit(to, View::IpiDone { ipi, waited: false });
        self.emit(from, View::IpiDone { ipi, waited: true });
    }

    pub fn alloc(&mut self, cpu: u16, phys: u64, pages: u64, zeroed: bool) {
        self.emit(cpu, View::FrameAlloc { pfn: Pfn(phys >> 12), count: pages, zeroed });
    }

    pub fn free(&mut self, cpu: u16, phys: u64, pages: u64) {
        self.emit(cpu, View::FrameFree { pfn: Pfn(phys >> 12), count: pages });
    }

    pub fn promise(&mut self, cpu: u16, call: CallRef, what: Promise, virt: u64, len: u64) {
        self.emit(cpu, View::Promised { call, what, virt: VirtAddr(virt), len });
    }

    pub fn refuse(&mut self, cpu: u16, call: CallRef, what: Promise, virt: u64, len: u64) {
        let reason = RefusalReason::HugeMapping;
        self.emit(cpu, View::Refused { call, what, reason, virt: VirtAddr(virt), len });
    }

    pub fn permit(&mut self, cpu: u16, window: u32, purpose: WindowPurpose, phys: u64, len: u64) {
        self.emit(cpu, View::WindowOpened { window, purpose, phys: PhysAddr(phys), len });
    }

    pub fn region(&mut self, virt: u64, len: u64, owner: &str, name: &str) {
        let (owner, name) = (self.rec.name(owner), self.rec.name(name));
        self.emit(0, View::Region { virt: VirtAddr(virt), len, owner, name });
    }

    pub fn batch(mut self) -> (Header, Batch) {
        (self.header, self.rec.take())
    }

    pub fn run(self) -> Report {
        self.run_with(Options::default())
    }

    pub fn run_with(self, options: Options) -> Report {
        let (header, batch) = self.batch();
        let mut checker = Checker::new(options);
        let _ = checker.begin(&header);
        let _ = checker.batch(&batch);
        checker.finish()
    }
}

pub fn rules(report: &Report) -> Vec<RuleId> {
    report.findings.iter().map(|f| f.rule).collect()
}

/// The one finding of a rule; panics if there is none or more than one.
pub fn only(report: &Report, rule: RuleId) -> &Finding {
    let all: Vec<_> = report.findings.iter().filter(|f| f.rule == rule).collect();
    assert_eq!(all.len(), 1, "{rule}: {:#?}", report.findings);
    all[0]
}

pub fn certain(finding: &Finding) -> bool {
    finding.confidence == Confidence::Certain
}

pub fn coverage(report: &Report, rule: RuleId) -> Coverage {
    report.coverage.iter().find(|(r, _)| *r == rule).map(|(_, c)| *c).unwrap()
}
