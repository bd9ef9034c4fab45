//! Runs scenarios on the modelled kernel and machine.
//!
//! One run is one scenario on one architecture and one kernel version under one policy. Its events
//! go to a sink in batches; each event's origin is the statement behind it. What else a reader
//! wants to know comes as notes: what calls computed and which failed, warnings, faults, failed
//! assertions, who waits for ever.
//!
//! `call(entry, args…)` runs machine code on a CPU of its own; without the feature `vcpu` it is not
//! modelled ("built without CPUs"). `preempt(entry, at)` runs it up to an instruction, where the
//! task is preempted; `resume()` lets the task that was preempted last on this CPU go on to its
//! end.
//! `jit(NAME)` is generated code and its data: an unpack function for a format of packed keys.
//! Not modelled: trap handlers, and calls, `with` and IPIs inside interrupt handlers.

mod arguments;
mod builtin;
mod engine;
mod guest;
mod kernel_world;
mod options;
mod preflight;
mod program;
mod results;
#[cfg(feature = "vcpu")]
mod returns;
mod schedule;
mod world;

use textbed_arch::Arch;
use textbed_event::Sink;
use textbed_kernel::{Kernel, Version};
use textbed_machine::{Newest, Policy, Random, SplitMix64, Stalest, SyncSeen, SyncSite};

use crate::analyse;
use crate::diagnostic::Diagnostic;
use crate::expect::End;
use crate::loaded::Loaded;
use crate::span::Span;
use engine::{Engine, Finish};
use kernel_world::KernelWorld;
use schedule::Scheduler;

pub use builtin::{BUILT_INS, BuiltIn};

/// Statements and guest instructions that a run may take by default.
pub const USUAL_STEPS: u64 = 1_000_000;

/// Who decides what hardware and scheduler are free to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyChoice {
    /// The newest value, the lowest-numbered CPU until it waits.
    Newest,
    /// The oldest value that is allowed, the lowest-numbered CPU until it waits.
    Stalest,
    /// By chance, with this seed.
    Random(u64),
}

/// How to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// On which architecture.
    pub arch: Arch,
    /// On which kernel.
    pub kernel: Version,
    /// CPU features, each `name` or `arch.name` with its value; they go before the file's.
    pub features: Vec<(String, String)>,
    /// Options of the kernel, in the same way.
    pub config: Vec<(String, String)>,
    /// Who decides.
    pub policy: PolicyChoice,
    /// Most statements, and most instructions of one `call()`.
    pub max_steps: u64,
    /// Machine code runs freely between the instructions that matter: faster, with the same
    /// findings and fewer events. Where that cannot be, it is stepped all the same.
    pub free: bool,
    /// What of the synchronisation is not carried out; none: nothing is watched either.
    pub left_out: Option<Vec<SyncSite>>,
}

impl RunOptions {
    /// With the usual features, policy `newest` and [`USUAL_STEPS`].
    pub fn new(arch: Arch, kernel: Version) -> Self {
        let policy = PolicyChoice::Newest;
        RunOptions {
            arch,
            kernel,
            features: Vec::new(),
            config: Vec::new(),
            policy,
            max_steps: USUAL_STEPS,
            free: false,
            left_out: None,
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    /// In which way.
    pub outcome: Outcome,
    /// What a reader wants to know, in the order in which it happened.
    pub notes: Vec<RunNote>,
    /// How many assertions failed.
    pub asserts_failed: usize,
    /// What synchronised, in order, with what was left out: if [`RunOptions::left_out`] is given.
    pub syncs: Vec<SyncSeen>,
}

/// In which way a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All programs ended, each in its way.
    Ended,
    /// A CPU waits for ever.
    Blocked,
    /// A limit was reached: which.
    Limit(String),
    /// Something is not modelled: what.
    NotModelled(String),
}

impl Outcome {
    /// As `expect` lines tell endings apart.
    pub fn end(&self) -> End {
        match self {
            Outcome::Ended => End::Ended,
            Outcome::Blocked => End::Blocked,
            Outcome::Limit(_) | Outcome::NotModelled(_) => End::Unfinished,
        }
    }
}

/// Something that a reader of a run wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunNote {
    /// What.
    pub text: String,
    /// The statement it is about.
    pub span: Span,
    /// Its line, from 1.
    pub line: u32,
    /// Whether it says that an assertion failed.
    pub failed_assert: bool,
}

/// Why a scenario can't be run so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The scenario is wrong, for this architecture and version or as it turned out. Never empty.
    #[error("{}", first_message(.0))]
    Input(Vec<Diagnostic>),
    /// An option is wrong.
    #[error("{0}")]
    Option(String),
}

fn first_message(diagnostics: &[Diagnostic]) -> &str {
    diagnostics.first().map_or("the scenario is wrong", |d| d.message.as_str())
}

/// Runs a scenario.
///
/// # Errors
/// What is wrong with the scenario or the options. What was emitted until then has reached the
/// sink.
pub fn run(loaded: &Loaded, options: &RunOptions, sink: &mut dyn Sink) -> Result<RunEnd, RunError> {
    let file = loaded.file();
    preflight::check(file, options.arch, options.kernel).map_err(RunError::Input)?;
    let cpus = u16::try_from(analyse::cpu_count(file)).unwrap_or(u16::MAX);
    let mut kernel = match options::boot(file, options, cpus, policy(options.policy)) {
        Ok(kernel) => kernel,
        Err(options::BootError::NotModelled(what)) => {
            let outcome = Outcome::NotModelled(what);
            let (notes, syncs) = (Vec::new(), Vec::new());
            return Ok(RunEnd { outcome, notes, asserts_failed: 0, syncs });
        }
        Err(options::BootError::Run(error)) => return Err(error),
    };
    if let Some(without) = &options.left_out {
        kernel.machine_mut().watch_syncs(without);
    }
    let scheduler = match options.policy {
        PolicyChoice::Random(seed) => Scheduler::Random(SplitMix64(seed)),
        PolicyChoice::Newest | PolicyChoice::Stalest => Scheduler::Lowest,
    };
    run_on(loaded, options, kernel, scheduler, cpus, sink)
}

fn policy(choice: PolicyChoice) -> Box<dyn Policy> {
    match choice {
        PolicyChoice::Newest => Box::new(Newest),
        PolicyChoice::Stalest => Box::new(Stalest),
        PolicyChoice::Random(seed) => Box::new(Random::new(seed)),
    }
}

fn run_on(
    loaded: &Loaded,
    options: &RunOptions,
    kernel: Kernel,
    scheduler: Scheduler,
    cpus: u16,
    sink: &mut dyn Sink,
) -> Result<RunEnd, RunError> {
    let world = KernelWorld::new(loaded, kernel, options, sink);
    let arch = options.arch;
    let mut engine = Engine::new(loaded.file(), arch, cpus, world, scheduler, options.max_steps);
    let finish = engine.run();
    engine.collect_notes();
    engine.world.finish();
    engine.collect_notes();
    let notes = std::mem::take(&mut engine.notes);
    let mut notes: Vec<RunNote> = notes
        .into_iter()
        .map(|note| RunNote {
            line: u32::try_from(loaded.position(note.place.start).line).unwrap_or(u32::MAX),
            text: note.text,
            span: note.place,
            failed_assert: note.failed_assert,
        })
        .collect();
    for text in engine.world.unused_failures() {
        notes.push(RunNote { text, span: file_place(loaded), line: 1, failed_assert: false });
    }
    let asserts_failed = notes.iter().filter(|note| note.failed_assert).count();
    let outcome = match finish {
        Finish::Ended => Outcome::Ended,
        Finish::Blocked => Outcome::Blocked,
        Finish::Limit(what) => Outcome::Limit(what),
        Finish::NotModelled(what) => Outcome::NotModelled(what),
        Finish::Input(diagnostic) => return Err(RunError::Input(vec![diagnostic])),
    };
    let syncs = engine.world.syncs().to_vec();
    Ok(RunEnd { outcome, notes, asserts_failed, syncs })
}

/// The place of the scenario's name, for notes about all of it.
fn file_place(loaded: &Loaded) -> Span {
    loaded.file().name.span
}
