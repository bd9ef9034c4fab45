//! The world of a real run: a modelled kernel on a modelled machine.

use std::collections::BTreeMap;

use textbed_arch::{CpuId, VirtAddr};
use textbed_event::{Batch, CallRef, NameId, NameTable, OriginId, Sink, View, WarnReason};
use textbed_kernel::{CallError, Kernel, Progress, Returns, Wait, find_call};
use textbed_machine::{CpuMask, MachineError, Stays, SyncSeen};

mod bare;
mod inside;
mod stops;

use self::bare::{OnMachine, Places};
use self::inside::Contexts;
use self::stops::{call_stopped, machine_stopped};
use super::RunOptions;
use super::arguments::{bytes, lower, place_of_argument, plain};
use super::builtin::{self, Does};
use super::engine::Note;
use super::guest::{GuestCall, Guests};
use super::preflight::diagnostic;
use super::world::{Bare, Called, Inside, Returned, Stop, World};
use crate::loaded::Loaded;
use crate::span::Span;
use crate::syntax::ast::{Arg, Block, Call, HandlerKind, Name};
use crate::value::{Environment, Value};

/// Events that wait before they are handed on.
const BATCH_EVENTS: usize = 4096;

/// A kernel, and what a run has to remember about it.
pub(super) struct KernelWorld<'a> {
    kernel: Kernel,
    sink: &'a mut dyn Sink,
    places: Places<'a>,
    guests: Guests,
    max_steps: u64,
    /// Machine code runs freely.
    free: bool,
    traps_handled: bool,
    /// Calls of several phases: what each returns, and where it is written.
    under_way: BTreeMap<CpuId, (Returns, Span)>,
    contexts: Contexts,
    names: NameTable,
    /// Names of calls, for notes about warnings inside them.
    calls: BTreeMap<CallRef, NameId>,
    notes: Vec<Note>,
    stopped: bool,
}

impl<'a> KernelWorld<'a> {
    pub(super) fn new(
        loaded: &'a Loaded,
        mut kernel: Kernel,
        options: &RunOptions,
        sink: &'a mut dyn Sink,
    ) -> Self {
        let file = kernel.machine_mut().recorder().name(loaded.path());
        let handles_traps = |block: &Block| matches!(block, Block::Handler { kind, .. } if kind.value == HandlerKind::Trap);
        let traps_handled = loaded.file().blocks.iter().any(|b| handles_traps(&b.value));
        let stopped = sink.begin(&kernel.machine().header()).is_break();
        KernelWorld {
            kernel,
            sink,
            places: Places { file, text: loaded.text(), lines: loaded.lines() },
            guests: Guests::new(),
            max_steps: options.max_steps,
            free: options.free,
            traps_handled,
            under_way: BTreeMap::new(),
            contexts: Contexts::default(),
            names: NameTable::default(),
            calls: BTreeMap::new(),
            notes: Vec::new(),
            stopped,
        }
    }

    /// Hands on what is left.
    pub(super) fn finish(&mut self) {
        self.flush();
    }

    /// Injected failures that nothing met.
    pub(super) fn unused_failures(&self) -> Vec<String> {
        self.kernel.unused_failures()
    }

    fn flush(&mut self) {
        let batch = self.kernel.machine_mut().take_batch();
        if batch.is_empty() {
            return;
        }
        self.names.absorb(&batch);
        self.note_warnings(&batch);
        if self.sink.batch(&batch).is_break() {
            self.stopped = true;
        }
        self.kernel.machine_mut().recorder().recycle(batch);
    }

    /// Warnings that the kernel gave, as notes.
    fn note_warnings(&mut self, batch: &Batch) {
        for event in &batch.events {
            match event.view() {
                View::CallEntered { call, name, .. } => {
                    self.calls.insert(call, name);
                }
                View::Warned { call, reason, virt } => {
                    let name = self.calls.get(&call).map_or("", |name| self.names.get(*name));
                    let place = place_of(batch, event.origin);
                    let inside = if name.is_empty() { String::new() } else { format!("{name}: ") };
                    let text = format!("{}: {inside}WARN: {} ({virt})", event.cpu, reason.text());
                    self.notes.push(Note { text, place, failed_assert: false });
                }
                _ => {}
            }
        }
    }

    fn guest_call(
        &mut self,
        cpu: CpuId,
        call: &Call,
        env: &dyn Environment,
    ) -> Result<Called, Stop> {
        let args = numbers(call, env)?;
        let Some((entry, args)) = args.split_first() else {
            let message = "`call` takes the address of the code".to_owned();
            return Err(Stop::Input(diagnostic(message, call.name.span, "no address", None)));
        };
        let guest = self.guest(cpu, call, *entry, args);
        let value = self.guests.call(&mut self.kernel, &guest)?;
        Ok(noted(call, Value::number(value)))
    }

    /// A call of code as those who run it want it.
    fn guest<'b>(&self, cpu: CpuId, call: &Call, entry: u64, args: &'b [u64]) -> GuestCall<'b> {
        GuestCall {
            cpu,
            written: call.to_string(),
            entry: VirtAddr(entry),
            args,
            max_steps: self.max_steps,
            free: self.free,
            traps_handled: self.traps_handled,
        }
    }

    /// Looks at memory with a CPU's data side.
    fn look(
        &mut self,
        cpu: CpuId,
        does: Does,
        call: &Call,
        env: &dyn Environment,
    ) -> Result<Called, Stop> {
        let wrong = || Stop::Input(diagnostic("no address".into(), call.name.span, "here", None));
        let mut args = call.args.iter();
        let addr = VirtAddr(plain(args.next().ok_or_else(wrong)?, env, call.name.span)?);
        let value = match (does, args.next()) {
            (Does::Fetch, _) => builtin::fetch_value(&mut self.kernel, cpu, call, addr)?,
            (Does::Load(len), _) => builtin::load_value(&mut self.kernel, cpu, call, addr, len)?,
            (_, Some(code)) => {
                let expected = bytes(self.kernel.arch(), code)?;
                builtin::compare(&mut self.kernel, cpu, call, addr, &expected)?
            }
            (_, None) => return Err(wrong()),
        };
        Ok(noted(call, value))
    }

    /// `preempt(entry, at)`: a task runs code until it would execute `at`, and is preempted there.
    fn preempt(&mut self, cpu: CpuId, call: &Call, env: &dyn Environment) -> Result<Called, Stop> {
        let [entry, at] = numbers(call, env)?[..] else {
            let message = "`preempt` takes where code is entered and where it is left".to_owned();
            return Err(Stop::Input(diagnostic(message, call.name.span, "two addresses", None)));
        };
        let guest = self.guest(cpu, call, entry, &[]);
        self.guests.preempt(&mut self.kernel, &guest, VirtAddr(at))?;
        Ok(unheard(Value::number(0), None))
    }

    /// `resume()`: the task that was preempted last on this CPU goes on to its end.
    fn resume_task(&mut self, cpu: CpuId, call: &Call) -> Result<Called, Stop> {
        let guest = self.guest(cpu, call, 0, &[]);
        let value = self.guests.resume(&mut self.kernel, &guest)?;
        Ok(noted(call, Value::number(value)))
    }

    /// `__TLBI_VADDR_RANGE(addr, asid, scale, num, ttl)`. BaseADDR alone is in units of 64 KiB
    /// where pages of another size translate 52 bits.
    fn tlbi_range(&self, call: &Call, env: &dyn Environment) -> Result<Called, Stop> {
        let args = numbers(call, env)?.try_into().ok();
        let machine = self.kernel.machine().config();
        let pages = u32::from(machine.page_shift);
        let base = if machine.va_bits == 52 { 16 } else { pages };
        let operand = args.and_then(|args| builtin::tlbi_range((pages, base), args));
        operand.map(|operand| unheard(operand, None)).ok_or_else(|| {
            let message =
                "scale and ttl are below 4, num below 32, the ASID below 65536".to_owned();
            Stop::Input(diagnostic(message, call.name.span, "no such operand", None))
        })
    }

    fn kernel_call(
        &mut self,
        cpu: CpuId,
        call: &Call,
        env: &dyn Environment,
        anyway: bool,
    ) -> Result<Called, Stop> {
        let (version, arch) = (self.kernel.version(), self.kernel.arch());
        let spec = find_call(&call.name.value, version, arch)
            .map_err(|error| call_stopped(error, call.name.span))?;
        let mut args = Vec::new();
        for (i, arg) in call.args.iter().enumerate() {
            args.push(lower(spec, i, arg, env, arch)?);
        }
        let name = &call.name.value;
        let began = if anyway {
            self.kernel.begin_anyway(cpu, name, &args)
        } else {
            self.kernel.begin(cpu, name, &args)
        };
        let began = began.map_err(|error| match error {
            CallError::Waits { wait: Wait::Cpus(cpus), .. } if anyway => Stop::Hangs(cpus),
            error => {
                let place = place_of_argument(spec, call, &error);
                call_stopped(error, place)
            }
        })?;
        Ok(self.progressed(cpu, (spec.returns, call.name.span), began))
    }

    /// How far a call of the kernel got, in the engine's words.
    fn progressed(&mut self, cpu: CpuId, made: (Returns, Span), progress: Progress) -> Called {
        self.under_way.remove(&cpu);
        let begun = self.kernel.is_under_way(cpu);
        if begun {
            self.under_way.insert(cpu, made);
        }
        let value = match progress {
            Progress::Done(value) => value,
            Progress::More => return Called::More,
            Progress::Waits(Wait::Lock(name)) => {
                return Called::WantsLock { name, shared: false, begun };
            }
            Progress::Waits(Wait::SharedLock(name)) => {
                return Called::WantsLock { name, shared: true, begun };
            }
            Progress::Waits(Wait::CallOf(cpu)) => return Called::WantsCallEnd(cpu),
            Progress::Waits(Wait::Cpus(cpus)) => return Called::WantsCpus { cpus, begun },
            Progress::Waits(Wait::Stays(stay)) => return Called::WantsQuiet(stay),
        };
        Called::Returned(Returned {
            value: Value::returned(value.value),
            failed: value.failed,
            call: (made.0 != Returns::Void).then_some(value.call),
            note: None,
        })
    }

    /// What synchronised.
    pub(super) fn syncs(&self) -> &[SyncSeen] {
        self.kernel.machine().syncs()
    }

    fn bare(&mut self) -> OnMachine<'_, 'a> {
        OnMachine { machine: self.kernel.machine_mut(), places: self.places }
    }
}

/// The arguments of a call of code: numbers all.
fn numbers(call: &Call, env: &dyn Environment) -> Result<Vec<u64>, Stop> {
    call.args.iter().map(|arg| plain(arg, env, call.name.span)).collect()
}

/// A result that is told, and that nobody has to look at.
fn noted(call: &Call, value: Value) -> Called {
    unheard(value, Some(format!("{call} returned {value}")))
}

/// A result that nobody has to look at.
fn unheard(value: Value, note: Option<String>) -> Called {
    Called::Returned(Returned { value, failed: false, call: None, note })
}

fn place_of(batch: &Batch, origin: OriginId) -> Span {
    let Some(origin) = batch.origin(origin) else { return Span::default() };
    let start = usize::try_from(origin.offset).unwrap_or(usize::MAX);
    let len = usize::try_from(origin.len).unwrap_or(0);
    Span::new(start, start.saturating_add(len))
}

impl Bare for KernelWorld<'_> {
    fn at(&mut self, place: Span) {
        self.bare().at(place);
    }

    fn op(
        &mut self,
        cpu: CpuId,
        op: &Name,
        args: &[Arg],
        env: &dyn Environment,
    ) -> Result<(), Stop> {
        self.bare().op(cpu, op, args, env)
    }

    fn publish(&mut self, cpu: CpuId, name: &str, value: Value) -> Result<(), Stop> {
        self.bare().publish(cpu, name, value)
    }
}

/// `__TLBI_VADDR(addr, asid)`.
fn tlbi_operand(call: &Call, env: &dyn Environment) -> Result<Called, Stop> {
    let [addr, asid] = numbers(call, env)?[..] else {
        let message = "`__TLBI_VADDR` takes an address and an ASID".to_owned();
        return Err(Stop::Input(diagnostic(message, call.name.span, "two numbers", None)));
    };
    Ok(unheard(builtin::tlbi_operand(VirtAddr(addr), asid), None))
}

impl World for KernelWorld<'_> {
    fn page_bytes(&self) -> u64 {
        1 << self.kernel.machine().config().page_shift
    }

    fn call(
        &mut self,
        cpu: CpuId,
        call: &Call,
        env: &dyn Environment,
        anyway: bool,
    ) -> Result<Called, Stop> {
        let returned = match builtin::by_name(&call.name.value).map(|b| b.does) {
            Some(Does::Guest) => self.guest_call(cpu, call, env),
            Some(Does::Preempt) => self.preempt(cpu, call, env),
            Some(Does::Resume) => self.resume_task(cpu, call),
            Some(Does::TlbiOperand) => tlbi_operand(call, env),
            Some(Does::TlbiRange) => self.tlbi_range(call, env),
            Some(does) => self.look(cpu, does, call, env),
            None => self.kernel_call(cpu, call, env, anyway),
        };
        // Warnings become notes, and those stand before the note about the result.
        self.flush();
        returned
    }

    fn resume(&mut self, cpu: CpuId) -> Result<Called, Stop> {
        let Some(made) = self.under_way.get(&cpu).copied() else {
            return Err(Stop::NotModelled(format!("no call is under way on {cpu}")));
        };
        let progress = self.kernel.resume(cpu);
        let called = match progress {
            Ok(progress) => Ok(self.progressed(cpu, made, progress)),
            Err(error) => {
                self.under_way.remove(&cpu);
                Err(call_stopped(error, made.1))
            }
        };
        self.flush();
        called
    }

    fn lock_waits(&self, cpu: CpuId, lock: &str, shared: bool) -> bool {
        self.kernel.lock_waits(cpu, lock, shared)
    }

    fn is_calling(&self, cpu: CpuId) -> bool {
        self.kernel.is_under_way(cpu)
    }

    fn still_stays(&self, stay: Stays) -> bool {
        self.kernel.machine().still_stays(stay)
    }

    fn is_held(&self, cpu: CpuId) -> bool {
        self.kernel.is_held(cpu)
    }

    fn is_shut(&self, cpu: CpuId) -> bool {
        self.kernel.is_shut(cpu)
    }

    fn is_online(&self, cpu: CpuId) -> bool {
        self.kernel.is_online(cpu)
    }

    fn observe(&mut self, cpu: CpuId, name: &str) -> Result<(), Stop> {
        match self.kernel.machine_mut().observe(cpu, name) {
            Some(_) => Ok(()),
            None => Err(Stop::NotModelled(format!("`{name}` is published and not to be seen"))),
        }
    }

    fn enter(&mut self, cpu: CpuId, inside: Inside<'_>) -> Result<(), Stop> {
        self.enter_context(cpu, inside)
    }

    fn leave(&mut self, cpu: CpuId, inside: Inside<'_>) -> Result<(), Stop> {
        self.leave_context(cpu, inside)
    }

    fn ipi(
        &mut self,
        cpu: CpuId,
        targets: &[CpuId],
        name: &str,
        handler: &mut dyn FnMut(&mut dyn Bare, CpuId) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let places = self.places;
        let mask: CpuMask = targets.iter().copied().collect();
        if !self.kernel.machine().irqs_on(cpu) {
            // As Linux does, which goes on all the same.
            let (reason, virt) = (WarnReason::WrongContext, VirtAddr(0));
            let machine = self.kernel.machine_mut();
            machine.emit(cpu, View::Warned { call: CallRef::NONE, reason, virt });
        }
        let mut stopped = None;
        let sent =
            self.kernel.machine_mut().ipi(cpu, mask, name, true, &mut |machine, receiver| {
                let mut bare = OnMachine { machine, places };
                handler(&mut bare, receiver).map_err(|stop| {
                    stopped = Some(stop);
                    MachineError::Handler("the handler stopped".to_owned())
                })
            });
        match (stopped, sent) {
            (Some(stop), _) => Err(stop),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => Err(machine_stopped(error)),
        }
    }

    fn result(&mut self, cpu: CpuId, call: CallRef, looked_at: bool) {
        let view = if looked_at { View::ResultUsed { call } } else { View::ResultDropped { call } };
        self.kernel.machine_mut().emit(cpu, view);
    }

    fn setup_ended(&mut self) {
        self.kernel.machine_mut().settle_data();
    }

    fn between(&mut self) -> bool {
        if self.kernel.machine_mut().recorder().pending() >= BATCH_EVENTS {
            self.flush();
        }
        !self.stopped
    }

    fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }
}
