//! Kernel versions, their order, and which of them the simulator knows.
//!
//! A version is two or three numbers, then perhaps `-rcN`; what a distribution adds behind is
//! dropped, so `6.12.117+deb14-amd64` is 6.12.117. A release candidate comes before its release.
//! Not modelled: what a distribution or a stable series backported into a version.

use std::fmt;
use std::str::FromStr;

use textbed_arch::Cite;
use thiserror::Error;

/// A kernel version. The order is that of release.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    major: u16,
    minor: u16,
    patch: u16,
    /// [`RELEASED`] for a release, which comes after all its candidates.
    candidate: u16,
}

/// Value of the candidate field for a release.
const RELEASED: u16 = u16::MAX;

/// Why a text is no version.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum VersionError {
    /// A part between dots is not a number.
    #[error("'{text}' is no kernel version: '{part}' is not a number")]
    NotANumber {
        /// The whole text.
        text: String,
        /// The part.
        part: String,
    },
    /// A number does not fit.
    #[error("'{text}' is no kernel version: {part} is too large")]
    TooLarge {
        /// The whole text.
        text: String,
        /// The number.
        part: String,
    },
    /// Not two or three numbers.
    #[error("'{text}' is no kernel version: it needs two or three numbers, as in 6.12 or 6.12.3")]
    Numbers {
        /// The whole text.
        text: String,
    },
}

impl Version {
    /// A release such as 6.12.
    #[must_use]
    pub const fn release(major: u16, minor: u16) -> Self {
        Self { major, minor, patch: 0, candidate: RELEASED }
    }

    /// A release candidate such as 5.18-rc3.
    #[must_use]
    pub const fn candidate(major: u16, minor: u16, rc: u16) -> Self {
        Self { major, minor, patch: 0, candidate: rc }
    }

    /// A stable release such as 6.12.3.
    #[must_use]
    pub const fn point(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch, candidate: RELEASED }
    }

    /// Reads a version as people, `uname -r` or a log write it.
    pub fn parse(text: &str) -> Result<Self, VersionError> {
        let text = text.trim();
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(['-', '+', '~', ' ']).unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let number = |part: &str| -> Result<u16, VersionError> {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(VersionError::NotANumber { text: text.into(), part: part.into() });
            }
            let value = part.parse::<u16>().ok().filter(|n| *n < RELEASED);
            value.ok_or_else(|| VersionError::TooLarge { text: text.into(), part: part.into() })
        };
        let mut parts = numbers.split('.');
        let major = number(parts.next().unwrap_or(""))?;
        let minor = match parts.next() {
            Some(part) => number(part)?,
            None => return Err(VersionError::Numbers { text: text.into() }),
        };
        let patch = parts.next().map_or(Ok(0), number)?;
        if parts.next().is_some() {
            return Err(VersionError::Numbers { text: text.into() });
        }
        let suffix = rest.get(1..).unwrap_or("");
        let digits: &str = suffix.strip_prefix("rc").map_or("", |after| {
            let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
            after.get(..end).unwrap_or("")
        });
        let candidate = if digits.is_empty() { RELEASED } else { number(digits)? };
        Ok(Self { major, minor, patch, candidate })
    }

    /// The row of [`KERNELS`] for this very version.
    #[must_use]
    pub fn known(self) -> Option<&'static KnownKernel> {
        KERNELS.iter().find(|k| k.version == self)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch != 0 {
            write!(f, ".{}", self.patch)?;
        }
        if self.candidate != RELEASED {
            write!(f, "-rc{}", self.candidate)?;
        }
        Ok(())
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        Self::parse(text)
    }
}

/// A version that the tables know by name.
#[derive(Clone, Copy, Debug)]
pub struct KnownKernel {
    /// The version.
    pub version: Version,
    /// Whether [`crate::Kernel::boot`] accepts it.
    pub simulated: bool,
    /// Why it is in the list.
    pub note: &'static str,
    /// What its facts rest on.
    pub cite: Cite,
}

const fn known(version: Version, simulated: bool, note: &'static str, cite: Cite) -> KnownKernel {
    KnownKernel { version, simulated, note, cite }
}

/// Versions with facts of their own, oldest first.
pub const KERNELS: &[KnownKernel] = &[
    known(
        Version::candidate(5, 18, 3),
        true,
        "huge vmalloc is opt-out, the BPF pack asks for it and does not fill its unused part",
        Cite::deduced(
            "push log of master 2022-04-20: 559089e0a93d is the first head after 5.18-rc3; \
             neighbouring trees 5.17-rc5, 5.18.12",
        ),
    ),
    known(
        Version::release(5, 18),
        true,
        "huge vmalloc is opt-in; packs are small pages, still without trap fill",
        Cite::read(
            "Linux 5.18.12; push log of bpf-next 2022-05-23: d88bb5eed04c and fe736565efb7 come \
             after 5.18",
        ),
    ),
    known(Version::release(5, 19), false, "trap fill in packs", Cite::read("Linux 5.19")),
    known(Version::release(6, 1), true, "x86 warns of W^X violations", Cite::read("Linux 6.1.20")),
    known(Version::release(6, 4), false, "modules by types of memory", Cite::read("Linux 6.4")),
    known(Version::release(6, 6), true, "BPF packs on riscv", Cite::read("Linux 6.6")),
    known(Version::release(6, 8), false, "BPF trampolines in packs", Cite::read("Linux 6.8.1")),
    known(Version::candidate(6, 10, 1), false, "execmem", Cite::read("Linux 6.10-rc1")),
    known(
        Version::release(6, 12),
        true,
        "execmem without a ROX cache; BPF checks permission changes; packs on all three",
        Cite::read("Linux 6.12"),
    ),
    known(
        Version::release(6, 14),
        false,
        "ROX cache there, switched off",
        Cite::read("Linux 6.14"),
    ),
    known(Version::release(6, 18), true, "ROX cache in use on x86", Cite::read("Linux 6.18.2")),
    known(Version::release(7, 0), true, "newest tree read", Cite::read("Linux 7.0")),
];

/// The versions that can be simulated, oldest first.
pub fn simulated() -> impl Iterator<Item = Version> {
    KERNELS.iter().filter(|k| k.simulated).map(|k| k.version)
}

/// Whether `version` lies in the half-open range; `None` is no bound.
#[must_use]
pub fn in_range(version: Version, since: Option<Version>, until: Option<Version>) -> bool {
    since.is_none_or(|s| s <= version) && until.is_none_or(|u| version < u)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_that_of_release() {
        let sorted = [
            "4.9",
            "5.17.3",
            "5.18-rc1",
            "5.18-rc3",
            "5.18-rc4",
            "5.18-rc10",
            "5.18",
            "5.18.1",
            "5.19-rc1",
            "6.2",
            "6.12",
            "6.12.1",
            "7.0",
        ];
        let sorted: Vec<Version> = sorted.iter().map(|t| Version::parse(t).unwrap()).collect();
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a} {b}");
            }
        }
        assert!(KERNELS.windows(2).all(|w| w[0].version < w[1].version));
    }

    #[test]
    fn what_distributions_add_is_dropped() {
        let v = |t: &str| Version::parse(t).unwrap();
        assert_eq!(v("6.12.117+deb14-amd64"), Version::point(6, 12, 117));
        assert_eq!(v("6.12-amd64"), Version::release(6, 12));
        assert_eq!(v("6.12-rcx"), Version::release(6, 12));
        assert_eq!(v("v5.18-rc3+"), Version::candidate(5, 18, 3));
        assert_eq!(v("6.12.0"), v("6.12"));
        assert_eq!(v("5.18-rc3").to_string(), "5.18-rc3");
        assert_eq!(v("6.12.117").to_string(), "6.12.117");
    }

    #[test]
    fn what_is_no_version() {
        for text in
            ["", "6", "6.", ".6", "6.x", "6..1", "1.2.3.4", "6.-1", "99999.1", "6.1-rc99999"]
        {
            assert!(Version::parse(text).is_err(), "{text}");
        }
    }
}
