//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs, replays and explains kernel executable memory: finds every W+X window and every missing
/// synchronisation.
#[derive(Parser, Debug)]
#[command(name = "textbed", version, max_term_width = 100)]
#[command(
    after_help = "Exit status: 0 nothing at deny level, 1 findings (test: a difference; run: \
also a CPU that waits for ever and is not expected to), 2 unusable input or arguments, 3 something \
needed is not modelled, a limit was reached, or a log records too little to check anything. With \
several inputs all are processed, and 2 wins over 1 over 3."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// When to colour text.
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: Colour,

    /// How wide text is laid out; else as the terminal (60 to 120), or 100 where there is none.
    #[arg(long, global = true, value_name = "COLUMNS",
          value_parser = clap::value_parser!(u16).range(60..=400))]
    pub(crate) width: Option<u16>,

    /// Show less: findings at deny level only.
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Show more: every window and each rule's coverage.
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Run scenarios and show what happens.
    Run(ScenarioArgs),
    /// Compare scenarios with what they expect, under newest, stalest and several seeds.
    Test(TestArgs),
    /// Leave out one synchronisation of a scenario after the other, and show what is found then.
    LeaveOut(LeaveOutArgs),
    /// Replay logs recorded on real kernels.
    Replay(ReplayArgs),
    /// Print the recorder for a kernel: a shell script for tracefs, or a bpftrace program.
    Record(RecordArgs),
    /// Explain a rule.
    Explain {
        /// The rule's name, as printed in brackets by a finding.
        rule: String,
    },
    /// List what there is.
    List {
        /// What to list.
        what: Listing,
    },
    /// Show what an architecture and kernel version are modelled to do, with sources.
    Caps(CapsArgs),
    /// Print the JSON schema of reports, or of test results.
    Schema {
        /// Of which document.
        #[arg(default_value = "report")]
        of: Document,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

#[derive(Args, Debug)]
pub(crate) struct ScenarioArgs {
    /// Scenario files, or folders of them.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) inputs: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,

    /// Print what each call gave, one column a machine, instead of the findings.
    #[arg(long)]
    pub(crate) results: bool,

    /// Who answers where hardware is free to choose.
    #[arg(long, value_name = "POLICY", default_value = "newest")]
    pub(crate) policy: PolicyArg,

    /// Seed of the random policy.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Run each N times more, under seeds 1 to N of the random policy, and show what they add.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "results")]
    pub(crate) seeds: u64,

    #[command(flatten)]
    pub(crate) check: CheckArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct TestArgs {
    /// Scenario files, or folders of them.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) inputs: Vec<PathBuf>,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,

    /// How many seeds of the random policy to try, beside newest and stalest.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) seeds: u64,

    /// Format of the results (text, json, sarif, junit or ktap), to standard output or a file; may
    /// be repeated.
    #[arg(long, value_name = "FORMAT[=FILE]")]
    pub(crate) format: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct LeaveOutArgs {
    /// Scenario files, or folders of them.
    #[arg(required = true, value_name = "FILE|DIR")]
    pub(crate) inputs: Vec<PathBuf>,

    /// Print a table a scenario, for a page in Markdown.
    #[arg(long)]
    pub(crate) markdown: bool,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,

    #[command(flatten)]
    pub(crate) check: CheckArgs,
}

#[derive(Args, Debug)]
pub(crate) struct MachineArgs {
    /// Architectures, separated by commas, or `all`; default: those that the file names.
    #[arg(long, value_name = "A,B|all", value_delimiter = ',')]
    pub(crate) arch: Vec<String>,

    /// Kernel version; default: those that the file names.
    #[arg(long, value_name = "V")]
    pub(crate) kernel: Option<String>,

    /// A CPU feature, for example `idc=1` or `arm64.dic=0`; may be repeated.
    #[arg(long = "cpu", value_name = "FEATURE=WORD")]
    pub(crate) cpu: Vec<String>,

    /// An option of the kernel, for example `page_size=64K` or `arm64.rodata=on`; may be repeated.
    #[arg(long, value_name = "OPTION=WORD")]
    pub(crate) config: Vec<String>,

    /// Most instructions of one `call()`, and most statements; beyond it the run is given up.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    pub(crate) max_steps: u64,

    /// Let the code of `call()` run freely between the instructions that matter: faster where it
    /// loops, with the same findings and fewer events.
    #[arg(long)]
    pub(crate) free: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ReplayArgs {
    /// Logs (text of tracefs, trace-cmd, perf script, function_graph or bpftrace; plain, gzip or
    /// zstd), folders with the log of one recording or the logs of its CPUs, or `-` for standard
    /// input.
    #[arg(required = true, value_name = "LOG|DIR|-")]
    pub(crate) inputs: Vec<PathBuf>,

    /// The inputs are one recording: put them together by time.
    #[arg(long)]
    pub(crate) merge: bool,

    /// The log's architecture, where it cannot be found from the log.
    #[arg(long, value_name = "A")]
    pub(crate) arch: Option<String>,

    /// The log's kernel version, where it cannot be found from the log.
    #[arg(long, value_name = "V")]
    pub(crate) kernel: Option<String>,

    /// The size of its pages (4K, 16K or 64K), where it cannot be found from the log.
    #[arg(long, value_name = "SIZE")]
    pub(crate) page_size: Option<String>,

    /// The bits of an address that its page tables translate (x86-64 48 or 57, arm64 36 to 52),
    /// where they cannot be found from the log.
    #[arg(long, value_name = "BITS")]
    pub(crate) va_bits: Option<u32>,

    #[command(flatten)]
    pub(crate) check: CheckArgs,

    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

#[derive(Args, Debug)]
pub(crate) struct RecordArgs {
    /// The architecture of the machine that will be recorded.
    #[arg(long, value_name = "A")]
    pub(crate) arch: String,

    /// Its kernel version (6.12); without it the probes of every version are tried.
    #[arg(long, value_name = "V")]
    pub(crate) kernel: Option<String>,

    /// What the recorder is to be made for.
    #[arg(long, value_name = "MEANS", default_value = "tracefs")]
    pub(crate) via: Means,

    /// Leave out probes of functions that are not in this copy of /proc/kallsyms or System.map
    /// (bpftrace stops at a return probe of a function that is not there).
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub(crate) symbols: Option<PathBuf>,

    /// Print no recorder: say what will be missing by this copy of /proc/kallsyms, System.map or
    /// the kernel's configuration (plain, gzip or zstd; - for standard input).
    #[arg(long, value_name = "FILE")]
    pub(crate) check: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Means {
    /// A POSIX shell script; needs root and nothing else.
    Tracefs,
    /// A bpftrace program.
    Bpftrace,
}

#[derive(Args, Debug)]
pub(crate) struct CapsArgs {
    /// Architectures, separated by commas, or `all`.
    #[arg(long, value_name = "A,B|all", value_delimiter = ',', default_value = "all")]
    pub(crate) arch: Vec<String>,

    /// Kernel version.
    #[arg(long, value_name = "V", default_value = "6.12")]
    pub(crate) kernel: String,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// How to read the architecture where readings differ: strict, mapped or fresh [default:
    /// mapped].
    #[arg(long, value_name = "READING")]
    pub(crate) reading: Option<String>,

    /// Whether the architecture's rules for live patching are in force: on, off, or on with arm64's
    /// list as of a revision of the manual (a.a, d.a, middle, latest) [default: on].
    #[arg(long, value_name = "on|off|LIST")]
    pub(crate) cmodx: Option<String>,

    /// Report a rule at deny level (order of these three options counts).
    #[arg(long, value_name = "RULE")]
    pub(crate) deny: Vec<String>,

    /// Report a rule at warn level.
    #[arg(long, value_name = "RULE")]
    pub(crate) warn: Vec<String>,

    /// Do not report a rule.
    #[arg(long, value_name = "RULE")]
    pub(crate) allow: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct OutputArgs {
    /// Format of the report (text, json, sarif, junit or ktap), to standard output or a file; may
    /// be repeated.
    #[arg(long, value_name = "FORMAT[=FILE]")]
    pub(crate) format: Vec<String>,

    /// Write what happened on a time axis, as a Chrome trace (for Perfetto or chrome://tracing).
    #[arg(long, value_name = "FILE")]
    pub(crate) timeline: Option<PathBuf>,

    /// Findings of this earlier JSON report are known: they are shown only with -v, and fail
    /// nothing.
    #[arg(long, value_name = "REPORT")]
    pub(crate) baseline: Option<PathBuf>,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PolicyArg {
    /// Every fetch and walk sees the newest.
    Newest,
    /// Every fetch and walk sees the oldest that hardware may still hold.
    Stalest,
    /// Choices by a seed.
    Random,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Document {
    /// What `run` and `replay` print with `--format json`.
    Report,
    /// What `test` prints with `--format json`.
    Test,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Listing {
    /// The checker's rules.
    Rules,
    /// The scenarios below `scenarios/`.
    Scenarios,
    /// Real bugs that scenarios show, and where each comes from.
    Bugs,
    /// What is allowed and therefore not reported, and why.
    Calibration,
    /// The kernel calls that scenarios may use.
    Calls,
    /// Instructions that `op` may use.
    Ops,
    /// Configuration options, CPU features and kernel versions that can be named.
    Options,
}
