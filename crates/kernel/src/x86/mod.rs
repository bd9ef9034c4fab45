//! What Linux does on x86-64.

pub(crate) mod batch;
pub(crate) mod caching;
pub(crate) mod cpa;
pub(crate) mod memtype;
pub(crate) mod text_poke;
pub(crate) mod tlb;
mod walk;
