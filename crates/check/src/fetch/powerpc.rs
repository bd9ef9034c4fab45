//! Fetch windows on 64-bit and 32-bit Power.
//!
//! The chain has the same shape as on arm64, so the same machine derives it ([`super::arm64`]) with
//! these settings:
//!
//! | | Power | |---|---| | step 1 | `dcbst`; `sync`. Coherent instruction cache: no `dcbst`, the
//! `sync` stays | | step 2 | `icbi` of the executed line; `sync`. Coherent instruction cache: one
//! dummy `icbi` stands for every line | | step 3 | `sync`, `lwsync`, `eieio` (stores), release and
//! acquire | | step 4 | `isync`, `rfid`, interrupts that synchronise: the stream says so |
//!
//! `sync` is modelled as a full DSB and DMB in one, `lwsync` as order of loads before everything
//! and of stores before stores, `eieio` as order of stores. A fetch is before later stores of its
//! CPU and else orders nothing: the fetch anchor (R10) and CoFR are Arm's, no text for Power was
//! read that gives them. Storage is not multi-copy-atomic, so coherence and a load that missed a
//! store are no edges between CPUs; reads-from is. For the CPU that did the `icbi`, its `isync`
//! completes it; others need the second `sync`.
//!
//! Not modelled: reads-from that no barrier makes cumulative (taken as an edge), and the conditions
//! of Book II 1.8.1 other than the patch class.
//!
//! Sources: IBM 750GX UM 3.2 and 405 UM (store, dcbst, sync, icbi, isync); Linux 6.19
//! `lib/code-patching.c` and `mm/cacheflush.c` (second sync, coherent icache), read.

use textbed_arch::Features;

use super::caches::Caches;

/// What closes a fetch window on a Power CPU.
pub(crate) fn caches(features: Features) -> Caches {
    let coherent = features.contains(Features::PPC_COHERENT_ICACHE);
    Caches {
        clean: !coherent,
        invalidate: true,
        any_line: coherent,
        fetch_orders: false,
        from_reads: false,
        clean_before_load: false,
        sync_completes: true,
    }
}
