//! Error numbers, by the names that scenarios and reports use.
//!
//! Source (read): Linux `include/uapi/asm-generic/errno-base.h` (1 to 34) and `errno.h` (the rest);
//! 512 and above: `include/linux/errno.h`, which the kernel keeps to itself. The modelled
//! architectures use the generic numbers for all names below. Not here: names that an architecture
//! numbers differently (`EDEADLOCK` on powerpc), and what no memory, BPF or patching call returns.

/// Operation not permitted.
pub const EPERM: i64 = 1;
/// No such file or directory; probes: the text is gone.
pub const ENOENT: i64 = 2;
/// Argument list too long; trampolines: too many programs.
pub const E2BIG: i64 = 7;
/// Out of memory.
pub const ENOMEM: i64 = 12;
/// Bad address.
pub const EFAULT: i64 = 14;
/// Device or resource busy.
pub const EBUSY: i64 = 16;
/// No such device; ftrace: switched off after a failure.
pub const ENODEV: i64 = 19;
/// Invalid argument.
pub const EINVAL: i64 = 22;
/// Illegal byte sequence; probes: no instruction that can be probed.
pub const EILSEQ: i64 = 84;
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
    ("EPERM", 1),
    ("ENOENT", 2),
    ("ESRCH", 3),
    ("EINTR", 4),
    ("EIO", 5),
    ("ENXIO", 6),
    ("E2BIG", 7),
    ("ENOEXEC", 8),
    ("EBADF", 9),
    ("ECHILD", 10),
    ("EAGAIN", 11),
    ("ENOMEM", 12),
    ("EACCES", 13),
    ("EFAULT", 14),
    ("ENOTBLK", 15),
    ("EBUSY", 16),
    ("EEXIST", 17),
    ("EXDEV", 18),
    ("ENODEV", 19),
    ("ENOTDIR", 20),
    ("EISDIR", 21),
    ("EINVAL", 22),
    ("ENFILE", 23),
    ("EMFILE", 24),
    ("ENOTTY", 25),
    ("ETXTBSY", 26),
    ("EFBIG", 27),
    ("ENOSPC", 28),
    ("ESPIPE", 29),
    ("EROFS", 30),
    ("EMLINK", 31),
    ("EPIPE", 32),
    ("EDOM", 33),
    ("ERANGE", 34),
    ("EDEADLK", 35),
    ("ENAMETOOLONG", 36),
    ("ENOLCK", 37),
    ("ENOSYS", 38),
    ("ENOTEMPTY", 39),
    ("ELOOP", 40),
    ("ENODATA", 61),
    ("EPROTO", 71),
    ("EBADMSG", 74),
    ("EOVERFLOW", 75),
    ("EILSEQ", 84),
    ("EOPNOTSUPP", 95),
    ("ENOBUFS", 105),
    ("ETIMEDOUT", 110),
    ("EALREADY", 114),
    ("EINPROGRESS", 115),
    ("ESTALE", 116),
    ("ECANCELED", 125),
    ("EKEYREJECTED", 129),
    ("EHWPOISON", 133),
    ("ERESTARTSYS", 512),
    ("EPROBE_DEFER", 517),
    ("ENOTSUPP", 524),
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

/// What a call returned, as people say it: `-EINVAL`, `NULL` for a pointer that is none.
#[must_use]
pub fn said(value: i64) -> String {
    match (value, name(value)) {
        (0, _) => "NULL".to_owned(),
        (..0, Some(name)) => format!("-{name}"),
        _ => value.to_string(),
    }
}

/// Whether a pointer's bits are an error code (`IS_ERR`).
#[must_use]
pub fn is_err_pointer(value: i64) -> bool {
    (-MAX_ERRNO..0).contains(&value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_unique_and_in_range() {
        for pair in ERRNOS.windows(2) {
            assert!(pair[0].1 < pair[1].1, "{pair:?}");
        }
        for (text, value) in ERRNOS {
            assert!((1..=MAX_ERRNO).contains(value));
            assert_eq!(number(text), Some(*value));
            assert_eq!(name(*value), Some(*text));
        }
    }

    #[test]
    fn numbers_agree_with_the_standard_library() {
        use std::io::{Error, ErrorKind as K};
        for (text, kind) in [
            ("ENOENT", K::NotFound),
            ("ENOMEM", K::OutOfMemory),
            ("EINVAL", K::InvalidInput),
            ("EBUSY", K::ResourceBusy),
            ("ENOSYS", K::Unsupported),
            ("EOPNOTSUPP", K::Unsupported),
            ("ETIMEDOUT", K::TimedOut),
        ] {
            let value = i32::try_from(number(text).unwrap()).unwrap();
            assert_eq!(Error::from_raw_os_error(value).kind(), kind, "{text}");
        }
    }
}
