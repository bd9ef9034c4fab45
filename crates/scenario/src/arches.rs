//! Architecture names as scenarios write them. What a name stands for is [`Arch::group`]'s to say;
//! here is only which known name a wrong one may have meant.

use textbed_arch::Arch;

use crate::suggest;

/// The spellings that suggestions offer.
pub const SPELLINGS: [&str; 9] =
    ["x86_64", "arm64", "ppc64le", "ppc64", "ppc32", "amd64", "aarch64", "ppc64el", "powerpc"];

/// Names that other projects use and that are too far from ours to be a slip of the keyboard.
const FOREIGN: [(&str, &str); 8] = [
    ("x64", "x86_64"),
    ("x86", "x86_64"),
    ("i386", "x86_64"),
    ("intel", "x86_64"),
    ("arm", "arm64"),
    ("armv8", "arm64"),
    ("ppc", "powerpc"),
    ("power", "powerpc"),
];

/// The architectures that a name stands for; `None` for a name that is none.
pub fn resolve(name: &str) -> Option<&'static [Arch]> {
    Arch::group(name)
}

/// The known spelling nearest to a name that is none.
pub fn suggest(name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    let foreign = FOREIGN.iter().find(|(other, _)| *other == lower).map(|(_, ours)| *ours);
    foreign.or_else(|| suggest::nearest(name, SPELLINGS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_suggested_resolves() {
        let foreign = FOREIGN.iter().map(|(_, ours)| *ours);
        for name in SPELLINGS.into_iter().chain(foreign) {
            assert!(resolve(name).is_some(), "{name}");
        }
        for (other, _) in FOREIGN {
            assert!(resolve(other).is_none(), "{other} is known after all");
        }
    }

    #[test]
    fn suggestions() {
        assert_eq!(suggest("x86-46"), Some("x86_64"));
        assert_eq!(suggest("amr64"), Some("arm64"));
        assert_eq!(suggest("aarch46"), Some("aarch64"));
        assert_eq!(suggest("ppc"), Some("powerpc"));
        assert_eq!(suggest("riscv"), None);
    }
}
