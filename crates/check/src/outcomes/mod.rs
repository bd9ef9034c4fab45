//! What programs of a few instructions can end in: the checker's verdicts over outcomes.
//!
//! The stream checker judges each fetch alone, and exactly. An outcome is about several fetches at
//! once, and each may be able to return what it did while all together can't (two CPUs that each
//! need the other's invalidation first). So an outcome is decided over whole *classes*: the
//! executed instructions of each CPU, reads-from and coherence of ordinary accesses, and the
//! version that each fetch returned.
//!
//! - [`Thread`] is a program: it is asked for its next [`Step`] and told what loads and fetches
//!   returned. It keeps its registers to itself, and says which loads fed an address, a value or a
//!   branch ([`Deps`]).
//! - [`explore`] enumerates the classes of some threads, within [`Limits`].
//! - [`Class::possible`] decides one by the joint rule R14 over the order of R1 to R9.
//! - [`Class::window`] is the window of one fetch by the same order, and [`Class::stream_windows`]
//!   what the one-pass form of the stream checker makes of the class; both are there to be
//!   compared.
//!
//! Modelled: arm64 with IDC/DIC as 00, 10, 11; invalidations of lines, of everything, of everything
//! on one CPU; maintenance of lines that hold several stored words; barriers that reach their own
//! CPU alone (`nsh`). Not modelled: atomics, accesses that overlap another in part, translation,
//! other architectures (their windows: [`crate`], "Fetch windows").
//!
//! Sources: herdtools7 `aarch64.cat`, `aarch64hwreqs.cat`, `enumerations.cat`; ESOP 2020 (Simner
//! and others); Arm ARM DDI 0487 B2.7.4.2; read.

mod class;
mod explore;
mod graph;
mod joint;
mod local;
#[cfg(test)]
mod random;
mod step;
mod stream;

pub use class::{Class, Effect};
pub use explore::{Ask, Explored, Limits, Thread, TooMuch, explore};
pub use step::{Answer, Deps, Lines, Order, Side, Step};

#[cfg(test)]
pub(crate) use stream::Stream;
