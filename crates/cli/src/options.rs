//! Options that several commands share, as the crates want them.

use anyhow::{Result, anyhow, bail};
use textbed_arch::Arch;
use textbed_check::rules::RuleId;
use textbed_check::{Level, Options, rules};
use textbed_kernel::Version;

use crate::args::CheckArgs;
use crate::config;

/// The checker's options, before and after what an input allows.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    /// Reading, live patching, and the levels of `textbed.toml`.
    base: Options,
    /// `--deny`, `--warn`, `--allow` in the order in which they stand on the command line.
    flags: Vec<(RuleId, Level)>,
}

impl Check {
    /// The options for an input that allows these rules: `textbed.toml` < the input < flags.
    pub(crate) fn with(&self, allowed: impl IntoIterator<Item = RuleId>) -> Options {
        let mut options = self.base.clone();
        for rule in allowed {
            options.levels.set(rule, Level::Allow);
        }
        for (rule, level) in &self.flags {
            options.levels.set(*rule, *level);
        }
        options
    }

    /// What a scenario's expectations are held against: that reading, nobody's own levels.
    pub(crate) fn plain(reading: &str) -> Self {
        let reading = reading.parse().unwrap_or_default();
        Self { base: Options { reading, ..Options::default() }, flags: Vec::new() }
    }
}

/// The options of the command line and of the nearest `textbed.toml`.
///
/// # Errors
/// An unknown reading, rule or level.
pub(crate) fn check(args: &CheckArgs) -> Result<Check> {
    let config = config::nearest()?;
    let from = || config.path.display();
    let mut base = Options::default();
    if let Some(word) = &args.reading {
        base.reading = word.parse().map_err(|e| anyhow!("--reading: {e}"))?;
    } else if let Some(word) = &config.reading {
        base.reading = word.parse().map_err(|e| anyhow!("{}: {e}", from()))?;
    }
    if let Some(word) = &args.cmodx {
        base.set_cmodx(word).map_err(|e| anyhow!("--cmodx: {e}"))?;
    } else if let Some(word) = &config.cmodx {
        base.set_cmodx(word).map_err(|e| anyhow!("{}: cmodx: {e}", from()))?;
    }
    for (name, level) in &config.levels {
        let row = rules::by_name(name)
            .ok_or_else(|| unknown_rule(name).context(format!("{}: [levels]", from())))?;
        let level = [Level::Deny, Level::Warn, Level::Allow]
            .into_iter()
            .find(|l| l.name() == level)
            .ok_or_else(|| anyhow!("{}: {name} = '{level}': not deny, warn or allow", from()))?;
        base.levels.set(row.id, level);
    }
    let mut flags = Vec::new();
    for (level, name) in levels_in_order(args) {
        flags.push((rules::by_name(name).ok_or_else(|| unknown_rule(name))?.id, level));
    }
    Ok(Check { base, flags })
}

/// The message for a rule that does not exist.
pub(crate) fn unknown_rule(name: &str) -> anyhow::Error {
    let known: Vec<&str> = rules::RULES.iter().map(|row| row.name).collect();
    anyhow!("unknown rule '{name}' (known: {})", known.join(", "))
}

/// clap keeps the values of each option in order, not the order among options: that is read from
/// the arguments once more.
fn levels_in_order(args: &CheckArgs) -> Vec<(Level, &str)> {
    let mut queues =
        [(Level::Deny, &args.deny), (Level::Warn, &args.warn), (Level::Allow, &args.allow)]
            .map(|(level, names)| (level, names.iter()));
    let mut ordered = Vec::new();
    for word in std::env::args() {
        let flag = word.split_once('=').map_or(word.as_str(), |(flag, _)| flag);
        let Some(index) = ["--deny", "--warn", "--allow"].iter().position(|f| *f == flag) else {
            continue;
        };
        let (level, names) = &mut queues[index];
        ordered.extend(names.next().map(|name| (*level, name.as_str())));
    }
    ordered
}

/// The architectures that scenarios run on.
pub(crate) const SIMULATED: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

/// Architectures named by `--arch`; `all` is [`SIMULATED`]. None if not given.
///
/// # Errors
/// A name that is no architecture.
pub(crate) fn archs(names: &[String]) -> Result<Option<Vec<Arch>>> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut archs = Vec::new();
    for name in names {
        let group = if name == "all" { Some(&SIMULATED[..]) } else { Arch::group(name) };
        let group = group.ok_or_else(|| {
            let known: Vec<&str> = Arch::ALL.iter().map(|arch| arch.name()).collect();
            let known = known.join(", ");
            anyhow!("--arch: unknown architecture '{name}' (known: {known}, all)")
        })?;
        for arch in group {
            if !archs.contains(arch) {
                archs.push(*arch);
            }
        }
    }
    Ok(Some(archs))
}

/// A kernel version from an option.
///
/// # Errors
/// Text that is no version.
pub(crate) fn kernel(text: &str) -> Result<Version> {
    Version::parse(text).map_err(|e| anyhow!("--kernel: {e}"))
}

/// `FEATURE=WORD` pairs.
///
/// # Errors
/// A word without `=`.
pub(crate) fn features(words: &[String]) -> Result<Vec<(String, String)>> {
    pairs(words, |word| format!("--cpu {word}: expected FEATURE=WORD, for example idc=1"))
}

/// `OPTION=WORD` pairs.
///
/// # Errors
/// A word without `=`.
pub(crate) fn kernel_options(words: &[String]) -> Result<Vec<(String, String)>> {
    let wrong =
        |word: &str| format!("--config {word}: expected OPTION=WORD, for example page_size=64K");
    pairs(words, wrong)
}

fn pairs(words: &[String], wrong: impl Fn(&str) -> String) -> Result<Vec<(String, String)>> {
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => bail!("{}", wrong(word)),
    };
    words.iter().map(pair).collect()
}
