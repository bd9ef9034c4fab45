//! How a call is carried out: its arguments are checked against the table, its entry, result and
//! promises become events, and failures are injected where asked for.

use std::collections::VecDeque;

use textbed_arch::{Arch, CpuId, FRAME_BYTES, Pfn, VirtAddr};
use textbed_event::{Flags, Need, Promise, View};
use textbed_machine::MachineError;

use crate::area::Frames;
use crate::calls::{CALLS, CallNeed, CallSpec, NOT_MODELLED, ParamKind, find_call};
use crate::errno;
use crate::error::{CallError, Stop};
use crate::hotplug::{Shares, shares};
use crate::kernel::{CallValue, Kernel};
use crate::needs::needs_of;
use crate::phases::UnderWay;
use crate::promise::{Extent, PromiseRow, promises_of};
use crate::suggest;
use crate::version::Version;

/// An argument as a scenario gives it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arg {
    /// A number, an address, a length.
    Value(u64),
    /// Names of flags.
    Flags(Vec<String>),
    /// Bytes of code; a parameter that takes code also takes one instruction as a [`Arg::Value`].
    Code(Vec<u8>),
}

/// Checked arguments: one number for each parameter (the length for code), and the code.
#[derive(Clone, Default, Debug)]
pub(crate) struct Args {
    values: Vec<u64>,
    code: Vec<u8>,
}

impl Args {
    /// Plain numbers.
    pub(crate) fn of(values: &[u64]) -> Self {
        Self { values: values.to_vec(), code: Vec::new() }
    }

    /// Numbers, then code.
    pub(crate) fn with_code(values: &[u64], code: &[u8]) -> Self {
        let mut values = values.to_vec();
        values.push(code.len() as u64);
        Self { values, code: code.to_vec() }
    }

    /// More numbers behind the code.
    pub(crate) fn and(mut self, values: &[u64]) -> Self {
        self.values.extend(values);
        self
    }

    /// The argument of this number; the table guarantees that it is there.
    pub(crate) fn get(&self, index: usize) -> u64 {
        self.values.get(index).copied().unwrap_or(0)
    }

    /// The same as an address.
    pub(crate) fn addr(&self, index: usize) -> VirtAddr {
        VirtAddr(self.get(index))
    }

    /// The code argument.
    pub(crate) fn code(&self) -> &[u8] {
        &self.code
    }
}

/// A failure to inject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub call: &'static str,
    pub nth: u32,
    pub errno: i64,
    /// Allocations of the call that are still to succeed before the one that fails.
    pub spared: u32,
    pub used: bool,
}

impl Kernel {
    /// Calls a kernel function on a CPU. Everything that it does becomes events of that CPU.
    ///
    /// # Errors
    /// A name or argument that cannot be, something not modelled, or an oops: see [`CallError`].
    /// An error code that the function returns is a [`CallValue`].
    pub fn call(&mut self, cpu: CpuId, name: &str, args: &[Arg]) -> Result<CallValue, CallError> {
        let spec = find_call(name, self.version, self.arch)?;
        self.check_cpu(cpu, spec)?;
        let checked = check_args(spec, self.arch, args)?;
        self.carried_out(cpu, |k| k.open_first(cpu, spec, &checked))
    }

    pub(crate) fn check_cpu(&self, cpu: CpuId, spec: &CallSpec) -> Result<(), CallError> {
        if cpu.0 < self.cpus {
            let what = format!("a call on {cpu}, which is offline");
            let offline = CallError::NotModelled { call: spec.name.to_owned(), what };
            return if self.is_online(cpu) { Ok(()) } else { Err(offline) };
        }
        Err(CallError::Arguments {
            call: spec.name,
            param: "cpu".to_owned(),
            reason: format!("there is no {cpu}, the machine has {}", self.cpus),
        })
    }

    /// Checks a call without making it: its name for this kernel, and its arguments.
    ///
    /// # Errors
    /// As [`Kernel::call`], but for what shows only when it runs.
    pub fn check_call(
        version: Version,
        arch: Arch,
        name: &str,
        args: &[Arg],
    ) -> Result<&'static CallSpec, CallError> {
        let spec = find_call(name, version, arch)?;
        check_args(spec, arch, args).map(|_| spec)
    }

    /// Makes the `nth` call (from 1) of `call` fail: with ENOMEM its first allocation, with another
    /// error the call itself, at once. (A huge vmalloc whose allocation fails falls back to small
    /// pages, as in Linux.)
    ///
    /// # Errors
    /// A name that is no call, an error that the call's convention cannot carry, or `nth` = 0.
    pub fn fail(&mut self, call: &str, nth: u32, errno: i64) -> Result<(), CallError> {
        let spec = find_call(call, self.version, self.arch)?;
        let wrong = |param: &str, reason: String| CallError::Arguments {
            call: spec.name,
            param: param.to_owned(),
            reason,
        };
        if nth == 0 {
            return Err(wrong("nth", "calls are counted from 1".to_owned()));
        }
        if !(1..=errno::MAX_ERRNO).contains(&errno) {
            return Err(wrong("errno", format!("{errno} is no error number")));
        }
        if errno != errno::ENOMEM && spec.returns.failure(errno).is_none() {
            return Err(wrong("errno", "the call returns nothing that says so".to_owned()));
        }
        self.failures.push(Failure { call: spec.name, nth, errno, spared: 0, used: false });
        Ok(())
    }

    /// Makes the given allocation (from 1) of the `nth` call (from 1) of `call` fail. What calls
    /// inside of it allocate is theirs.
    ///
    /// # Errors
    /// As [`Kernel::fail`], or `allocation` = 0.
    pub fn fail_allocation(
        &mut self,
        call: &str,
        nth: u32,
        allocation: u32,
    ) -> Result<(), CallError> {
        let Some(spared) = allocation.checked_sub(1) else {
            return Err(CallError::Arguments {
                call: find_call(call, self.version, self.arch)?.name,
                param: "allocation".to_owned(),
                reason: "allocations are counted from 1".to_owned(),
            });
        };
        self.fail(call, nth, errno::ENOMEM)?;
        if let Some(failure) = self.failures.last_mut() {
            failure.spared = spared;
        }
        Ok(())
    }

    /// Injected failures that nothing met so far, in words.
    #[must_use]
    pub fn unused_failures(&self) -> Vec<String> {
        let unused = self.failures.iter().filter(|f| !f.used);
        unused
            .map(|f| {
                let name = errno::name(f.errno).map_or_else(|| f.errno.to_string(), str::to_owned);
                format!(
                    "fail {} #{} with {name}: no such call, or no such allocation",
                    f.call, f.nth
                )
            })
            .collect()
    }

    /// A call that another call makes.
    pub(crate) fn inner(&mut self, cpu: CpuId, name: &str, args: &Args) -> Result<CallValue, Stop> {
        let inner = |e| Stop::Inner(Box::new(e));
        let spec = find_call(name, self.version, self.arch).map_err(inner)?;
        self.perform(cpu, spec, args).map_err(inner)
    }

    /// The calling code looked at a result.
    pub(crate) fn used(&mut self, cpu: CpuId, value: CallValue) -> i64 {
        self.emit(cpu, Flags::default(), View::ResultUsed { call: value.call });
        value.value
    }

    /// The calling code dropped a result.
    pub(crate) fn dropped(&mut self, cpu: CpuId, value: CallValue) {
        self.emit(cpu, Flags::default(), View::ResultDropped { call: value.call });
    }

    /// Carries a call out whole.
    fn perform(
        &mut self,
        cpu: CpuId,
        spec: &'static CallSpec,
        args: &Args,
    ) -> Result<CallValue, CallError> {
        self.carried_out(cpu, |k| k.open(cpu, spec, args))
    }

    /// Carries out what `open` begins, letting nobody in between.
    fn carried_out(
        &mut self,
        cpu: CpuId,
        open: impl FnOnce(&mut Kernel) -> Result<Option<CallValue>, CallError>,
    ) -> Result<CallValue, CallError> {
        let floor = self.under_way.get(&cpu).map_or(0, Vec::len);
        let done = match open(self) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => self.run_whole(cpu, floor),
            Err(error) => Err(error),
        };
        if done.is_err()
            && let Some(calls) = self.under_way.get_mut(&cpu)
        {
            calls.truncate(floor);
        }
        done
    }

    /// As [`Kernel::open`], for a call that no other call makes.
    pub(crate) fn open_first(
        &mut self,
        cpu: CpuId,
        spec: &'static CallSpec,
        args: &Args,
    ) -> Result<Option<CallValue>, CallError> {
        self.beginning = Some(spec);
        self.callers = self.callers.with(cpu);
        self.tell_late(cpu);
        let opened = self.open(cpu, spec, args);
        self.beginning = None;
        opened
    }

    /// Enters a call and runs its body; `None` if that left steps behind.
    pub(crate) fn open(
        &mut self,
        cpu: CpuId,
        spec: &'static CallSpec,
        args: &Args,
    ) -> Result<Option<CallValue>, CallError> {
        let count = self.counts.entry(spec.name).or_insert(0);
        *count += 1;
        let nth = *count;
        let call = self.machine.enter_call(cpu, spec.name, &args.values);
        for need in spec.needs {
            match need {
                CallNeed::Lock(name) => self.machine.needs_lock(cpu, name),
                CallNeed::Context(what) => self.machine.needs(cpu, *what),
            }
        }
        for row in needs_of(spec.name, self.arch, self.version) {
            // x86's broadcast flush interrupts nobody.
            if row.need != Need::IrqsOn || self.may_interrupt(spec) {
                self.machine.needs(cpu, row.need);
            }
        }
        let due = self.failures.iter().position(|f| f.call == spec.name && f.nth == nth && !f.used);
        let errno = due.and_then(|index| self.failures.get(index)).map(|f| f.errno);
        let forced = errno.filter(|e| *e != errno::ENOMEM).and_then(|e| spec.returns.failure(e));
        let mut under = UnderWay {
            spec,
            args: args.clone(),
            call,
            origin: self.machine.recorder().origin(),
            keeps_cpus: false,
            armed: None,
            steps: VecDeque::new(),
            value: 0,
        };
        if let Some(value) = forced {
            if let Some(failure) = due.and_then(|index| self.failures.get_mut(index)) {
                failure.used = true;
            }
            under.value = value;
        } else {
            if shares(spec.name, self.arch) == Some(Shares::Whole) {
                self.share(cpu).map_err(|stop| self.error(stop, spec.name))?;
                under.keeps_cpus = true;
            }
            let outer = std::mem::replace(&mut self.armed, due);
            let staged = std::mem::take(&mut self.staged);
            self.running.push((cpu, spec));
            let done = (spec.run)(self, cpu, args);
            self.running.pop();
            under.armed = std::mem::replace(&mut self.armed, outer);
            under.steps = std::mem::replace(&mut self.staged, staged);
            match done {
                Ok(value) => under.value = value,
                Err(Stop::Later) => {
                    debug_assert!(
                        spec.steps.contains(&self.arch),
                        "{} is made of steps on {}, of which its row says nothing",
                        spec.name,
                        self.arch
                    );
                    self.under_way.entry(cpu).or_default().push(under);
                    return Ok(None);
                }
                Err(stop) => return Err(self.error(stop, spec.name)),
            }
        }
        self.close(cpu, &under).map(Some)
    }

    /// The error of a call. What the machine refuses where a stray store went over page tables is
    /// what that store left there: no call is to blame, and Linux would do anything.
    pub(crate) fn error(&self, stop: Stop, call: &str) -> CallError {
        let refused = matches!(&stop, Stop::Machine(MachineError::Map(_)));
        match refused && self.machine.tables_overwritten() {
            true => Stop::not_modelled("page tables that were overwritten").of(call),
            false => stop.of(call),
        }
    }

    /// Leaves a call: what it promises, and its result.
    pub(crate) fn close(&mut self, cpu: CpuId, under: &UnderWay) -> Result<CallValue, CallError> {
        let UnderWay { spec, args, call, value, .. } = under;
        if under.keeps_cpus {
            self.unshare(cpu).map_err(|stop| self.error(stop, spec.name))?;
        }
        let failed = spec.returns.failed(*value);
        if !failed {
            for row in promises_of(spec.name, self.arch, self.version) {
                self.promise(cpu, row, args);
            }
        }
        self.machine.leave_call(cpu, *call, *value, failed);
        Ok(CallValue { value: *value, failed, call: *call })
    }

    fn promise(&mut self, cpu: CpuId, row: &PromiseRow, args: &Args) {
        let call = self.machine.current_call(cpu);
        let flags = row.flags();
        let (start, len) = match row.extent {
            Extent::Pages(addr, pages) => {
                let start = self.pages.start_of(args.addr(addr));
                (start, self.pages.in_bytes(args.get(pages)))
            }
            Extent::Bytes(addr, bytes) | Extent::Code(addr, bytes) => {
                (args.addr(addr), args.get(bytes))
            }
            Extent::Between(from, to) => {
                (args.addr(from), args.get(to).saturating_sub(args.get(from)))
            }
            Extent::Breakpoint(addr) => {
                (args.addr(addr), if self.arch == Arch::X86_64 { 1 } else { 4 })
            }
            Extent::Noted => {
                for (virt, len) in std::mem::take(&mut self.noted) {
                    let view = View::Promised { call, what: row.promise, virt, len };
                    self.emit(cpu, flags, view);
                }
                return;
            }
            // Told in the step that gives them back: somebody else may have them by now.
            Extent::AreaFrames => return,
        };
        if len > 0
            && let Some(what) = self.kept_now(row.promise)
        {
            self.emit(cpu, flags, View::Promised { call, what, virt: start, len });
        }
    }

    /// What the call that runs now promises of the frames of an area that it gave back.
    pub(crate) fn promise_frames(&mut self, cpu: CpuId, frames: &[Frames]) {
        let Some((_, spec)) = self.running.last() else { return };
        let call = self.machine.current_call(cpu);
        let rows = promises_of(spec.name, self.arch, self.version);
        for row in rows.filter(|row| row.extent == Extent::AreaFrames) {
            for Frames { pfn: Pfn(first), count } in frames {
                let (virt, len) = (VirtAddr(first * FRAME_BYTES), count * FRAME_BYTES);
                let view = View::Promised { call, what: row.promise, virt, len };
                self.emit(cpu, row.flags().with(Flags::BY_PHYS), view);
            }
        }
    }

    /// What of a promise holds when the call returns: with hashed tables a translation that is
    /// granted appears when it is first used, and only what was taken away is so at once.
    fn kept_now(&self, promise: Promise) -> Option<Promise> {
        match promise {
            Promise::Write | Promise::Exec if self.machine.is_hashed() => None,
            Promise::ReadOnlyExec if self.machine.is_hashed() => Some(Promise::NoWrite),
            other => Some(other),
        }
    }
}

/// Checks arguments against the parameters.
pub(crate) fn check_args(
    spec: &'static CallSpec,
    arch: Arch,
    args: &[Arg],
) -> Result<Args, CallError> {
    let wrong = |param: &str, reason: String| CallError::Arguments {
        call: spec.name,
        param: param.to_owned(),
        reason,
    };
    if args.len() != spec.params.len() {
        let names: Vec<&str> = spec.params.iter().map(|p| p.name).collect();
        let reason = format!("takes {} ({}), not {}", names.len(), names.join(", "), args.len());
        return Err(wrong("arguments", reason));
    }
    let mut checked = Args::default();
    for (param, arg) in spec.params.iter().zip(args) {
        let value = match (param.kind, arg) {
            (ParamKind::Addr | ParamKind::Bytes, Arg::Value(v)) => *v,
            (ParamKind::Pages, Arg::Value(v)) if i32::try_from(*v).is_ok() => *v,
            (ParamKind::Pages, Arg::Value(v)) => {
                return Err(wrong(
                    param.name,
                    format!("{v} pages do not fit the parameter, an int"),
                ));
            }
            (ParamKind::Cpu, Arg::Value(v)) if u32::try_from(*v).is_ok() => *v,
            (ParamKind::Byte, Arg::Value(v)) if *v <= 0xff => *v,
            (ParamKind::Cpu, Arg::Value(v)) => {
                return Err(wrong(param.name, format!("{v} is no number of a CPU")));
            }
            (ParamKind::Byte, Arg::Value(v)) => {
                return Err(wrong(param.name, format!("{v:#x} is no byte")));
            }
            (ParamKind::Insn, Arg::Value(v)) => *v,
            (ParamKind::Flag, Arg::Value(v)) if *v <= 1 => *v,
            (ParamKind::Flags(known), Arg::Flags(names)) => {
                let mut mask = 0;
                for name in names {
                    let Some((_, bits)) = known.iter().find(|(n, _)| n == name) else {
                        let near = suggest::nearest(name, known.iter().map(|(n, _)| *n));
                        let hint = suggest::did_you_mean(near);
                        return Err(wrong(param.name, format!("unknown flag '{name}'{hint}")));
                    };
                    mask |= bits;
                }
                mask
            }
            (ParamKind::Flags(_), Arg::Value(0)) => 0,
            (ParamKind::Code, Arg::Code(bytes)) => {
                checked.code.clone_from(bytes);
                bytes.len() as u64
            }
            (ParamKind::Code, Arg::Value(number)) => {
                checked.code = instruction_bytes(arch, *number);
                checked.code.len() as u64
            }
            (kind, _) => return Err(wrong(param.name, format!("takes {}", kind.text()))),
        };
        checked.values.push(value);
    }
    Ok(checked)
}

/// One instruction written as a number: on x86 its bytes in the order in which they are read, the
/// first of them not 0 (but for 0 itself, which is one byte), elsewhere a word, with a prefix in
/// the upper half.
fn instruction_bytes(arch: Arch, number: u64) -> Vec<u8> {
    if arch == Arch::X86_64 {
        let zeros = (number.leading_zeros() as usize / 8).min(7);
        return number.to_be_bytes().into_iter().skip(zeros).collect();
    }
    let (prefix, word) = ((number >> 32) as u32, number as u32);
    let words = [prefix, word].into_iter().skip(usize::from(prefix == 0));
    let big = matches!(arch, Arch::Ppc64 | Arch::Ppc32);
    words.flat_map(|w| if big { w.to_be_bytes() } else { w.to_le_bytes() }).collect()
}

/// The nearest call name to one that is none.
pub(crate) fn nearest_call(name: &str) -> Option<&'static str> {
    suggest::nearest(name, CALLS.iter().map(|c| c.name).chain(NOT_MODELLED.iter().map(|n| n.name)))
}
