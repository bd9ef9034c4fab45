//! `textbed.toml`: a project's own levels and readings.
//!
//! Looked for in the current folder and its parents; the nearest one counts, alone. Flags of the
//! command win over it, and so does what a scenario allows.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The file's name.
const NAME: &str = "textbed.toml";

/// What such a file says.
#[derive(Deserialize, Default, Debug)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Level by rule: `deny`, `warn` or `allow`.
    #[serde(default)]
    pub(crate) levels: BTreeMap<String, String>,
    /// As `--reading`.
    pub(crate) reading: Option<String>,
    /// As `--cmodx`.
    pub(crate) cmodx: Option<String>,
    /// Where it was found.
    #[serde(skip)]
    pub(crate) path: PathBuf,
}

/// The nearest configuration, or an empty one.
///
/// # Errors
/// A file that cannot be read or understood.
pub(crate) fn nearest() -> Result<Config> {
    let here = std::env::current_dir().context("cannot tell the current folder")?;
    match here.ancestors().map(|folder| folder.join(NAME)).find(|path| path.is_file()) {
        Some(path) => read(&path),
        None => Ok(Config::default()),
    }
}

fn read(path: &Path) -> Result<Config> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    match toml::from_str::<Config>(&text) {
        Ok(config) => Ok(Config { path: path.to_owned(), ..config }),
        // The error shows line, column and the line itself.
        Err(error) => bail!("{}: {error}", path.display()),
    }
}
