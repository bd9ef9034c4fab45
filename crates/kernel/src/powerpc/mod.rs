//! What Linux does on 64-bit powerpc with radix translation.

pub(crate) mod cache;
pub(crate) mod pageattr;
pub(crate) mod patching;
pub(crate) mod tlb;
