//! What a translation grants, in terms that are the same on every architecture.
//!
//! Modelled: present, read, write, execute, user, global, and whether the CPU may set "dirty" by
//! itself. Not modelled here: memory types and keys, which stay in the raw entry.

use bitflags::bitflags;

bitflags! {
    /// Effective or leaf permissions at kernel privilege. An empty set is "no translation".
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
    pub struct Perm: u8 {
        /// A valid translation exists.
        const PRESENT = 1;
        /// Loads are granted.
        const READ = 1 << 1;
        /// Stores are granted.
        const WRITE = 1 << 2;
        /// Instruction fetch at kernel privilege is granted.
        const EXEC = 1 << 3;
        /// Accesses at user privilege are granted too.
        const USER = 1 << 4;
        /// The translation serves every address space.
        const GLOBAL = 1 << 5;
        /// Instruction fetch at user privilege is granted.
        const USER_EXEC = 1 << 6;
        /// The entry is not part of the Linux tables but of the hardware alone (bolted entries).
        const BOLTED = 1 << 7;
    }
}

impl Perm {
    /// Kernel data: present, readable, writable, global.
    pub const KERNEL_RW: Perm =
        Perm::PRESENT.union(Perm::READ).union(Perm::WRITE).union(Perm::GLOBAL);
    /// Kernel read-only data.
    pub const KERNEL_RO: Perm = Perm::PRESENT.union(Perm::READ).union(Perm::GLOBAL);
    /// Kernel text.
    pub const KERNEL_ROX: Perm = Perm::KERNEL_RO.union(Perm::EXEC);
    /// Writable kernel text.
    pub const KERNEL_RWX: Perm = Perm::KERNEL_RW.union(Perm::EXEC);

    /// Whether a kernel store is granted.
    #[must_use]
    pub fn writable(self) -> bool {
        self.contains(Perm::PRESENT | Perm::WRITE)
    }

    /// Whether a kernel instruction fetch is granted.
    #[must_use]
    pub fn executable(self) -> bool {
        self.contains(Perm::PRESENT | Perm::EXEC)
    }

    /// `rwx`-like text: `rw-`, `r-x`, `---` for absent.
    #[must_use]
    pub fn letters(self) -> &'static str {
        let bit = |p, n: usize| if self.contains(Perm::PRESENT | p) { 1usize << n } else { 0 };
        const TEXT: [&str; 8] = ["---", "--x", "-w-", "-wx", "r--", "r-x", "rw-", "rwx"];
        TEXT[bit(Perm::READ, 2) | bit(Perm::WRITE, 1) | bit(Perm::EXEC, 0)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_follow_bits_and_presence() {
        assert_eq!(Perm::KERNEL_RW.letters(), "rw-");
        assert_eq!(Perm::KERNEL_ROX.letters(), "r-x");
        assert_eq!(Perm::KERNEL_RWX.letters(), "rwx");
        assert_eq!((Perm::WRITE | Perm::EXEC).letters(), "---");
        assert!(!Perm::WRITE.writable());
    }
}
