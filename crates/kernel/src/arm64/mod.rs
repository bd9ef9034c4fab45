//! What Linux does on arm64.

pub(crate) mod cache;
pub(crate) mod pageattr;
pub(crate) mod patching;
pub(crate) mod tlb;
