//! What Linux does on 64-bit powerpc, with radix translation and with hashed tables.

pub(crate) mod cache;
pub(crate) mod hash;
pub(crate) mod pageattr;
pub(crate) mod patching;
pub(crate) mod tlb;
