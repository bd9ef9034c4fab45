//! The kernel functions and tracepoints whose events are understood, as a table.
//!
//! A log's names mean something only here: everything behind this table works on [`Meaning`]s. A
//! kprobe event is looked up by the symbol in its place (`(set_memory_ro+0x4/0x40)`), so that a
//! probe may be called anything; by the event's name only where the symbol is not known (static
//! functions whose symbol was changed by the compiler keep it up to the first dot).
//!
//! Not modelled: functions not listed (their events count as not understood), and probes in the
//! middle of a function.

mod arm64;
mod common;
mod powerpc;
mod recent;
mod symbols;
mod x86;

pub(crate) use recent::Recent;
pub use symbols::Symbols;

use crate::ftrace::{Event, Location, scan};
use crate::perms::Action;
use rustc_hash::FxHashMap;
use std::sync::LazyLock;
use textbed_arch::{Arch, Cite};
use textbed_kernel::Version;

/// Probe offsets up to this many bytes are a function's entry: `endbr64` is 4 bytes, powerpc's
/// two entries are 8 apart with up to 4 behind, arm64's `bti c` and patchable entry 4 to 12.
pub(crate) const ENTRY_BYTES: u64 = 16;

/// Architectures that have a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// All.
    All,
    /// x86-64 alone: an event of it says so of the whole log.
    X86,
    /// arm64 alone.
    Arm64,
    /// powerpc alone.
    Power,
    /// x86-64 and arm64.
    X86Arm64,
}

impl On {
    /// Whether that architecture has it.
    pub fn has(self, arch: Arch) -> bool {
        match self {
            On::All => true,
            On::X86 => arch == Arch::X86_64,
            On::Arm64 => arch == Arch::Arm64,
            On::Power => arch.is_powerpc(),
            On::X86Arm64 => matches!(arch, Arch::X86_64 | Arch::Arm64),
        }
    }
}

/// What a function's result means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ret {
    /// None, or nothing that matters.
    Void,
    /// An int: 0, or a negative error code.
    Errno,
    /// A pointer: null is failure.
    Pointer,
    /// A pointer or an error code in a pointer.
    PointerErr,
}

impl Ret {
    /// The printed value as a signed number, and whether it says failure.
    pub fn read(self, raw: u64) -> (i64, bool) {
        match self {
            Ret::Void => (raw.cast_signed(), false),
            Ret::Errno => {
                // The register's upper half means nothing for an int.
                let value = i64::from((raw as u32).cast_signed());
                (value, value < 0)
            }
            Ret::Pointer => (raw.cast_signed(), raw == 0),
            Ret::PointerErr => {
                (raw.cast_signed(), raw == 0 || (-4095..0).contains(&raw.cast_signed()))
            }
        }
    }
}

/// What the CPU does that runs a cross-called function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// A serialising instruction.
    SyncCore,
    /// Drops all translations of this CPU.
    FlushAll,
    /// Drops the translations of a range.
    FlushRange,
    /// Nothing: it is called for the interrupt's sake.
    Nothing,
    /// `isync`.
    Isync,
}

/// Who asked for executable memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A module; its name comes later.
    Module,
    /// The BPF JIT.
    Bpf,
    /// A trampoline of BPF.
    BpfTrampoline,
    /// Instruction slots of kprobes.
    Kprobes,
    /// Trampolines of ftrace.
    Ftrace,
}

impl Owner {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Owner::Module => "module",
            Owner::Bpf => "bpf",
            Owner::BpfTrampoline => "bpf trampoline",
            Owner::Kprobes => "kprobes",
            Owner::Ftrace => "ftrace",
        }
    }
}

/// What an event of a function or tracepoint means to this crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// An area with pages is allocated: `size`, `vmflags`; returns its address.
    VmallocRange,
    /// An area was reserved: `va_start`, `size` with guard page, `failed`.
    AllocArea,
    /// Pages are mapped: `start`, `end`, `prot`.
    MapPages,
    /// Page-table entries are cleared: `start`, `end`.
    UnmapPages,
    /// The area that holds `addr` is taken out of the list.
    RemoveArea,
    /// Areas freed before are flushed from the TLBs: `start`, `end` of the caller's own range.
    PurgeCall,
    /// The same, after the fact, with the range that was flushed: `start`, `end`, `num_purged`.
    Purged,
    /// A permission change: `addr`, `numpages`.
    SetMemory(Action),
    /// x86: the change with its masks: `addr`, `numpages`, `set`, `clr`.
    CpaCall,
    /// x86: the walk that changes entries: `vaddr`. (The argument `numpages` of some recordings is
    /// not looked at: it is a mask.)
    CpaWalk,
    /// arm64: the change with its masks: `addr`, `numpages`, `set`, `clr`.
    ChangeMemoryCall,
    /// arm64: entries are changed: `start`, `size`, `set`, `clr`.
    ChangeMemoryApply,
    /// powerpc: `addr`, `numpages`, `action`.
    AttrCall,
    /// powerpc: one entry is changed: `addr`, `data` = the action.
    AttrPage,
    /// The direct map of one page, by its `struct page`, is made invalid or valid again.
    DirectMap(Action),
    /// A patcher opens its alias, stores and closes it: `addr`, `len`.
    TextPoke,
    /// Code is stored without an alias: `addr`, `len`.
    StoreDirect,
    /// A live instruction is replaced through a trap: `addr`, `len`.
    PatchTrap,
    /// x86: stores to live code and the synchronisation behind them happen inside of it.
    PatchBatch,
    /// x86: a call inside of one that patches, which says nothing more.
    PatchStep,
    /// A call inside of one that gives pages back, which says nothing more (Linux 6.12
    /// mm/vmalloc.c `vm_reset_perms`).
    FreeStep,
    /// Code is copied by a patcher whose inner functions no probe sees: `dst`, `len`.
    TextCopy,
    /// Other CPUs are asked to run `func`.
    CrossCall {
        /// By the function that others call for it, with the same `func`.
        inner: bool,
    },
    /// An interrupt goes to other CPUs (tracepoint): who, where it says so.
    IpiSend,
    /// This CPU runs a cross-called function.
    Remote(Runs),
    /// Translations of this CPU are dropped, all of them.
    LocalFlushAll,
    /// The translation of `addr` is dropped on this CPU.
    LocalFlushOne,
    /// powerpc radix: the kernel's translations are dropped on all CPUs.
    BroadcastFlush,
    /// Data is cleaned and instruction caches invalidated: `start`, `end`.
    IcacheRange,
    /// All other CPUs stand still while `fn` runs.
    StopMachine,
    /// Executable memory is allocated: `size`; returns its address. Who, where the name says it.
    ExecAlloc(Option<Owner>),
    /// Executable memory is allocated for `type`: `size`; returns its address.
    ExecmemAlloc,
    /// A piece of executable memory is handed out: `size`; returns its address.
    ExecPiece(Owner),
    /// One page, or less, of executable memory is handed out; returns its address.
    ExecPage(Owner),
    /// Something happens to the module called `name`.
    ModuleStep,
    /// A step of the workload.
    Marker,
    /// x86: the change of permissions is done and flushes.
    CpaFlush,
    /// An area is made for pages that the caller has; returns its address.
    Vmap,
    /// The area at `addr` is given back, with its pages, by whomever removes it.
    GiveBack,
    /// Pages went back to the page allocator: `pfn`, `order`.
    PagesFreed,
    /// Pages were handed out by the page allocator: `pfn`, `order`.
    PagesTaken,
    /// A call that is counted and nests, and means nothing else here.
    Call,
    /// Understood, and says nothing about executable memory.
    NotNeeded,
}

/// A row.
#[derive(Debug, Clone, Copy)]
pub struct Function {
    /// The function's or the tracepoint's name.
    pub name: &'static str,
    /// Who has it.
    pub on: On,
    /// What an event of it means.
    pub meaning: Meaning,
    /// Arguments that the meaning looks at, by the names used in `kprobe_events` of a recording;
    /// what it cannot do without is the reader's affair.
    pub args: &'static [&'static str],
    /// What it returns.
    pub ret: Ret,
    /// First kernel version with it and first without it again, where known. A release's first
    /// candidate stands for it: changes come before that.
    pub versions: (Option<Version>, Option<Version>),
    /// Where the meaning is from.
    pub cite: Cite,
}

const fn row(
    name: &'static str,
    on: On,
    meaning: Meaning,
    args: &'static [&'static str],
    ret: Ret,
    cite: Cite,
) -> Function {
    Function { name, on, meaning, args, ret, versions: (None, None), cite }
}

impl Function {
    const fn since(mut self, major: u16, minor: u16) -> Self {
        self.versions.0 = Some(Version::candidate(major, minor, 1));
        self
    }

    /// `minor` is the last that has it.
    const fn until(mut self, major: u16, minor: u16) -> Self {
        self.versions.1 = Some(Version::candidate(major, minor + 1, 1));
        self
    }

    /// Whether a kernel of that version has it, as far as the table knows.
    pub fn in_version(&self, version: Version) -> bool {
        textbed_kernel::in_range(version, self.versions.0, self.versions.1)
    }
}

/// All rows.
pub fn all() -> impl Iterator<Item = &'static Function> {
    common::ROWS.iter().chain(x86::ROWS).chain(arm64::ROWS).chain(powerpc::ROWS)
}

static INDEX: LazyLock<FxHashMap<&'static [u8], &'static Function>> =
    LazyLock::new(|| all().map(|f| (f.name.as_bytes(), f)).collect());

/// The row of that name.
pub fn by_name(name: &[u8]) -> Option<&'static Function> {
    INDEX.get(name).copied()
}

/// What an event is, once its function is found.
#[derive(Debug, Clone, Copy)]
pub enum Hit {
    /// Entry of a function, or a tracepoint.
    Entry(&'static Function),
    /// Return of a function.
    Return(&'static Function),
    /// A probe of a known function, but not at its entry.
    Inside(&'static Function),
    /// No row.
    Unknown,
}

/// The symbol without offset, size, module and compiler suffix, and the offset.
fn symbol(place: &[u8]) -> (&[u8], u64) {
    let end = scan::either(place, b'+', b' ').unwrap_or(place.len());
    let (name, rest) = place.split_at_checked(end).unwrap_or((place, b""));
    let name = match scan::byte(name, b'.') {
        Some(dot) if dot > 0 => name.get(..dot).unwrap_or(name),
        _ => name,
    };
    let offset = rest.strip_prefix(b"+").unwrap_or_default();
    let end = scan::either(offset, b'/', b' ').unwrap_or(offset.len());
    (name, offset.get(..end).and_then(crate::ftrace::number).unwrap_or(0))
}

/// Finds the function behind an event: by the symbol in its place, by the address there, by the
/// name of the probe, by the name of the event.
pub fn classify(event: &Event<'_>, symbols: &Symbols) -> Hit {
    let name = || symbols.event(event.name).or_else(|| symbols::by_event_name(event.name));
    match event.location() {
        Some(Location::Return { from, .. }) => by_name(symbol(from).0)
            .or_else(|| symbols.at(from).map(|(f, _)| f))
            .or_else(name)
            .map_or(Hit::Unknown, Hit::Return),
        Some(Location::At(place)) => {
            let (symbol, offset) = symbol(place);
            let found = by_name(symbol).map(|f| (f, offset)).or_else(|| symbols.at(place));
            let found = found.or_else(|| name().map(|f| (f, offset)));
            found.map_or(Hit::Unknown, |(f, offset)| at(f, offset))
        }
        None => by_name(event.name).map_or(Hit::Unknown, Hit::Entry),
    }
}

/// A probe so many bytes behind a function's first.
fn at(function: &'static Function, offset: u64) -> Hit {
    if offset > ENTRY_BYTES { Hit::Inside(function) } else { Hit::Entry(function) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ftrace::{Parsed, parse};

    #[test]
    fn names_are_unique_and_cited() {
        assert_eq!(INDEX.len(), all().count());
        for f in all() {
            assert!(!f.cite.source.is_empty(), "{}", f.name);
            // What is read once each, and in the order of the row.
            assert!(f.args.len() <= crate::calls::MAX_ARGS, "{}", f.name);
            let names: std::collections::BTreeSet<_> = f.args.iter().collect();
            assert_eq!(names.len(), f.args.len(), "{}", f.name);
            if let (Some(a), Some(b)) = f.versions {
                assert!(a <= b, "{}", f.name);
            }
        }
    }

    #[test]
    fn every_recorded_name_has_a_row() {
        for name in ["amd64-6.12", "arm64-6.12", "ppc64el-6.12"] {
            let path =
                format!("{}/../../tests/logs/{name}/event-counts.tsv", env!("CARGO_MANIFEST_DIR"));
            for line in std::fs::read_to_string(path).unwrap().lines() {
                let event = line.split_once('\t').unwrap().1;
                let function = event.strip_suffix("__ret").unwrap_or(event);
                assert!(by_name(function.as_bytes()).is_some(), "{name}: {function}");
            }
        }
    }

    #[test]
    fn probes_are_found_by_symbol_whatever_their_name() {
        let hit = |body: &str| {
            let line = format!("            init-1       [001] ..... 1.000000: {body}");
            match parse(line.as_bytes()) {
                Parsed::Event(e) => match classify(&e, &Symbols::default()) {
                    Hit::Entry(f) => format!("entry {}", f.name),
                    Hit::Return(f) => format!("return {}", f.name),
                    Hit::Inside(f) => format!("inside {}", f.name),
                    Hit::Unknown => "unknown".to_string(),
                },
                _ => panic!("{line}"),
            }
        };
        assert_eq!(hit("mine: (set_memory_ro+0x4/0x40) addr=0x0"), "entry set_memory_ro");
        assert_eq!(hit("mine: (set_memory_ro+0x24/0x40) addr=0x0"), "inside set_memory_ro");
        assert_eq!(hit("m: (f+0x3/0x9 [xfs] <- vfree) ret=0x0"), "return vfree");
        assert_eq!(hit("x: (vfree.part.0+0x0/0x240) addr=0x0"), "entry vfree");
        assert_eq!(hit("vfree: (other+0x0/0x240) addr=0x0"), "entry vfree");
        assert_eq!(hit("nobody: (nobody+0x0/0x240) addr=0x0"), "unknown");
        // As trace-cmd and perf print it, under the names that tools make.
        for (name, wanted) in [
            ("vfree", "entry vfree"),
            ("vfree__entry", "entry vfree"),
            ("p_vfree_0", "entry vfree"),
            ("vfree_1", "entry vfree"),
            ("vfree__nothing", "unknown"),
            ("p_0", "unknown"),
        ] {
            assert_eq!(hit(&format!("{name}: (ffffffff81234560) addr=0x0")), wanted);
        }
        for name in ["vfree__ret", "vfree__return", "vfree__exit", "r_vfree_0"] {
            let line = format!("{name}: (ffffffff81000000 <- ffffffff81234560) ret=0x0");
            assert_eq!(hit(&line), "return vfree");
        }
        assert_eq!(hit("alloc_vmap_area: va_start: 1 size=2"), "entry alloc_vmap_area");
    }

    #[test]
    fn addresses_and_names_of_probes_are_looked_up() {
        let mut symbols = Symbols::default();
        symbols.add_symbol("ffffffff81234560 T vfree");
        symbols.add_symbol("ffffffff81234580 t nobody");
        symbols.add_symbol("ffffffff81234600 d vmap");
        symbols.add_symbol("0000000000000000 T vunmap");
        symbols.add_symbol("torn");
        symbols.add_probe("mine", "remove_vm_area");
        let hit = |body: &str| {
            let line = format!("  a-1  [000]  1.5: {body}");
            let Parsed::Event(e) = parse(line.as_bytes()) else { panic!("{line}") };
            match classify(&e, &symbols) {
                Hit::Entry(f) => format!("entry {}", f.name),
                Hit::Return(f) => format!("return {}", f.name),
                Hit::Inside(f) => format!("inside {}", f.name),
                Hit::Unknown => "unknown".to_string(),
            }
        };
        assert_eq!(hit("x: (ffffffff81234560) addr=0x0"), "entry vfree");
        assert_eq!(hit("x: (ffffffff81234564) addr=0x0"), "entry vfree");
        assert_eq!(hit("x: (ffffffff81234580) addr=0x0"), "unknown");
        assert_eq!(hit("x: (ffffffff81234600) addr=0x0"), "unknown");
        assert_eq!(hit("x: (ffffffff81000000 <- ffffffff81234560) ret=0x0"), "return vfree");
        assert_eq!(hit("mine: (ffffffff81000000) addr=0x0"), "entry remove_vm_area");
    }

    #[test]
    fn results() {
        assert_eq!(Ret::Errno.read(0xffff_ffea), (-22, true));
        assert_eq!(Ret::Errno.read(0), (0, false));
        assert_eq!(Ret::Pointer.read(0), (0, true));
        assert_eq!(Ret::PointerErr.read(u64::MAX - 11), (-12, true));
        assert!(!Ret::PointerErr.read(0xffff_ffff_c000_0000).1);
    }
}
