//! Error numbers, by the names that scenarios and reports use.
//!
//! Only numbers that a modelled call can return; `ENOTSUPP` is the kernel's own, not POSIX's.

/// Operation not permitted.
pub const EPERM: i64 = 1;
/// Out of memory.
pub const ENOMEM: i64 = 12;
/// Bad address.
pub const EFAULT: i64 = 14;
/// Device or resource busy.
pub const EBUSY: i64 = 16;
/// Invalid argument.
pub const EINVAL: i64 = 22;
/// Result out of range.
pub const ERANGE: i64 = 34;
/// Operation not supported on transport endpoint.
pub const EOPNOTSUPP: i64 = 95;
/// Operation is not supported (kernel internal).
pub const ENOTSUPP: i64 = 524;

/// Largest number that counts as an error in a pointer (`MAX_ERRNO`).
pub const MAX_ERRNO: i64 = 4095;

/// Names and numbers, by number.
pub const ERRNOS: &[(&str, i64)] = &[
    ("EPERM", EPERM),
    ("ENOMEM", ENOMEM),
    ("EFAULT", EFAULT),
    ("EBUSY", EBUSY),
    ("EINVAL", EINVAL),
    ("ERANGE", ERANGE),
    ("EOPNOTSUPP", EOPNOTSUPP),
    ("ENOTSUPP", ENOTSUPP),
];

/// The number of `ENOMEM` and the like.
#[must_use]
pub fn number(name: &str) -> Option<i64> {
    ERRNOS.iter().find(|(n, _)| *n == name).map(|(_, number)| *number)
}

/// The name of a number (positive, or negative as calls return it).
#[must_use]
pub fn name(number: i64) -> Option<&'static str> {
    ERRNOS.iter().find(|(_, n)| *n == number.saturating_abs()).map(|(name, _)| *name)
}

/// Whether a pointer's bits are an error code (`IS_ERR`).
#[must_use]
pub fn is_err_pointer(value: i64) -> bool {
    (-MAX_ERRNO..0).contains(&value)
}
