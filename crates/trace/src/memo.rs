//! What was found out about a piece of text, kept under the text.
//!
//! Lines of a log repeat themselves: a few tasks, a few dozen places of probes, each some thousand
//! times, printed the same. Only what follows from the text alone may be kept here. A text has one
//! slot, by a hash that its user makes; a new one takes the slot of another, so that nothing grows.

/// Slots of a memo, as a power of two.
const SLOT_BITS: u32 = 8;
/// The longest text that is kept, in bytes.
pub(crate) const MOST: usize = 80;

#[derive(Debug, Clone, Copy)]
struct Slot<T> {
    text: [u8; MOST],
    length: usize,
    value: T,
}

/// See the module's header.
#[derive(Debug, Clone)]
pub(crate) struct Memo<T> {
    slots: Vec<Option<Slot<T>>>,
}

impl<T: Copy> Default for Memo<T> {
    fn default() -> Self {
        Self { slots: vec![None; 1 << SLOT_BITS] }
    }
}

/// A slot from words that differ where texts do.
pub(crate) fn hash(words: u64) -> usize {
    (words.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - SLOT_BITS)) as usize
}

impl<T: Copy> Memo<T> {
    /// What is kept of the text that `text` begins with, if the one in that slot is such.
    #[inline]
    pub(crate) fn prefix(&self, slot: usize, text: &[u8]) -> Option<T> {
        let kept = self.slots.get(slot)?.as_ref()?;
        (text.get(..kept.length) == kept.text.get(..kept.length)).then_some(kept.value)
    }

    /// What is kept of `text`.
    #[inline]
    pub(crate) fn whole(&self, slot: usize, text: &[u8]) -> Option<T> {
        let kept = self.slots.get(slot)?.as_ref()?;
        (kept.text.get(..kept.length) == Some(text)).then_some(kept.value)
    }

    /// Keeps `value` of `text`, if that is short enough.
    pub(crate) fn keep(&mut self, slot: usize, text: &[u8], value: T) {
        let mut kept = Slot { text: [0; MOST], length: text.len(), value };
        if let Some(bytes) = kept.text.get_mut(..text.len())
            && let Some(slot) = self.slots.get_mut(slot)
        {
            bytes.copy_from_slice(text);
            *slot = Some(kept);
        }
    }
}
