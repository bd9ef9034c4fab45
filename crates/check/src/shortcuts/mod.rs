//! Shortcuts that tests can close, to see that what they skip would have said the same.
//!
//! A version out of reach is forgotten and most stores are kept as notes
//! ([`crate::fetch::versions`]); what a permit was about is not looked at again when it closes,
//! unless it is in a window; a block is *plain* for every CPU ([`crate::fetch::looks`]); what
//! repeats others is noted at once ([`crate::steady`]). Outside of tests [`open`] is always true
//! and costs nothing. Not here: blocks that are known ([`crate::fetch::looks`]), for which the test
//! of elision stands.

/// A shortcut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) enum Shortcut {
    /// Versions out of reach are forgotten.
    Settled,
    /// Stores are kept as notes.
    Noted,
    /// A permit that closes around no window changes none.
    NoWindow,
    /// A block of which nothing is known needs no verdict, by whichever CPU.
    Plain,
    /// What repeats others is noted, and no part is asked.
    Steady,
}

#[cfg(test)]
impl Shortcut {
    const ALL: [Self; 5] = [Self::Settled, Self::Noted, Self::NoWindow, Self::Plain, Self::Steady];
}

/// Whether it may be taken.
#[cfg(not(test))]
pub(crate) const fn open(_: Shortcut) -> bool {
    true
}

#[cfg(test)]
thread_local! {
    static CLOSED: std::cell::Cell<Option<Shortcut>> = const { std::cell::Cell::new(None) };
}

/// Whether it may be taken.
#[cfg(test)]
pub(crate) fn open(shortcut: Shortcut) -> bool {
    CLOSED.get() != Some(shortcut)
}

#[cfg(test)]
mod random;
