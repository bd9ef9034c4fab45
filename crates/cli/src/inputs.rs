//! Files and folders given on the command line.

use std::fs;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// Bytes of a file that are digested at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// How deep folders of scenarios are searched.
const MAX_DEPTH: usize = 16;

/// The scenario files among `inputs`: files as they are, folders searched for `*.tb` in order of
/// name. A folder without any is an error.
pub(crate) fn scenarios(input: &Path) -> Result<Vec<PathBuf>> {
    let meta = fs::metadata(input).with_context(|| format!("cannot read {}", input.display()))?;
    if !meta.is_dir() {
        return Ok(vec![input.to_owned()]);
    }
    let mut found = Vec::new();
    search(input, &mut found, 0)?;
    found.sort();
    if found.is_empty() {
        bail!("{}: no scenario (*.tb) in this folder", input.display());
    }
    Ok(found)
}

fn search(folder: &Path, found: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        bail!("{}: folders nest too deep", folder.display());
    }
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.is_dir() {
            search(&path, found, depth + 1)?;
        } else if path.extension().is_some_and(|e| e == "tb") {
            found.push(path);
        }
    }
    Ok(())
}

/// The text of a scenario file.
///
/// # Errors
/// A file that cannot be read or is not UTF-8 (with the place of the first wrong byte).
pub(crate) fn text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{}: not text: byte {at} is not UTF-8", path.display())
    })
}

/// SHA-256 in hex.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of files one behind the other, read in pieces.
pub(crate) fn sha256_of_files(paths: &[PathBuf]) -> Result<String> {
    let mut digest = Sha256::new();
    for path in paths {
        let file =
            fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut pieces = BufReader::with_capacity(PIECE_BYTES, file);
        std::io::copy(&mut pieces, &mut DigestWriter(&mut digest))
            .with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(hex(&digest.finalize()))
}

struct DigestWriter<'a>(&'a mut Sha256);

impl std::io::Write for DigestWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        use std::fmt::Write as _;
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_the_standard_one() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(b"abc"), abc);
    }
}
