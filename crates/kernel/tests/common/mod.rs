//! Boots kernels and writes their events as short lines, to compare with traces worked out by hand.

#![allow(dead_code, unreachable_pub)] // each test file uses a part
#![allow(clippy::unwrap_used, clippy::print_stdout)] // test code outside test functions

use textbed_arch::effect::Reach;
use textbed_arch::{Arch, CpuId, Features, SpaceId, VirtAddr, insn};
use textbed_event::{Batch, Event, NameTable, View};
use textbed_kernel::{Arg, BootArgs, CallError, CallValue, Config, Kernel, Progress, Version};
use textbed_machine::{Newest, Policy};

/// A kernel under test and the names of its stream.
pub struct Bed {
    pub kernel: Kernel,
    pub names: NameTable,
    /// Ranges with names of the test's own.
    pub marks: Vec<(&'static str, u64, u64)>,
}

/// Boots with default features, two CPUs, and options; the boot's own events are dropped.
pub fn boot(version: &str, arch: Arch, options: &[(&str, &str)]) -> Bed {
    boot_with(version, arch, options, Features::default_for(arch), 2)
}

pub fn boot_with(
    version: &str,
    arch: Arch,
    options: &[(&str, &str)],
    features: Features,
    cpus: u16,
) -> Bed {
    boot_under(version, arch, options, (features, cpus), Box::new(Newest))
}

/// The same under a policy.
pub fn boot_under(
    version: &str,
    arch: Arch,
    options: &[(&str, &str)],
    (features, cpus): (Features, u16),
    policy: Box<dyn Policy>,
) -> Bed {
    let mut config = Config::new(arch);
    for (name, value) in options {
        config.set(name, value).unwrap();
    }
    let version: Version = version.parse().unwrap();
    let args = BootArgs { version, arch, config, features, cpus };
    let kernel = Kernel::boot(args, policy).unwrap();
    let mut bed = Bed { kernel, names: NameTable::default(), marks: Vec::new() };
    bed.events();
    bed
}

impl Bed {
    /// Allocates by a call and names the range.
    pub fn area(&mut self, name: &'static str, call: &str, size: u64) -> u64 {
        let start = self.call(call, &[size]) as u64;
        assert_ne!(start, 0, "{call}({size:#x})");
        self.mark(name, start, size);
        let frame = self.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(start)).unwrap().phys;
        let alias = self.kernel.direct_map_of(frame.pfn()).unwrap();
        let name = match name {
            "a" => "dm(a)",
            "b" => "dm(b)",
            _ => "dm",
        };
        self.mark(name, alias.0, size);
        start
    }

    pub fn mark(&mut self, name: &'static str, start: u64, len: u64) {
        self.marks.push((name, start, len));
    }

    /// Calls on CPU 0.
    pub fn call(&mut self, name: &str, args: &[u64]) -> i64 {
        self.try_call(name, &values(args)).unwrap().value
    }

    pub fn try_call(&mut self, name: &str, args: &[Arg]) -> Result<CallValue, CallError> {
        self.kernel.call(CpuId(0), name, args)
    }

    /// Calls with code behind the numbers.
    pub fn call_code(&mut self, name: &str, args: &[u64], code: &[u8]) -> i64 {
        let mut args = values(args);
        args.push(Arg::Code(code.to_vec()));
        self.try_call(name, &args).unwrap().value
    }

    /// Events since the last look.
    pub fn events(&mut self) -> Vec<Event> {
        self.take().events
    }

    pub fn take(&mut self) -> Batch {
        let batch = self.kernel.machine_mut().take_batch();
        self.names.absorb(&batch);
        batch
    }

    /// The same as lines, without what calls need of their context (`tests/contexts.rs` looks at
    /// that).
    pub fn trace(&mut self) -> Vec<String> {
        let all = self.trace_all();
        all.into_iter().filter(|l| !is_need(l)).collect()
    }

    /// All of them.
    pub fn trace_all(&mut self) -> Vec<String> {
        let batch = self.take();
        batch.events.iter().map(|e| self.line(&batch, e)).collect()
    }

    fn line(&self, batch: &Batch, e: &Event) -> String {
        let op = insn::by_id(insn::OpId(e.op.0)).map_or("", |row| row.name);
        let at = |virt: u64| self.place(virt);
        let text = match e.view() {
            View::CallEntered { name, .. } => format!("call {}", self.names.get(name)),
            View::CallReturned { value, failed, .. } => {
                let value = if (-4095..4096).contains(&value) {
                    value.to_string()
                } else {
                    at(value as u64)
                };
                format!("return {value}{}", if failed { " failed" } else { "" })
            }
            View::Leaf { virt, change, .. } => {
                let size = |shift: u8| match shift {
                    12..20 => format!("{}K", 1u64 << (shift - 10)),
                    20..30 => format!("{}M", 1u64 << (shift - 20)),
                    _ => format!("{}G", 1u64 << (shift - 30)),
                };
                let sizes = if change.shift == change.old_shift {
                    size(change.shift)
                } else {
                    format!("{}>{}", size(change.old_shift), size(change.shift))
                };
                let (old, new) = (change.old.letters(), change.new.letters());
                let bit = |contiguous| if contiguous { "c" } else { "" };
                let (was, is) = (bit(change.was_contiguous), bit(change.attributes.contiguous));
                format!("leaf {} {}x{sizes} {old}{was}>{new}{is}", at(virt.0), change.count)
            }
            View::TlbInvalidate { scope, reach, virt, .. } => {
                let reach = if reach == Reach::Local { "local" } else { "broadcast" };
                let virt = if virt.0 == 0 { String::new() } else { format!(" {}", at(virt.0)) };
                format!("{op}: tlb {scope:?} {reach}{virt}")
            }
            View::Barrier { .. } => op.to_owned(),
            View::CacheClean { virt, .. } | View::IcacheInvalidate { virt, .. } => {
                format!("{op} {}", at(virt.0))
            }
            View::ContextSync { cause } => format!("sync {cause:?} {op}").trim_end().to_owned(),
            View::SpaceLoaded { no_flush, .. } => {
                format!("space {}{}", e.space.0, if no_flush { " noflush" } else { "" })
            }
            View::Store { virt, bytes, .. } => {
                format!("store {} {}", at(virt.0), batch.bytes(bytes).len())
            }
            View::Fill { virt, what, .. } => {
                let what = batch.bytes(what);
                let len = what.get(..8).map(|b| u64::from_le_bytes(b.try_into().unwrap()));
                format!("fill {} {:#x} {:02x?}", at(virt.0), len.unwrap(), &what[8..])
            }
            View::Load { virt, len, .. } => format!("load {} {len}", at(virt.0)),
            View::IpiSent { function, targets, .. } => {
                format!("ipi {} to {targets:#b}", self.names.get(function))
            }
            View::IpiTaken { .. } => "taken".to_owned(),
            View::IpiDone { waited, .. } => if waited { "waited" } else { "done" }.to_owned(),
            View::LockAcquired { lock } => format!("lock {}", self.names.get(lock)),
            View::LockReleased { lock } => format!("unlock {}", self.names.get(lock)),
            View::Warned { reason, .. } => format!("WARN {reason:?}"),
            View::Refused { what, reason, virt, len, .. } => {
                format!("refused {what:?} {reason:?} {} {len:#x}", at(virt.0))
            }
            View::Promised { what, virt, len, .. } => {
                format!("promised {what:?} {} {len:#x}", at(virt.0))
            }
            View::WindowOpened { purpose, len, .. } => format!("window {purpose:?} {len:#x}"),
            View::WindowClosed { .. } => "window closed".to_owned(),
            View::AreaMade { virt, len, shift } => format!("area {} {len:#x} {shift}", at(virt.0)),
            View::AreaRemoved { virt, len } => format!("area gone {} {len:#x}", at(virt.0)),
            View::FrameAlloc { count, .. } => format!("frames +{count}"),
            View::FrameFree { count, .. } => format!("frames -{count}"),
            View::ResultUsed { .. } => "result used".to_owned(),
            View::ResultDropped { .. } => "result dropped".to_owned(),
            View::Region { owner, name, .. } => {
                format!("region {} {}", self.names.get(owner), self.names.get(name))
            }
            View::PatchSite { virt, .. } => format!("patch site {}", at(virt.0)),
            View::Compared { virt, bytes, equal, .. } => {
                let verdict = if equal { "equal" } else { "differs" };
                format!("compared {} {} {verdict}", at(virt.0), batch.bytes(bytes).len())
            }
            View::Needs { what, lock, .. } => {
                format!("needs {what:?} {}", self.names.get(lock)).trim_end().to_owned()
            }
            View::TrapHandler { virt, len, registered } => {
                let what = if registered { "known" } else { "forgotten" };
                format!("handler {} {len} {what}", at(virt.0))
            }
            View::Fault { virt, access, reason } => {
                format!("fault {} {access:?} {reason:?}", at(virt.0))
            }
            other => format!("{other:?}"),
        };
        let irqs = if e.flags.has(textbed_event::Flags::IRQS_OFF) { "-" } else { " " };
        format!("{}{irqs}{text}", e.cpu.0)
    }

    /// An address by the range that it lies in.
    fn place(&self, virt: u64) -> String {
        for (name, start, len) in &self.marks {
            if virt.wrapping_sub(*start) < *len {
                return format!("{name}+{:#x}", virt - start);
            }
        }
        let layout = self.kernel.layout();
        let ranges = [
            ("text", layout.text),
            ("mod", layout.modules),
            ("vm", layout.vmalloc),
            ("dm", layout.direct_map),
        ];
        for (name, range) in ranges {
            if range.contains(VirtAddr(virt)) {
                return format!("{name}+{:#x}", virt - range.start.0);
            }
        }
        let pages = self.kernel.pages();
        if pages.start_of(VirtAddr(virt)) == layout.patch {
            return format!("alias+{:#x}", pages.offset_of(VirtAddr(virt)));
        }
        format!("{virt:#x}")
    }
}

/// Begins a call on a CPU and goes on with it, `between` after each step that lets others in.
pub fn run(
    bed: &mut Bed,
    cpu: CpuId,
    (name, args): (&str, &[Arg]),
    mut between: impl FnMut(&mut Bed),
) -> i64 {
    let mut progress = bed.kernel.begin(cpu, name, args).unwrap();
    loop {
        match progress {
            Progress::Done(value) => return value.value,
            Progress::More => between(bed),
            Progress::Waits(wait) => panic!("{name} waits for {wait}"),
        }
        progress = bed.kernel.resume(cpu).unwrap();
    }
}

pub fn values(args: &[u64]) -> Vec<Arg> {
    args.iter().map(|v| Arg::Value(*v)).collect()
}

fn is_need(line: &str) -> bool {
    line.get(2..).is_some_and(|l| l.starts_with("needs "))
}

/// Powerpc's `patch_instruction` in an address space of its own (since 6.2), of the instruction at
/// `at` of area `a`.
pub fn power_patch(at: u64) -> String {
    power_patch_at(at, at, "4K", 0x1000)
}

/// The same in a kernel of other pages; `offset`: of the instruction in its page.
pub fn power_patch_at(at: u64, offset: u64, size: &str, page: u64) -> String {
    format!(
        "        0 call patch_instruction
        0 patch site a+{at:#x}
        0-window PatchPrivate {page:#x}
        0-leaf alias+0x0 1x{size} --->rw-
        0-ptesync
        0-sync Instruction isync
        0-space 1 noflush
        0-sync Instruction isync
        0-store alias+{offset:#x} 4
        0-dcbst alias+{offset:#x}
        0-sync
        0-icbi a+{at:#x}
        0-sync
        0-sync Instruction isync
        0-space 0 noflush
        0-sync Instruction isync
        0-leaf alias+0x0 1x{size} rw->---
        0-ptesync
        0-tlbiel: tlb Address local alias+0x0
        0-ptesync
        0-window closed
        0 return 0"
    )
}

/// The same by a page of the vmalloc area, for every CPU to see and flushed everywhere by an
/// address in `flushed`. `interrupt`: its translation is made at the store.
pub fn power_patch_shared(at: u64, page: &str, flushed: &str, interrupt: bool) -> String {
    let around = |edge| if interrupt { format!("0-sync Exception{edge}") } else { String::new() };
    let (entry, back) = (around("Entry"), around("Return"));
    format!(
        "        0 call patch_instruction
        0 patch site a+{at:#x}
        0-window PatchShared 0x1000
        {entry}
        0-leaf {page}+0x0 1x4K --->rw-
        0-ptesync
        {back}
        0-store {page}+{at:#x} 4
        0-dcbst {page}+{at:#x}
        0-sync
        0-icbi a+{at:#x}
        0-sync
        0-sync Instruction isync
        0-leaf {page}+0x0 1x4K rw->---
        0-ptesync
        0-tlbie: tlb Address broadcast {flushed}+0x0
        0-eieio
        0-tlbsync
        0-ptesync
        0-window closed
        0 return 0"
    )
}

/// What arm64's patchers do around a `write` to a fixmap slot of `page` bytes, as traces write it.
pub fn arm64_fixmap_write(page: u64, written: &str, write: &str) -> String {
    format!(
        "
        0-window PatchShared {page:#x}
        0-leaf alias+0x0 1x{written} --->rw-
        0-dsb ishst
        0-sync Instruction isb
        0-{write}
        0-leaf alias+0x0 1x{written} rw->---
        0-dsb ishst
        0-tlbi vaale1is: tlb AddressLastLevel broadcast alias+0x0
        0-dsb ish
        0-sync Instruction isb
        0-window closed"
    )
}

/// Marks the page of the vmalloc area that powerpc's patcher stored through as `alias`; `at` is
/// where in it.
pub fn mark_power_alias(bed: &mut Bed, at: u64) {
    let trace = bed.trace();
    let store = trace.iter().find_map(|l| l.split("store ").nth(1)).expect("a store");
    let offset = store.split("+0x").nth(1).and_then(|l| l.split(' ').next()).expect("an offset");
    let page = u64::from_str_radix(offset, 16).unwrap() - at;
    bed.mark("alias", bed.kernel.layout().vmalloc.start.0 + page, 1 << 12);
}

/// Compares a trace with lines worked out by hand; `#` begins a comment.
pub fn expect(trace: &[String], golden: &str) {
    let golden: Vec<&str> = golden
        .lines()
        .map(|l| l.split('#').next().unwrap_or("").trim_end())
        .map(|l| l.strip_prefix("        ").unwrap_or(l))
        .filter(|l| !l.trim().is_empty())
        .filter(|l| !is_need(l))
        .collect();
    if trace != golden {
        for (n, (a, b)) in trace.iter().zip(&golden).enumerate() {
            if a != b {
                println!("first difference, line {}: got '{a}', expected '{b}'", n + 1);
                break;
            }
        }
        panic!("got\n{}\n\nexpected\n{}", trace.join("\n"), golden.join("\n"));
    }
}
