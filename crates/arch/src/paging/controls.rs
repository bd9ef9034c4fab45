//! Control bits that change what an entry grants.
//!
//! Modelled: the bits listed. SMAP, PAN and KUAP are off in [`Controls::LINUX`]: the kernel
//! switches them around every access to user pages, and they concern no kernel code. Not modelled:
//! MBEC and TCR_ELx.TBI.

use super::Indirection;
use crate::isa::Arch;

/// Control register bits. [`Controls::LINUX`] is how Linux sets them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Controls {
    /// x86 CR0.WP: kernel stores honour the W bit.
    pub x86_wp: bool,
    /// x86 EFER.NXE: bit 63 takes execute permission away; without it the bit is reserved.
    pub x86_nxe: bool,
    /// x86 CR4.SMEP: the kernel does not execute user pages.
    pub x86_smep: bool,
    /// x86 CR4.SMAP in force (EFLAGS.AC = 0): the kernel does not access user data.
    pub x86_smap: bool,
    /// x86 CR4.PKE on, with this PKRU.
    pub x86_pkru: Option<u32>,
    /// x86 CR4.PKS on, with this IA32_PKRS.
    pub x86_pkrs: Option<u32>,
    /// x86 MAXPHYADDR: address bits at and above are reserved.
    pub x86_pa_bits: u32,
    /// x86 memory encryption on: the bit of an entry that says whether what it leads to is
    /// encrypted (SME, SEV) or shared (TDX), and that is no part of the address.
    pub x86_encryption_bit: Option<u32>,
    /// arm64 SCTLR_EL1.WXN: what is writable is not executable.
    pub arm_wxn: bool,
    /// arm64 PSTATE.PAN: the kernel does not access what EL0 may.
    pub arm_pan: bool,
    /// arm64 TCR_EL1.HD: hardware makes pages with DBM writable by itself, where HA is set too.
    pub arm_hd: bool,
    /// arm64 TCR_EL1.HA: hardware sets the Access flag by itself.
    pub arm_ha: bool,
    /// arm64 TCR_EL1.HPDn: permission bits of table entries are ignored.
    pub arm_hpd: bool,
    /// arm64 TCR_EL1.IPS, in bits: an entry with an address beyond is refused. Held against an MMU
    /// for the formats of 48 bits only.
    pub arm_pa_bits: u32,
    /// arm64 TCR2_EL1.PIE: leaves have the number of a permission.
    pub arm_indirection: Option<Indirection>,
    /// powerpc: IAMR key 0 set so that the kernel does not execute user pages (KUEP).
    pub ppc_kuep: bool,
    /// powerpc: AMR key 0 set so that the kernel does not access user data (KUAP).
    pub ppc_kuap: bool,
}

impl Controls {
    /// What of these has effect in a format of `arch`: the indirection is arm64's, and takes
    /// hierarchical permissions and WXN out of force; dirty state is managed only where the Access
    /// flag is.
    #[inline]
    pub(super) fn in_force(&self, arch: Arch) -> Controls {
        let arm_indirection = self.arm_indirection.filter(|_| arch == Arch::Arm64);
        let indirect = arm_indirection.is_some();
        Controls {
            arm_indirection,
            arm_wxn: self.arm_wxn && !indirect,
            arm_hpd: self.arm_hpd || indirect,
            arm_hd: self.arm_hd && self.arm_ha,
            ..*self
        }
    }

    /// As Linux runs: WP, NXE, SMEP and KUEP on, hardware dirty and access flags taken where the
    /// CPU has them (so a page with DBM counts as writable), WXN off, hierarchical permissions on;
    /// without memory encryption, and without permission indirection, which grants the same.
    pub const LINUX: Controls = Controls {
        x86_wp: true,
        x86_nxe: true,
        x86_smep: true,
        x86_smap: false,
        x86_pkru: None,
        x86_pkrs: None,
        x86_pa_bits: 52,
        x86_encryption_bit: None,
        arm_wxn: false,
        arm_pan: false,
        arm_hd: true,
        arm_ha: true,
        arm_hpd: false,
        arm_pa_bits: 52,
        arm_indirection: None,
        ppc_kuep: true,
        ppc_kuap: false,
    };
}

impl Default for Controls {
    fn default() -> Self {
        Self::LINUX
    }
}
