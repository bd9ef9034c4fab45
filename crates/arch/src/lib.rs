//! What the architectures are, as tables with citations.
//!
//! Every fact about x86-64, arm64 and powerpc that the other crates need stands here once: names
//! ([`isa`]), addresses ([`addr`]), permissions ([`perm`]), CPU features ([`features`]), page-table
//! formats ([`paging`], [`hashed`]), the instruction table ([`insn`]), cache geometry ([`cache`])
//! and the rules that close a fetch or translation window ([`sync`]), trap fills ([`trap`]). Each
//! row names its source ([`cite`]).
//!
//! Not here: anything Linux does (crate `textbed-kernel`), and any state (crate `textbed-machine`).

pub mod addr;
pub mod cache;
pub mod cite;
pub mod effect;
pub mod features;
pub mod hashed;
pub mod insn;
pub mod isa;
pub mod paging;
pub mod perm;
pub mod sync;
pub mod trap;

pub use addr::{CpuId, FRAME_BYTES, FRAME_SHIFT, Pfn, PhysAddr, SpaceId, VirtAddr};
pub use cite::{Cite, Evidence};
pub use features::Features;
pub use isa::Arch;
pub use perm::Perm;
