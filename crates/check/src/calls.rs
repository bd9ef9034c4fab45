//! Calls: which are open, inside which they were made, what they refused, which failed.
//!
//! A call's name is data for messages. Not modelled: calls whose entry was not seen; events that
//! name such a call are read as if they had none.

use std::collections::{BTreeMap, HashMap};

use rustc_hash::FxBuildHasher;
use textbed_event::{CallRef, NameId, Promise, RefusalReason};

use crate::mark::{ChainId, Chains, Mark};

/// A change of permissions that a call refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Refusal {
    pub(crate) what: Promise,
    pub(crate) reason: RefusalReason,
    pub(crate) virt: u64,
    pub(crate) len: u64,
}

/// An open call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: NameId,
    /// The outermost call open on that CPU when this one was entered (itself, if none was).
    pub(crate) outermost: CallRef,
    /// The call around it.
    pub(crate) parent: CallRef,
    /// Chain of names down to this call.
    pub(crate) chain: ChainId,
    /// What it and the calls inside it refused, up to [`MAX_REFUSALS`].
    pub(crate) refusals: Vec<Refusal>,
}

/// A call that returned an error which nobody looked at yet.
#[derive(Clone, Debug)]
pub(crate) struct Failed {
    pub(crate) name: NameId,
    pub(crate) value: i64,
    pub(crate) returned: Mark,
    pub(crate) refusals: Vec<Refusal>,
}

/// Refusals kept by call: enough for a message.
const MAX_REFUSALS: usize = 8;
/// Open calls kept; a stream with more is damaged.
const MAX_OPEN: usize = 1 << 16;
/// Failed calls kept until their result is used or dropped; the oldest go first.
const MAX_FAILED: usize = 1 << 12;

/// The calls of a stream.
#[derive(Default, Debug)]
pub(crate) struct Calls {
    pub(crate) chains: Chains,
    open: HashMap<CallRef, Call, FxBuildHasher>,
    failed: BTreeMap<CallRef, Failed>,
}

impl Calls {
    /// A call was entered inside `parent`.
    pub(crate) fn entered(&mut self, call: CallRef, name: NameId, parent: CallRef) {
        if call == CallRef::NONE || self.open.len() >= MAX_OPEN {
            return;
        }
        let around = (parent != call).then(|| self.open.get(&parent)).flatten();
        let (outermost, chain) = match around {
            Some(p) => (p.outermost, p.chain),
            None => (call, ChainId::EMPTY),
        };
        let parent = if around.is_some() { parent } else { CallRef::NONE };
        let chain = self.chains.push(chain, name);
        self.open.insert(call, Call { name, outermost, parent, chain, refusals: Vec::new() });
    }

    /// A call returned; it comes back if its entry was seen.
    pub(crate) fn returned(
        &mut self,
        call: CallRef,
        value: i64,
        error: Option<Mark>,
    ) -> Option<Call> {
        let done = self.open.remove(&call)?;
        if let Some(parent) = self.open.get_mut(&done.parent) {
            let room = MAX_REFUSALS.saturating_sub(parent.refusals.len());
            parent.refusals.extend(done.refusals.iter().take(room));
        }
        if let Some(returned) = error {
            let refusals = done.refusals.clone();
            self.failed.insert(call, Failed { name: done.name, value, returned, refusals });
            if self.failed.len() > MAX_FAILED {
                self.failed.pop_first();
            }
        }
        Some(done)
    }

    /// Somebody looked at the result.
    pub(crate) fn used(&mut self, call: CallRef) {
        self.failed.remove(&call);
    }

    /// Nobody will look at the result: the failure that is lost thereby, if it was one.
    pub(crate) fn dropped(&mut self, call: CallRef) -> Option<Failed> {
        self.failed.remove(&call)
    }

    pub(crate) fn refused(&mut self, call: CallRef, refusal: Refusal) {
        if let Some(call) = self.open.get_mut(&call)
            && call.refusals.len() < MAX_REFUSALS
        {
            call.refusals.push(refusal);
        }
    }

    pub(crate) fn get(&self, call: CallRef) -> Option<&Call> {
        self.open.get(&call)
    }

    pub(crate) fn is_open(&self, call: CallRef) -> bool {
        call != CallRef::NONE && self.open.contains_key(&call)
    }

    /// The outermost call around `call`, [`CallRef::NONE`] if it is not open.
    pub(crate) fn outermost(&self, call: CallRef) -> CallRef {
        if call == CallRef::NONE {
            return call;
        }
        self.open.get(&call).map_or(CallRef::NONE, |c| c.outermost)
    }

    /// The chain down to `call`, empty if it is not open.
    pub(crate) fn chain(&self, call: CallRef) -> ChainId {
        if call == CallRef::NONE {
            return ChainId::EMPTY;
        }
        self.open.get(&call).map_or(ChainId::EMPTY, |c| c.chain)
    }
}
