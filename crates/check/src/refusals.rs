//! Refusals that wait for their caller.
//!
//! A refused change of permissions is a finding if its caller drops the result. A caller that looks
//! at it has the refusal on its own account: it passes it on by failing, or it mended matters if it
//! returns without error. At the outermost call, looking is enough.
//!
//! Not modelled: what the caller does after it looked.

use std::collections::BTreeMap;

use textbed_event::CallRef;

use crate::book::Draft;
use crate::calls::Calls;

/// Refusals kept for one call.
const MAX_BY_CALL: usize = 16;
/// Calls with refusals kept; the oldest go first.
const MAX_CALLS: usize = 1 << 12;

#[derive(Debug)]
struct Pending {
    parent: CallRef,
    drafts: Vec<Draft>,
}

/// The refusals nobody answered for yet.
#[derive(Default, Debug)]
pub(crate) struct Waiting(BTreeMap<CallRef, Pending>);

impl Waiting {
    /// `call`, inside `parent`, refused.
    pub(crate) fn add(&mut self, call: CallRef, parent: CallRef, drafts: Vec<Draft>) {
        let pending = self.0.entry(call).or_insert(Pending { parent, drafts: Vec::new() });
        let room = MAX_BY_CALL.saturating_sub(pending.drafts.len());
        pending.drafts.extend(drafts.into_iter().take(room));
        if self.0.len() > MAX_CALLS {
            self.0.pop_first();
        }
    }

    /// The caller looked: it answers for the refusal from here on, if it is a call itself.
    pub(crate) fn used(&mut self, call: CallRef, calls: &Calls) {
        if let Some(pending) = self.0.remove(&call)
            && let Some(parent) = calls.get(pending.parent)
        {
            self.add(pending.parent, parent.parent, pending.drafts);
        }
    }

    /// The call returned without error: what was refused inside it and looked at is mended.
    pub(crate) fn returned_well(&mut self, call: CallRef) {
        self.0.remove(&call);
    }

    /// The caller dropped the result: what is lost thereby.
    pub(crate) fn dropped(&mut self, call: CallRef) -> Vec<Draft> {
        self.0.remove(&call).map_or_else(Vec::new, |pending| pending.drafts)
    }
}
