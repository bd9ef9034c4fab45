//! CPUs that run real machine code, as CPUs of a modelled machine.
//!
//! A [`Vcpu`] executes x86-64, arm64 and 64-bit powerpc (both byte orders) one instruction at a
//! time on Unicorn. What it executes is what the machine's instruction side gives, stale or not;
//! what it loads and stores goes through the machine's TLB; maintenance, barriers, invalidations,
//! traps and returns are recognised in the instruction table and act on the machine. Unicorn
//! supplies arithmetic, not memory: its own caches of code and translations decide nothing. Running
//! freely ([`Vcpu::run_free`]) it does so over many instructions, as far as that cannot be told
//! from single steps.
//!
//! Not modelled: ppc32, user privilege, and what [`vcpu`] names.

mod decoded;
mod engine;
mod exceptions;
mod exec_view;
mod execute;
mod free;
mod moves;
mod native;
mod operate;
mod plain;
mod registers;
mod special;
mod traps;
pub mod vcpu;
mod wait;
mod windows;
mod x86;

pub use vcpu::{RETURN_ADDRESS, SavedVcpu, Vcpu};
