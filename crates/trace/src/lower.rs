//! From lines to events: the state of a replay and the dispatch by [`Meaning`].
//!
//! What the log shows is emitted as recorded; what follows from it (the end of a patcher's window,
//! the receivers of a cross-call, an alias walked by the kernel) as inferred; what only the
//! kernel's rules say (arm64's TLB invalidations) as modelled. Physical addresses are used where a
//! log has them (direct map aliases) and are otherwise unknown, never guessed.
//!
//! Topics: [`areas`] what is mapped, [`change`] permissions, [`text`] patching, [`sync`] order
//! between CPUs, [`owners`] who has executable memory, [`unseen`] what went away before a probe was
//! there, [`frees`] frames that go back, [`promises`] what patchers promise, [`sections`] where
//! another boot begins, [`conflicts`] what contradicts the model, [`emit`] how events leave.

mod areas;
mod change;
mod conflicts;
mod emit;
mod frees;
mod owners;
mod promises;
mod sections;
mod sync;
mod text;
mod unseen;

use crate::accounting::{Accounting, Class, Reason};
use crate::areas::Areas;
use crate::bounds::{Bound, Dropped};
use crate::calls::{Calls, Frame, Stack};
use crate::conflicts::Conflicts;
use crate::coverage::{Probed, Seen};
use crate::detect::Kernel;
use crate::foreign::{Decoder, Foreign};
use crate::ftrace::{Comment, Context, Event as LogEvent, Fields, Heads, Parsed, number};
use crate::functions::{self, Function, Hit, Meaning, Recent, Ret, Symbols};
use crate::mappings::{Changed, Mappings};
use crate::model::Model;
use crate::perms::Bits;
use crate::reader::Line;
use crate::summary::{Counts, MARKERS};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use textbed_arch::{Arch, CpuId};
use textbed_event::{
    Context as EventContext, Event, Flags, Header, Kind, NameId, Order, Origin, Provenance,
    Recorder, Sink, View,
};

/// Where and when the current event happened.
#[derive(Debug, Clone, Copy)]
struct Now {
    stack: Stack,
    cpu: CpuId,
    at_ns: u64,
    flags: Flags,
}

/// The state of a replay.
pub(crate) struct Lower<'s> {
    pub(crate) kernel: Kernel,
    header: Header,
    probed: Probed,
    seen: Seen,
    sink: &'s mut dyn Sink,
    rec: Recorder,
    names: FxHashMap<String, NameId>,
    /// Functions with a probe at their return, and the name of each, by the place of its row.
    returns: FxHashMap<*const Function, NameId>,
    /// The files that are read as one.
    files: Vec<NameId>,
    /// The sink wants no more.
    pub(crate) stopped: bool,
    pub(crate) mappings: Mappings,
    pub(crate) areas: Areas,
    calls: Calls,
    now: Now,
    changed: Vec<Changed>,
    change: change::State,
    sync: sync::State,
    text: text::State,
    owners: owners::State,
    unseen: unseen::State,
    frees: frees::State,
    promises: promises::State,
    protocol: conflicts::Steps,
    pub(crate) conflicts: Conflicts,
    model: Model,
    pub(crate) accounting: Accounting,
    /// Events that the headers of the files count, and those that are there.
    entries: (u64, u64),
    pub(crate) counts: Counts,
    events: [u64; Kind::ALL.len()],
    pub(crate) markers: Vec<(u64, String)>,
    pub(crate) marker_count: u64,
    pub(crate) sections: sections::Sections,
    stop_at: Option<String>,
    pub(crate) stopped_at: Option<u64>,
    /// Where the direct map is by the documentation, in every boot.
    pub(crate) documented: Option<u64>,
    /// The line at hand is of a later time than those that follow: a duration said so.
    ahead: bool,
    line: (u32, u64),
    /// The line that events come from.
    origin: Option<Origin>,
    decoder: Decoder,
    heads: Heads,
    recent: Recent,
    /// What was too much, but for what has counts of its own.
    dropped: Dropped,
    /// What is known of the machine's names.
    pub(crate) symbols: Symbols,
}

/// The functions with a probe at their return; their names are interned when they are first used.
fn returns_of(probed: &Probed) -> FxHashMap<*const Function, NameId> {
    let rows = probed.returns.iter().filter_map(|name| functions::by_name(name.as_bytes()));
    rows.map(|f| (std::ptr::from_ref(f), NameId::NONE)).collect()
}

impl<'s> Lower<'s> {
    pub(crate) fn new(
        inputs: &[String],
        kernel: Kernel,
        header: Header,
        probed: Probed,
        sink: &'s mut dyn Sink,
    ) -> Self {
        let mut rec = Recorder::new();
        let returns = returns_of(&probed);
        let files = inputs.iter().map(|input| rec.name(input)).collect();
        let stopped = sink.begin(&header).is_break();
        let arch = kernel.arch;
        let now = Now {
            stack: Stack::default(),
            cpu: CpuId(0),
            at_ns: Event::NO_TIME,
            flags: Flags::default(),
        };
        Self {
            mappings: Mappings::new(Bits::new(kernel.format)),
            kernel,
            header,
            seen: probed.seen(arch),
            probed,
            sink,
            rec,
            names: FxHashMap::default(),
            returns,
            files,
            stopped,
            areas: Areas::default(),
            calls: Calls::default(),
            now,
            changed: Vec::new(),
            change: change::State::default(),
            sync: sync::State::default(),
            text: text::State::default(),
            owners: owners::State::default(),
            unseen: unseen::State::default(),
            frees: frees::State::default(),
            promises: promises::State::default(),
            protocol: conflicts::Steps::default(),
            conflicts: Conflicts::default(),
            model: Model::default(),
            accounting: Accounting::default(),
            entries: (0, 0),
            counts: Counts::default(),
            events: [0; Kind::ALL.len()],
            markers: Vec::new(),
            marker_count: 0,
            sections: sections::Sections::default(),
            stop_at: None,
            stopped_at: None,
            documented: None,
            ahead: false,
            line: (0, 0),
            origin: None,
            decoder: Decoder::default(),
            heads: Heads::default(),
            recent: Recent::default(),
            dropped: Dropped::default(),
            symbols: Symbols::default(),
        }
    }

    /// Stops before the first marker with this text.
    pub(crate) fn stop_at(&mut self, marker: Option<String>) {
        self.stop_at = marker;
    }

    /// Takes a line: counts it and emits what it means.
    pub(crate) fn line(&mut self, line: Line<'_>) {
        self.line = (line.file, line.number);
        self.mappings.line();
        let class = if line.terminated {
            self.parsed(line)
        } else {
            Class::NotUnderstood(Reason::Unterminated)
        };
        // It may have been an event, which is lost then.
        if let Class::NotUnderstood(reason) = class
            && reason.may_be_lost()
            && self.origin.is_some()
        {
            self.gap(u64::MAX);
        }
        self.accounting.bytes += line.taken;
        self.accounting.add(class, (line.file, line.number), line.bytes);
        self.send_if_full();
    }

    fn parsed(&mut self, line: Line<'_>) -> Class {
        match &self.heads.parse(line.bytes) {
            Parsed::Event(e) => {
                self.entries.1 += 1;
                self.at(line);
                self.event(e)
            }
            Parsed::Comment(Comment::Entries { in_buffer, written, .. })
                if written <= in_buffer =>
            {
                self.entries.0 = self.entries.0.saturating_add(*in_buffer);
                Class::Comment
            }
            Parsed::Comment(Comment::Entries { in_buffer, written, .. }) if written > in_buffer => {
                self.entries.0 = self.entries.0.saturating_add(*in_buffer);
                self.gap(u64::MAX);
                Class::Overwritten(written - in_buffer)
            }
            Parsed::Comment(Comment::BufferStarted(cpu)) => {
                self.gap(1u64 << (*cpu).min(63));
                Class::Lost(None)
            }
            Parsed::Comment(_) | Parsed::Blank => Class::Comment,
            Parsed::Lost(cpu, count) => {
                self.gap(cpu.map_or(u64::MAX, |c| 1u64 << c.min(63)));
                Class::Lost(*count)
            }
            Parsed::Stack | Parsed::Printk => Class::NotNeeded,
            Parsed::Unknown => self.foreign(line),
        }
    }

    /// Events come from this line, until another is named. A line without any leaves nothing.
    fn at(&mut self, line: Line<'_>) {
        self.origin = Some(Origin {
            file: self.files.get(line.file as usize).copied().unwrap_or(NameId::NONE),
            line: u32::try_from(line.number).unwrap_or(u32::MAX),
            offset: line.offset,
            len: u32::try_from(line.bytes.len()).unwrap_or(u32::MAX),
        });
    }

    /// A line of another format: it counts as used if one of the events in it was.
    fn foreign(&mut self, line: Line<'_>) -> Class {
        let mut decoder = std::mem::take(&mut self.decoder);
        let class = match decoder.line(line.bytes) {
            Foreign::Lines => {
                self.at(line);
                let mut class = Class::NotUnderstood(Reason::NoEvent);
                for (text, ahead) in decoder.timed_lines() {
                    if let Parsed::Event(e) = crate::ftrace::parse(text) {
                        self.ahead = ahead;
                        let new = self.event(&e);
                        self.ahead = false;
                        if class != Class::Used {
                            class = new;
                        }
                    }
                }
                class
            }
            Foreign::Lost(count) => {
                self.gap(u64::MAX);
                Class::Lost(count)
            }
            Foreign::NotNeeded => Class::NotNeeded,
            Foreign::Cpus(_) => Class::Comment,
            Foreign::Unknown => Class::NotUnderstood(Reason::NoEvent),
        };
        self.decoder = decoder;
        class
    }

    /// What was too much for a table.
    pub(crate) fn dropped(&self) -> Dropped {
        let mut all = self.dropped;
        all.add_all(self.mappings.dropped());
        all.add_all(self.calls.dropped());
        all.add_all(self.decoder.dropped());
        all.add(Bound::Areas, usize::try_from(self.areas.counts().refused).unwrap_or(usize::MAX));
        all
    }

    /// Calls that a tracer printed without their arguments.
    pub(crate) fn without_arguments(&self) -> u64 {
        self.decoder.without_arguments()
    }

    fn gap(&mut self, cpus: u64) {
        self.patches_torn();
        let kinds = self.header.records;
        self.emit(View::Gap { cpus, kinds }, Provenance::Recorded);
    }

    fn event(&mut self, e: &LogEvent<'_>) -> Class {
        self.moment(e);
        let hit = self.recent.classify(e, &self.symbols);
        self.settle(e, &hit);
        self.settle_frees(&hit);
        self.settle_patch(&hit);
        match hit {
            Hit::Entry(f) => self.entry(f, e),
            Hit::Return(f) => self.returned(f, e),
            Hit::Inside(_) => Class::NotNeeded,
            // A line of the function tracer, without an event's name.
            Hit::Unknown if e.name.is_empty() => Class::NotNeeded,
            Hit::Unknown => Class::NotUnderstood(Reason::UnknownEvent),
        }
    }

    /// Takes over who, where and when.
    fn moment(&mut self, e: &LogEvent<'_>) {
        let at_ns = e.time.nanos().unwrap_or(Event::NO_TIME);
        let mut flags = Flags::default();
        if let Some(f) = e.flags {
            flags = flags.in_context(match f.context {
                Context::Task => EventContext::Task,
                Context::Softirq => EventContext::SoftIrq,
                Context::Irq | Context::IrqInSoftirq => EventContext::Irq,
                Context::Nmi | Context::NmiInIrq => EventContext::Nmi,
            });
            // A kprobe on arm64 is a breakpoint, which masks interrupts: the flag is always set.
            let by_probe = self.kernel.arch == Arch::Arm64 && e.location().is_some();
            if f.irqs_off && !by_probe {
                flags = flags.with(Flags::IRQS_OFF);
            }
        }
        if at_ns != Event::NO_TIME {
            self.clock(at_ns, e.cpu);
        }
        // Once the clock went backwards, lines of different CPUs have no order that can be trusted.
        if self.counts.time_backwards > 0 {
            flags = flags.ordered(Order::PerCpu);
        }
        let cpu = CpuId(u16::try_from(e.cpu).unwrap_or(u16::MAX));
        self.now = Now { stack: Stack::of(e), cpu, at_ns, flags };
        self.cpu_shows();
    }

    fn entry(&mut self, f: &'static Function, e: &LogEvent<'_>) -> Class {
        if f.meaning == Meaning::NotNeeded {
            return Class::NotNeeded;
        }
        if f.meaning == Meaning::Marker {
            return self.marker(e);
        }
        let e = &Fields::of(e, f.args);
        if e.location().is_some() {
            self.enter(f, e);
        }
        self.owner_entry(f);
        let done = match f.meaning {
            Meaning::VmallocRange
            | Meaning::AllocArea
            | Meaning::MapPages
            | Meaning::UnmapPages
            | Meaning::RemoveArea
            | Meaning::PurgeCall
            | Meaning::Purged
            | Meaning::Vmap => self.area_entry(f.meaning, e),
            Meaning::SetMemory(_)
            | Meaning::CpaCall
            | Meaning::CpaWalk
            | Meaning::CpaFlush
            | Meaning::ChangeMemoryCall
            | Meaning::ChangeMemoryApply
            | Meaning::AttrCall
            | Meaning::AttrPage
            | Meaning::DirectMap(_) => self.change_entry(f, e),
            Meaning::TextPoke
            | Meaning::StoreDirect
            | Meaning::PatchTrap
            | Meaning::TextCopy
            | Meaning::IcacheRange
            | Meaning::StopMachine => self.text_entry(f, e),
            Meaning::CrossCall { .. }
            | Meaning::IpiSend
            | Meaning::Remote(_)
            | Meaning::LocalFlushAll
            | Meaning::LocalFlushOne
            | Meaning::BroadcastFlush => return self.sync_entry(f, e),
            Meaning::ModuleStep => self.module_step(e),
            Meaning::PatchBatch => {
                self.patch_begins(f);
                Some(())
            }
            Meaning::GiveBack => e.number(b"addr").map(|addr| self.give_back(addr)),
            Meaning::PagesFreed => self.pages_of_allocator(e, true),
            Meaning::PagesTaken => self.pages_of_allocator(e, false),
            Meaning::ExecAlloc(_)
            | Meaning::ExecmemAlloc
            | Meaning::ExecPiece(_)
            | Meaning::ExecPage(_)
            | Meaning::Call
            | Meaning::PatchStep
            | Meaning::FreeStep
            | Meaning::Marker
            | Meaning::NotNeeded => Some(()),
        };
        done.map_or(Class::NotUnderstood(Reason::BadArguments), |()| Class::Used)
    }

    /// Begins a call, or counts it where no return will end it.
    fn enter(&mut self, f: &'static Function, e: &Fields<'_>) {
        let Some(known) = self.returns.get(&std::ptr::from_ref(f)).copied() else {
            self.calls.seen(f);
            return;
        };
        let args = e.numbers();
        let words = args.map(|arg| arg.unwrap_or(u64::MAX).to_le_bytes());
        let call = self.rec.new_call();
        let name = if known == NameId::NONE {
            let name = self.name(f.name);
            self.returns.insert(f, name);
            name
        } else {
            known
        };
        let words = words.get(..f.args.len()).unwrap_or(&words);
        let bytes = self.rec.bytes(words.as_flattened());
        self.emit(View::CallEntered { call, name, args: bytes }, Provenance::Recorded);
        let frame = Frame { call, function: f, args };
        self.calls.enter(self.now.stack, frame);
    }

    fn returned(&mut self, f: &'static Function, e: &LogEvent<'_>) -> Class {
        let raw = e.number(b"ret").or_else(|| e.args().find_map(|a| number(a.value)));
        let raw = raw.or((f.ret == Ret::Void).then_some(0));
        let Some(raw) = raw else {
            self.calls.leave(self.now.stack, f, false);
            return Class::NotUnderstood(Reason::BadArguments);
        };
        let (value, failed) = f.ret.read(raw);
        self.before_return(f, failed);
        if f.meaning == Meaning::TextCopy {
            self.close_call_windows();
            self.copied();
            self.copy_returns(f, failed);
        }
        let Some(frame) = self.calls.leave(self.now.stack, f, failed) else { return Class::Used };
        self.area_return(&frame, raw, failed);
        self.owner_return(&frame, e, raw, failed);
        let call = frame.call;
        self.emit(View::CallReturned { call, value, failed }, Provenance::Recorded);
        self.contradicts(&frame, value);
        self.change_return(&frame, failed);
        Class::Used
    }

    fn marker(&mut self, e: &LogEvent<'_>) -> Class {
        let text = String::from_utf8_lossy(e.body).into_owned();
        if self.stop_at.as_ref() == Some(&text) {
            self.stopped_at = Some(self.line.1);
            self.stopped = true;
            return Class::Used;
        }
        let text = self.short(&text);
        let name = self.name(text);
        self.emit(View::Marker { name }, Provenance::Recorded);
        self.marker_count += 1;
        if self.markers.len() < MARKERS {
            self.markers.push((self.line.1, text.to_owned()));
        }
        Class::Used
    }

    /// Ends what is open and sends the rest.
    pub(crate) fn finish(&mut self) -> BTreeMap<&'static str, crate::calls::CallCount> {
        let at_marker = self.stopped_at.is_some();
        self.settle_all();
        if !at_marker {
            let (said, there) = self.entries;
            self.accounting.missing = said.saturating_sub(there);
            self.accounting.torn = self.calls.torn();
            if self.accounting.missing > 0 || self.accounting.torn > 0 {
                self.gap(0);
            }
        }
        if at_marker {
            // Stopping was our own wish: the sink still gets what came before.
            self.stopped = false;
        }
        self.send();
        self.dropped.add_all(self.calls.dropped());
        std::mem::take(&mut self.calls).finish()
    }
}
