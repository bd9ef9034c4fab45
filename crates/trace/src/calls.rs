//! Calls entered and returned, nested, per task and context.
//!
//! An entry and its return belong together when they come from the same task in the same context
//! (task, softirq, interrupt, NMI): an interrupt that calls the same function in between has a
//! stack of its own, and so has each CPU's idle task. A call of which no return is probed is not
//! entered at all: it would never end. A return without entry and an entry without return (missed
//! probes, the log's ends, lost events) are counted by function.
//!
//! Not modelled: asynchronous continuations (vfree by a worker): they are calls of the worker.

use crate::bounds::{Bound, Dropped};
use crate::ftrace::{Context, Event};
use crate::functions::{self, Function, Meaning};
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use textbed_event::CallRef;

/// Arguments of a row at most.
pub const MAX_ARGS: usize = 6;

/// Whose stack: a task, or a CPU where tasks are interrupted or idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Stack {
    /// PID, or `-1 - cpu`.
    who: i64,
    /// 0 task, 1 softirq, 2 irq, 3 NMI.
    context: u8,
}

impl Stack {
    /// The stack that an event belongs to.
    pub fn of(event: &Event<'_>) -> Self {
        let context = match event.flags.map(|f| f.context).unwrap_or_default() {
            Context::Task => 0,
            Context::Softirq => 1,
            Context::Irq | Context::IrqInSoftirq => 2,
            Context::Nmi | Context::NmiInIrq => 3,
        };
        let by_cpu = context > 0 || event.pid == 0;
        let who = if by_cpu { -1 - i64::from(event.cpu) } else { i64::from(event.pid) };
        Self { who, context }
    }
}

/// An open call.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Which instance.
    pub call: CallRef,
    /// Of what.
    pub function: &'static Function,
    /// Its arguments, in the order of the row's `args`; missing ones are `None`.
    pub args: [Option<u64>; MAX_ARGS],
}

impl Frame {
    /// The argument of that name.
    pub fn arg(&self, name: &str) -> Option<u64> {
        let at = self.function.args.iter().position(|a| *a == name)?;
        self.args.get(at).copied().flatten()
    }
}

/// How often a function was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallCount {
    /// Entries.
    pub entered: u64,
    /// Returns that belong to an entry.
    pub returned: u64,
    /// Of these, failures.
    pub failed: u64,
    /// Returns without entry.
    pub return_without_entry: u64,
    /// Entries without return: missed, or still open at the end.
    pub entry_without_return: u64,
}

/// All stacks. Holds open calls only.
#[derive(Debug, Clone, Default)]
pub struct Calls {
    stacks: FxHashMap<Stack, Vec<Frame>>,
    /// By the place of the name: comparing names would cost more than all the rest.
    counts: FxHashMap<*const u8, (&'static str, CallCount)>,
    dropped: Dropped,
    /// Memory of stacks that are empty, for the next ones.
    spare: Vec<Vec<Frame>>,
}

/// Empty stacks whose memory is kept.
const SPARE: usize = 64;

impl Calls {
    fn count(&mut self, function: &Function) -> &mut CallCount {
        let name = function.name;
        &mut self.counts.entry(name.as_ptr()).or_insert((name, CallCount::default())).1
    }

    /// Counts an entry that does not nest.
    pub fn seen(&mut self, function: &Function) {
        self.count(function).entered += 1;
    }

    /// Enters a call. A call of the same function that is still open there has returned unseen:
    /// none of the table's functions calls itself. What was entered after it goes on.
    pub fn enter(&mut self, stack: Stack, frame: Frame) {
        let function = frame.function;
        self.seen(function);
        if self.stacks.len() >= Bound::CallTasks.most() && !self.stacks.contains_key(&stack) {
            self.dropped.add(Bound::CallTasks, self.open());
            self.give_up();
        }
        let spare = &mut self.spare;
        let open = self.stacks.entry(stack).or_insert_with(|| spare.pop().unwrap_or_default());
        let stale = open.iter().position(|f| std::ptr::eq(f.function, function));
        let mut lost = stale.map(|at| open.remove(at));
        // The table's functions nest a handful deep.
        if open.len() >= Bound::CallDepth.most() {
            self.dropped.add(Bound::CallDepth, 1);
            lost = open.pop();
        }
        open.push(frame);
        if let Some(lost) = lost {
            self.count(lost.function).entry_without_return += 1;
        }
    }

    /// What was too much.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }

    /// Leaves the innermost call of that function; calls inside it that never returned are dropped.
    pub fn leave(
        &mut self,
        stack: Stack,
        function: &'static Function,
        failed: bool,
    ) -> Option<Frame> {
        let open = self.stacks.get_mut(&stack);
        let at =
            open.as_ref().and_then(|o| o.iter().rposition(|f| std::ptr::eq(f.function, function)));
        let (Some(open), Some(at)) = (open, at) else {
            self.count(function).return_without_entry += 1;
            return None;
        };
        let mut frame = open.pop();
        while open.len() > at {
            let inside = std::mem::replace(&mut frame, open.pop());
            if let Some(inside) = inside {
                let lost = self.counts.entry(inside.function.name.as_ptr());
                let zero = (inside.function.name, CallCount::default());
                lost.or_insert(zero).1.entry_without_return += 1;
            }
        }
        if open.is_empty()
            && let Some(empty) = self.stacks.remove(&stack)
            && self.spare.len() < SPARE
        {
            self.spare.push(empty);
        }
        let count = self.count(function);
        count.returned += 1;
        count.failed += u64::from(failed);
        frame
    }

    /// Gives up everything that is open: counted as entries without return.
    pub fn give_up(&mut self) {
        let all: Vec<Frame> = self.stacks.drain().flat_map(|(_, open)| open).collect();
        for f in all {
            self.count(f.function).entry_without_return += 1;
        }
    }

    /// The innermost open call, as an event's cause.
    pub fn cause(&self, stack: Stack) -> CallRef {
        self.stacks.get(&stack).and_then(|o| o.last()).map_or(CallRef::NONE, |f| f.call)
    }

    /// The innermost open call for which `wanted` holds.
    pub fn find(&self, stack: Stack, wanted: impl Fn(&Frame) -> bool) -> Option<&Frame> {
        self.stacks.get(&stack)?.iter().rev().find(|f| wanted(f))
    }

    /// Entries without return and returns without entry of functions that change permissions; what
    /// is open now may still return.
    pub fn torn(&self) -> u64 {
        let changes = |name: &&'static str| {
            let row = functions::by_name(name.as_bytes());
            row.is_some_and(|f| matches!(f.meaning, Meaning::SetMemory(_) | Meaning::CpaCall))
        };
        let counts = self.counts.values().filter(|(name, _)| changes(name));
        counts.map(|(_, n)| n.return_without_entry + n.entry_without_return).sum()
    }

    /// Open calls of all tasks.
    pub fn open(&self) -> usize {
        self.stacks.values().map(Vec::len).sum()
    }

    /// Ends: what is open is counted as entries without return. By name.
    pub fn finish(mut self) -> BTreeMap<&'static str, CallCount> {
        let open: Vec<&'static Function> =
            self.stacks.values().flatten().map(|f| f.function).collect();
        for function in open {
            self.count(function).entry_without_return += 1;
        }
        self.counts.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::by_name;
    use proptest::prelude::*;

    fn frame(name: &str, call: u32) -> Frame {
        let function = by_name(name.as_bytes()).unwrap();
        Frame { call: CallRef(call), function, args: [None; MAX_ARGS] }
    }

    const TASK: Stack = Stack { who: 7, context: 0 };
    const IRQ: Stack = Stack { who: -1, context: 2 };

    #[test]
    fn an_interrupt_between_entry_and_return_does_not_disturb() {
        let mut c = Calls::default();
        c.enter(TASK, frame("execmem_alloc", 1));
        c.enter(TASK, frame("__vmalloc_node_range_noprof", 2));
        c.enter(IRQ, frame("__vmalloc_node_range_noprof", 3));
        assert_eq!((c.cause(TASK), c.cause(IRQ)), (CallRef(2), CallRef(3)));
        let f = by_name(b"__vmalloc_node_range_noprof").unwrap();
        assert_eq!(c.leave(IRQ, f, false).unwrap().call, CallRef(3));
        assert_eq!(c.leave(TASK, f, false).unwrap().call, CallRef(2));
        assert_eq!(c.cause(TASK), CallRef(1));
        assert!(c.leave(TASK, f, false).is_none());
        let counts = c.finish();
        assert_eq!(counts["__vmalloc_node_range_noprof"].return_without_entry, 1);
        assert_eq!(counts["execmem_alloc"].entry_without_return, 1);
    }

    #[test]
    fn a_missed_return_is_noticed_at_the_next_entry_and_by_the_outer_return() {
        let mut c = Calls::default();
        c.enter(TASK, frame("execmem_alloc", 1));
        c.enter(TASK, frame("set_memory_ro", 2));
        c.enter(TASK, frame("set_memory_ro", 3));
        assert_eq!((c.open(), c.cause(TASK)), (2, CallRef(3)));
        let f = by_name(b"execmem_alloc").unwrap();
        assert_eq!(c.leave(TASK, f, true).unwrap().call, CallRef(1));
        let counts = c.finish();
        assert_eq!(counts["set_memory_ro"].entry_without_return, 2);
        assert_eq!((counts["execmem_alloc"].returned, counts["execmem_alloc"].failed), (1, 1));
    }

    proptest! {
        /// Each entry is returned or counted as not, whatever comes.
        #[test]
        fn nothing_is_lost(
            steps in prop::collection::vec((0..4usize, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let names = ["vmap", "set_memory_ro", "set_memory_x", "execmem_alloc"];
            let mut c = Calls::default();
            for (i, (n, enter, irq)) in steps.into_iter().enumerate() {
                let stack = if irq { IRQ } else { TASK };
                if enter {
                    c.enter(stack, frame(names[n], i as u32 + 1));
                } else {
                    c.leave(stack, by_name(names[n].as_bytes()).unwrap(), false);
                }
                prop_assert!(c.open() <= 8);
            }
            for (name, n) in c.finish() {
                prop_assert_eq!(n.entered, n.returned + n.entry_without_return, "{}", name);
            }
        }
    }
}
