//! CPU features that change a rule, by architecture, as read from registers or set by a user.
//!
//! Modelled: what decides cache maintenance, context synchronisation and translation rules. Not
//! modelled: features that change neither.

use bitflags::bitflags;

use crate::isa::Arch;

bitflags! {
    /// Feature bits; a bit of another architecture is ignored.
    #[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
    pub struct Features: u64 {
        /// arm64: effective IDC: no clean to the point of unification is needed (CTR_EL0.IDC, or
        /// CLIDR_EL1.LoC = 0, or LoUIS = LoUU = 0).
        const ARM_IDC = 1;
        /// arm64: CTR_EL0.DIC: no instruction cache invalidation is needed. Requires IDC.
        const ARM_DIC = 1 << 1;
        /// arm64: exception entry is context synchronising (SCTLR_ELx.EIS, or no FEAT_ExS).
        const ARM_EIS = 1 << 2;
        /// arm64: exception return is context synchronising (SCTLR_ELx.EOS, or no FEAT_ExS).
        const ARM_EOS = 1 << 3;
        /// arm64: HCR_EL2.FB: local maintenance is broadcast.
        const ARM_FB = 1 << 4;
        /// arm64: FEAT_ETS2.
        const ARM_ETS2 = 1 << 5;
        /// arm64: FEAT_BBML2 on cores that never raise a TLB conflict abort.
        const ARM_BBML2_NOABORT = 1 << 6;
        /// arm64: the instruction cache is indexed by virtual address (CTR_EL0.L1Ip: VIPT).
        const ARM_VIPT = 1 << 7;
        /// arm64: a broadcast TLBI has reached other CPUs only when it was repeated after a DSB
        /// (erratum 1286807 of Cortex-A76 and kin).
        const ARM_REPEAT_TLBI = 1 << 8;
        /// arm64: FEAT_TLBIRANGE: one TLBI takes a range of addresses.
        const ARM_TLBIRANGE = 1 << 9;
        /// arm64: FEAT_TTL: a TLBI by address may name the level of the leaf that it is about.
        const ARM_TTL = 1 << 10;
        /// x86: the vendor is AMD (else Intel).
        const X86_AMD = 1 << 16;
        /// x86: 2 MiB pages.
        const X86_PSE = 1 << 17;
        /// x86: 1 GiB pages.
        const X86_GBPAGES = 1 << 18;
        /// x86: PCID.
        const X86_PCID = 1 << 19;
        /// x86: the SERIALIZE instruction.
        const X86_SERIALIZE = 1 << 20;
        /// x86: INVLPGB and TLBSYNC.
        const X86_INVLPGB = 1 << 21;
        /// x86: EFER.TCE (AMD): INVLPG keeps unrelated upper levels.
        const X86_TCE = 1 << 22;
        /// x86: INVLPG leaves global entries while PCIDs are on (Alder Lake and kin before a
        /// microcode update).
        const X86_INVLPG_MISS = 1 << 23;
        /// powerpc: the instruction cache is coherent (CPU_FTR_COHERENT_ICACHE).
        const PPC_COHERENT_ICACHE = 1 << 32;
        /// powerpc: radix translation (else hash).
        const PPC_RADIX = 1 << 33;
        /// powerpc: prefixed instructions (Power ISA 3.1).
        const PPC_PREFIXED = 1 << 34;
        /// powerpc: the kernel uses tlbie (else tlbiel by IPI).
        const PPC_TLBIE = 1 << 35;
        /// powerpc: a `tlbie` does not wait for stores of other threads through the old translation
        /// unless it is repeated after a `ptesync` (POWER9 store queue erratum).
        const PPC_TLBIE_STQ = 1 << 36;
        /// 32-bit powerpc: an 8xx, whose TLB software loads (else a hashed table).
        const PPC_8XX = 1 << 37;
        /// 32-bit powerpc with hashed tables: eight pairs of block registers each (else four;
        /// MMU_FTR_USE_HIGH_BATS).
        const PPC_HIGH_BATS = 1 << 38;
    }
}

/// One feature as a user names it (`--cpu idc=1`, `feature arm64.dic = 0`).
#[derive(Clone, Copy, Debug)]
pub struct FeatureName {
    /// The architecture whose feature it is; 64-bit Powers share the `ppc64le` rows, 32-bit has
    /// `tlbie` of these.
    pub arch: Arch,
    /// Lower-case name.
    pub name: &'static str,
    /// The bit.
    pub bit: Features,
    /// On by default.
    pub default: bool,
    /// What it stands for.
    pub meaning: &'static str,
}

/// Every feature that can be named. Defaults are common current machines: Intel with PCID; Arm
/// without IDC or DIC (the strictest caches that Linux meets); Power radix with coherent icache.
pub const FEATURES: &[FeatureName] = &[
    f(Arch::Arm64, "idc", Features::ARM_IDC, false, "no data cache clean needed (effective IDC)"),
    f(Arch::Arm64, "dic", Features::ARM_DIC, false, "no icache invalidation needed (CTR_EL0.DIC)"),
    f(Arch::Arm64, "eis", Features::ARM_EIS, true, "exception entry synchronises context"),
    f(Arch::Arm64, "eos", Features::ARM_EOS, true, "exception return synchronises context"),
    f(Arch::Arm64, "fb", Features::ARM_FB, false, "HCR_EL2.FB: local maintenance is broadcast"),
    f(Arch::Arm64, "ets2", Features::ARM_ETS2, false, "FEAT_ETS2"),
    f(Arch::Arm64, "bbml2_noabort", Features::ARM_BBML2_NOABORT, false, "BBM level 2, no abort"),
    f(Arch::Arm64, "vipt", Features::ARM_VIPT, false, "icache indexed by virtual address"),
    f(Arch::Arm64, "repeat_tlbi", Features::ARM_REPEAT_TLBI, false, "erratum: TLBI needs a second"),
    f(Arch::Arm64, "tlbirange", Features::ARM_TLBIRANGE, false, "FEAT_TLBIRANGE: TLBI of a range"),
    f(Arch::Arm64, "ttl", Features::ARM_TTL, false, "FEAT_TTL: TLBI by address names a level"),
    f(Arch::X86_64, "amd", Features::X86_AMD, false, "AMD rules (else Intel)"),
    f(Arch::X86_64, "pse", Features::X86_PSE, true, "2 MiB pages"),
    f(Arch::X86_64, "gbpages", Features::X86_GBPAGES, true, "1 GiB pages"),
    f(Arch::X86_64, "pcid", Features::X86_PCID, true, "process-context identifiers"),
    f(Arch::X86_64, "serialize", Features::X86_SERIALIZE, false, "the SERIALIZE instruction"),
    f(Arch::X86_64, "invlpgb", Features::X86_INVLPGB, false, "broadcast TLB invalidation"),
    f(Arch::X86_64, "tce", Features::X86_TCE, false, "EFER.TCE"),
    f(
        Arch::X86_64,
        "invlpg_miss",
        Features::X86_INVLPG_MISS,
        false,
        "erratum: INVLPG leaves globals",
    ),
    f(Arch::Ppc64le, "coherent_icache", Features::PPC_COHERENT_ICACHE, true, "icache snoops"),
    f(Arch::Ppc64le, "radix", Features::PPC_RADIX, true, "radix trees (else hashed tables)"),
    f(Arch::Ppc64le, "prefixed", Features::PPC_PREFIXED, true, "prefixed instructions"),
    f(Arch::Ppc64le, "tlbie", Features::PPC_TLBIE, true, "broadcast tlbie is used"),
    f(Arch::Ppc64le, "tlbie_stq", Features::PPC_TLBIE_STQ, false, "erratum: tlbie passes stores"),
    f(
        Arch::Ppc32,
        "mpc8xx",
        Features::PPC_8XX,
        false,
        "TLB loaded by software (else hashed table)",
    ),
    f(Arch::Ppc32, "high_bats", Features::PPC_HIGH_BATS, true, "eight block registers (else four)"),
];

const fn f(
    arch: Arch,
    name: &'static str,
    bit: Features,
    default: bool,
    meaning: &'static str,
) -> FeatureName {
    FeatureName { arch, name, bit, default, meaning }
}

impl Features {
    /// The default features of an architecture.
    #[must_use]
    pub fn default_for(arch: Arch) -> Features {
        named(arch).filter(|f| f.default).fold(Features::empty(), |set, f| set | f.bit)
    }

    /// The feature of `arch` called `name`.
    #[must_use]
    pub fn by_name(arch: Arch, name: &str) -> Option<&'static FeatureName> {
        named(arch).find(|f| f.name == name)
    }
}

/// The features that `arch` has.
pub fn named(arch: Arch) -> impl Iterator<Item = &'static FeatureName> {
    let family = if arch == Arch::Ppc64 { Arch::Ppc64le } else { arch };
    let shared = move |f: &FeatureName| arch == Arch::Ppc32 && f.bit == Features::PPC_TLBIE;
    FEATURES.iter().filter(move |f| f.arch == family || shared(f))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_bits_are_unique() {
        for (i, a) in FEATURES.iter().enumerate() {
            for b in &FEATURES[i + 1..] {
                assert!(a.bit != b.bit, "{} and {} share a bit", a.name, b.name);
                assert!((a.arch, a.name) != (b.arch, b.name), "{} twice", a.name);
            }
        }
    }

    #[test]
    fn powers_of_64_bits_share_one_set() {
        assert_eq!(Features::default_for(Arch::Ppc64), Features::default_for(Arch::Ppc64le));
        let tlbie = Features::PPC_TLBIE;
        assert_eq!(Features::default_for(Arch::Ppc32), tlbie | Features::PPC_HIGH_BATS);
        assert!(Features::by_name(Arch::Arm64, "dic").is_some());
        assert!(Features::by_name(Arch::X86_64, "dic").is_none());
    }
}
