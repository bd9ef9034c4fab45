//! Shortcuts that tests can close, to see that what they skip would have said the same.
//!
//! A version out of reach is forgotten and most stores are kept as notes
//! ([`crate::fetch::versions`]). Outside of tests [`open`] is always true and costs nothing. Not
//! here: blocks that are known ([`crate::fetch::looks`]), for which the test of elision stands.

/// A shortcut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) enum Shortcut {
    /// Versions out of reach are forgotten.
    Settled,
    /// Stores are kept as notes.
    Noted,
}

/// Whether it may be taken.
#[cfg(not(test))]
pub(crate) const fn open(_: Shortcut) -> bool {
    true
}

#[cfg(test)]
thread_local! {
    static CLOSED: std::cell::Cell<[bool; 2]> = const { std::cell::Cell::new([false; 2]) };
}

/// Whether it may be taken.
#[cfg(test)]
pub(crate) fn open(shortcut: Shortcut) -> bool {
    !CLOSED.get()[shortcut as usize]
}

#[cfg(test)]
mod random;
