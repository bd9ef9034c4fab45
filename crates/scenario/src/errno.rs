//! Error numbers by name, as `fail ... with ENOMEM` and `-EINVAL` use them: the kernel's table, in
//! the width of the language's values.

use textbed_kernel::errno;

/// The largest number that a negative return value can hold as an error.
pub const MAX_ERRNO: u16 = errno::MAX_ERRNO as u16;

/// The number behind a name.
pub fn number(name: &str) -> Option<u16> {
    errno::number(name).and_then(|number| u16::try_from(number).ok())
}

/// The name of a number, if it has one.
pub fn name(number: u16) -> Option<&'static str> {
    errno::name(i64::from(number))
}

/// All names, for suggestions.
pub fn names() -> impl Iterator<Item = &'static str> {
    errno::ERRNOS.iter().map(|(name, _)| *name)
}
