//! What caches a machine has, as far as it decides what closes a fetch window.

use textbed_arch::{Arch, Features};
use textbed_event::Header;

/// What closes a fetch window on this CPU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caches {
    /// Stores must be cleaned to where fetches look (not with effective IDC, or a snooping cache).
    pub(crate) clean: bool,
    /// Instruction caches must be invalidated (not with DIC).
    pub(crate) invalidate: bool,
    /// Any one invalidation stands for every line (Power with a coherent instruction cache).
    pub(crate) any_line: bool,
    /// A fetch is ordered before later effects of its CPU and hands on what it saw (Arm). Else it
    /// is before later stores of its CPU only, since none of them is done by speculation, and
    /// hands on nothing.
    pub(crate) fetch_orders: bool,
    /// Coherence, and a load that missed a store, order CPUs: storage is multi-copy-atomic (Arm).
    pub(crate) from_reads: bool,
    /// A load comes after its CPU's earlier cleans of the line (Arm).
    pub(crate) clean_before_load: bool,
    /// Context synchronisation completes the CPU's own invalidations for itself (Power).
    pub(crate) sync_completes: bool,
}

impl Caches {
    /// Arm with neither IDC nor DIC.
    pub(crate) const ARM: Self = Self {
        clean: true,
        invalidate: true,
        any_line: false,
        fetch_orders: true,
        from_reads: true,
        clean_before_load: true,
        sync_completes: false,
    };

    pub(crate) fn of(header: &Header) -> Self {
        let f = header.features;
        if header.arch == Arch::Arm64 {
            let dic = f.contains(Features::ARM_DIC);
            let idc = dic || f.contains(Features::ARM_IDC);
            Self { clean: !idc, invalidate: !dic, ..Self::ARM }
        } else {
            super::powerpc::caches(f)
        }
    }
}
