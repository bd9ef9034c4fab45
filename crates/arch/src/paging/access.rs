//! Whether an access at a privilege is granted by what the levels of a walk grant together.
//!
//! Each control bit that gives or takes something is a row. Rows are looked at in order, those that
//! give first; a condition speaks of what the tables grant, never of what an earlier row gave.
//! Protection keys (x86) take by the key of the leaf: PKRU of user pages, PKRS of the kernel's.
//!
//! Not modelled: powerpc AMR and IAMR keys other than key 0, x86 shadow stacks,
//! arm64 EPAN, permission overlays and guarded pages, unprivileged loads and stores (LDTR).

use super::{Controls, Format};
use crate::cite::Cite;
use crate::insn::Family;
use crate::perm::Perm;

/// Who accesses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Privilege {
    /// The kernel: x86 CPL 0, arm64 EL1, powerpc PR = 0.
    Kernel,
    /// A process: x86 CPL 3, arm64 EL0, powerpc PR = 1.
    User,
}

/// What is tried.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Attempt {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Exec,
}

impl Attempt {
    /// The permission that it needs.
    #[must_use]
    pub const fn needs(self) -> Perm {
        match self {
            Attempt::Read => Perm::READ,
            Attempt::Write => Perm::WRITE,
            Attempt::Exec => Perm::EXEC,
        }
    }
}

/// A control bit that changes what tables grant.
#[derive(Debug)]
pub struct AccessRule {
    /// The bit, as the manual calls it.
    pub name: &'static str,
    /// Architectures.
    pub family: Family,
    /// Whose accesses.
    pub who: Privilege,
    /// Whether it is in force.
    pub on: fn(&Controls) -> bool,
    /// Holds for translations that grant all of this.
    pub of: Perm,
    /// What it gives.
    pub gives: Perm,
    /// What it takes.
    pub takes: Perm,
    /// Where it is defined.
    pub cite: Cite,
}

const NONE: Perm = Perm::empty();
const DATA: Perm = Perm::READ.union(Perm::WRITE);
const USER_WRITABLE: Perm = Perm::USER.union(Perm::WRITE);
const SDM: Cite = Cite::deduced("SDM 3A 4.6; held against QEMU 5.0.1 (tests/mmu/ORACLE.md)");
const ARM: Cite = Cite::deduced("Arm ARM DDI 0487 D8.4; held against QEMU 5.0.1 (ORACLE.md)");
/// Of a page that is not privileged, to the kernel: what key 0 of AMR and IAMR leaves.
const POWER: Cite = Cite::read("QEMU 5.0.1 target/ppc/mmu-radix64.c ppc_radix64_check_prot()");

/// The rows.
#[rustfmt::skip]
pub static ACCESS_RULES: &[AccessRule] = &[
    r("CR0.WP = 0", Family::X86, Privilege::Kernel, |c| !c.x86_wp, NONE, Perm::WRITE, NONE, SDM),
    r("CR4.SMEP", Family::X86, Privilege::Kernel, |c| c.x86_smep, Perm::USER, NONE, Perm::EXEC,
        SDM),
    r("CR4.SMAP with AC = 0", Family::X86, Privilege::Kernel, |c| c.x86_smap, Perm::USER, NONE,
        DATA, SDM),
    r("EL0 may write", Family::Arm64, Privilege::Kernel, |_| true, USER_WRITABLE, NONE, Perm::EXEC,
        ARM),
    r("SCTLR_EL1.WXN at EL1", Family::Arm64, Privilege::Kernel, |c| c.arm_wxn, Perm::WRITE, NONE,
        Perm::EXEC, ARM),
    r("SCTLR_EL1.WXN at EL0", Family::Arm64, Privilege::User, |c| c.arm_wxn, USER_WRITABLE, NONE,
        Perm::EXEC, ARM),
    r("PSTATE.PAN", Family::Arm64, Privilege::Kernel, |c| c.arm_pan, Perm::USER, NONE, DATA, ARM),
    r("IAMR key 0 (KUEP)", Family::Powerpc, Privilege::Kernel, |c| c.ppc_kuep, Perm::USER, NONE,
        Perm::EXEC, POWER),
    r("AMR key 0 (KUAP)", Family::Powerpc, Privilege::Kernel, |c| c.ppc_kuap, Perm::USER, NONE,
        DATA, POWER),
];

#[allow(clippy::too_many_arguments)]
const fn r(
    name: &'static str,
    family: Family,
    who: Privilege,
    on: fn(&Controls) -> bool,
    of: Perm,
    gives: Perm,
    takes: Perm,
    cite: Cite,
) -> AccessRule {
    AccessRule { name, family, who, on, of, gives, takes, cite }
}

impl Format {
    /// Which of READ, WRITE and EXEC `who` is granted by a leaf `raw` of `level`, where all levels
    /// together grant `rights`.
    #[must_use]
    pub fn granted(
        &self,
        level: usize,
        raw: u64,
        rights: Perm,
        who: Privilege,
        controls: &Controls,
    ) -> Perm {
        let controls = &controls.in_force(self.arch);
        if let Some(indirection) = controls.arm_indirection {
            let mut perm = indirection.granted(raw, who, controls.arm_hd);
            let user = indirection.granted(raw, Privilege::User, controls.arm_hd);
            if who == Privilege::Kernel && controls.arm_pan && !user.is_empty() {
                perm -= DATA;
            }
            return perm;
        }
        let mut perm = match who {
            Privilege::Kernel => rights & (DATA | Perm::EXEC),
            Privilege::User => {
                let data = if rights.contains(Perm::USER) { rights & DATA } else { NONE };
                let exec = rights.contains(Perm::USER_EXEC);
                if exec { data | Perm::EXEC } else { data }
            }
        };
        let family = Family::of(self.arch);
        for rule in ACCESS_RULES.iter().filter(|r| r.family == family && r.who == who) {
            if (rule.on)(controls) && rights.contains(rule.of) {
                perm = perm.union(rule.gives).difference(rule.takes);
            }
        }
        perm.difference(self.key_takes(level, raw, rights, who, controls))
    }

    /// What the leaf's protection key takes.
    pub(super) fn key_takes(
        &self,
        level: usize,
        raw: u64,
        rights: Perm,
        who: Privilege,
        controls: &Controls,
    ) -> Perm {
        let user_page = rights.contains(Perm::USER);
        let register = match (user_page, who) {
            (true, _) => controls.x86_pkru,
            (false, Privilege::Kernel) => controls.x86_pkrs,
            (false, Privilege::User) => None,
        };
        let Some(register) = register.filter(|_| Family::of(self.arch) == Family::X86) else {
            return NONE;
        };
        let key = self.field("PKEY").filter(|f| f.is_in(level, true)).map_or(0, |f| f.get(raw));
        let (no_access, no_write) =
            (register >> (2 * key) & 1 == 1, register >> (2 * key + 1) & 1 == 1);
        if no_access {
            DATA
        } else if no_write && (who == Privilege::User || controls.x86_wp) {
            Perm::WRITE
        } else {
            NONE
        }
    }
}
