//! Litmus tests of instruction fetch: arm64 text in the format of herd, read into a program.
//!
//! [`parse`] gives a [`Test`]: each thread's code as real A64 words at addresses of its own, with
//! labels resolved, the handler of its faults (`P0.F`), initial registers and memory (numbers,
//! addresses of locations and labels, instructions as values), the cache type, and the condition
//! on final states. [`Op::decode`] reads a word back, since a test may store one; [`Registers`]
//! carries out what concerns one CPU alone. [`decide`] gives the verdict of the checker's rules;
//! [`kinds`] reads recorded verdicts.
//!
//! Not modelled: exclusives and atomics, SIMD, system registers but ELR_EL1, page-table entries in
//! the initial state other than an alias of a physical location, `filter`. Those are refused by
//! name. Types of variables are read and ignored but for their width.

mod asm;
mod condition;
mod error;
mod init;
pub mod kinds;
mod op;
mod parse;
mod program;
mod registers;
mod source;
mod verdict;

pub use asm::assemble;
pub use condition::{Atom, Condition, FaultKind, Final, Formula, Quantifier};
pub use error::{LitmusError, Problem};
pub use op::{Address, Alu, If, Op, Order, Rhs, Width};
pub use parse::{CODE_BASE, DATA_BASE, Insn, Place, STRIDE, Test, Thread, parse};
pub use registers::{Next, Registers};
pub use verdict::{By, Decision, classes, decide};
