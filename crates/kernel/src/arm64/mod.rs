//! What Linux does on arm64.

pub(crate) mod cache;
pub(crate) mod pageattr;
pub(crate) mod patching;
mod range;
mod split;
pub(crate) mod tlb;
