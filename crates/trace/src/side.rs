//! Files that lie beside a log: what the kernel was, what was probed, what was mapped before.
//!
//! Known by name in the log's own directory: `version` (`/proc/version`), `cmdline`, `config*`,
//! `cpus` (`/sys/devices/system/cpu/online`), `kprobe_events`, `kprobe_profile*`,
//! `event-counts.tsv`, `iomem*`, `kallsyms*`, `vmallocinfo.pre`, `modules` or `modules.pre`
//! (`/proc/modules`), `ptpages.pre.bin` (page-table pages, see [`crate::tables`]), where `pre` is:
//! before the log began; `ptpages.post.bin`, taken after its last line, which is compared with what
//! was replayed.
//! Text files may be packed as the log may. All are optional; one that cannot be read is an error,
//! for a log must not be read with half of its frame.

use crate::functions::Symbols;
use crate::modules::{self, Module};
use crate::reader::{LineReader, ReadError};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What was found. Fields are empty where there was no file.
#[derive(Debug, Clone, Default)]
pub struct SideFiles {
    /// Contents of `version`, first line.
    pub version: Option<String>,
    /// Contents of `cmdline`, first line.
    pub cmdline: Option<String>,
    /// The highest CPU of `cpus`, a list like `0-3,8`, and one more.
    pub cpus: Option<u32>,
    /// CPUs below that which the list leaves out, one bit each; from 63 on they share a bit.
    pub cpu_gaps: u64,
    /// Name of the `config*` file.
    pub config_name: Option<String>,
    /// Lines of it that start with `CONFIG_` and mention page sizes.
    pub config_tables: Vec<String>,
    /// What `kallsyms*` and `kprobe_events` tell of names.
    pub symbols: Symbols,
    /// Functions with a probe at their entry, by `kprobe_events`.
    pub entry_probes: BTreeSet<String>,
    /// Functions with a probe at their return.
    pub return_probes: BTreeSet<String>,
    /// Names of events that occurred, by `event-counts.tsv`.
    pub events: BTreeSet<String>,
    /// Whether `kprobe_events` was there.
    pub has_probes: bool,
    /// Missed hits by `kprobe_profile*`: event and count, where not 0.
    pub missed: Vec<(String, u64)>,
    /// Address of the first "System RAM" of `iomem*`.
    pub first_ram: Option<u64>,
    /// Areas of `vmallocinfo.pre`: first address, bytes with guard page, the line's words.
    pub areas: Vec<(u64, u64, String)>,
    /// Lines of it without addresses: under `kptr_restrict` they are hashes.
    pub areas_hashed: u64,
    /// Modules of `modules`, by address, each once.
    pub modules: Vec<Module>,
    /// Lines of it without addresses: only root is shown them.
    pub modules_hidden: u64,
    /// Page tables taken before the log.
    pub tables: Option<PathBuf>,
    /// Page tables taken after the log.
    pub tables_after: Option<PathBuf>,
    /// Names of the files used, in order.
    pub used: Vec<String>,
}

impl SideFiles {
    /// Looks beside the log at `path`.
    ///
    /// # Errors
    /// [`ReadError`] if a file that is there cannot be read.
    pub fn beside(path: &Path) -> Result<Self, ReadError> {
        Self::of(path, &[])
    }

    /// Looks beside the first of `logs`, none of which is taken for such a file. Of a file in a
    /// folder for its CPU (`cpu0/trace`), beside that folder, and beside tracefs' `per_cpu`.
    ///
    /// # Errors
    /// [`ReadError`] if a file that is there cannot be read.
    pub fn of(first: &Path, logs: &[PathBuf]) -> Result<Self, ReadError> {
        let Some(mut dir) = first.parent() else { return Ok(Self::default()) };
        let name = |p: &Path| p.file_name().and_then(|n| n.to_str()).unwrap_or("").to_string();
        let is_cpu = |p: &Path| {
            name(p).strip_prefix("cpu").is_some_and(|n| n.bytes().all(|c| c.is_ascii_digit()))
        };
        if logs.len() > 1 && is_cpu(dir) {
            dir = dir.parent().unwrap_or(dir);
            if name(dir) == "per_cpu" {
                dir = dir.parent().unwrap_or(dir);
            }
        }
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let logs: Vec<String> =
            [first].into_iter().chain(logs.iter().map(PathBuf::as_path)).map(name).collect();
        Self::in_folder(dir, &logs)
    }

    fn in_folder(dir: &Path, logs: &[String]) -> Result<Self, ReadError> {
        let mut side = Self::default();
        let Ok(entries) = std::fs::read_dir(dir) else { return Ok(side) };
        let mut names: Vec<String> = entries
            .filter_map(|e| {
                let e = e.ok()?;
                let file = e.path().metadata().ok()?.is_file();
                file.then(|| e.file_name().into_string().ok())?
            })
            .filter(|n| !logs.contains(n))
            .collect();
        names.sort();
        for name in names {
            let file = dir.join(&name);
            let base = name.trim_end_matches(".zst").trim_end_matches(".gz");
            let known = match base {
                "version" => side.take_line(&file, |s, l| s.version = Some(l)),
                "cmdline" => side.take_line(&file, |s, l| s.cmdline = Some(l)),
                "cpus" => side.take_line(&file, |s, l| {
                    s.cpus = highest_cpu(&l).map(|n| n + 1);
                    s.cpu_gaps = s.cpus.map_or(0, |n| below(n) & !cpus_of(&l));
                }),
                "kprobe_events" => side.take_probes(&file),
                "event-counts.tsv" => side.take_counts(&file),
                "vmallocinfo.pre" => side.take_areas(&file),
                "modules" | "modules.pre" => side.take_modules(&file),
                "ptpages.pre.bin" => {
                    side.tables = Some(file);
                    Ok(())
                }
                "ptpages.post.bin" => {
                    side.tables_after = Some(file);
                    Ok(())
                }
                _ if base.starts_with("config") => side.take_config(&file, base),
                _ if base.starts_with("iomem") => side.take_iomem(&file),
                _ if base.starts_with("kallsyms") => {
                    lines(&file, |line| side.symbols.add_symbol(line))
                }
                _ if base.starts_with("kprobe_profile") => side.take_profile(&file),
                _ => continue,
            };
            match known {
                // An empty file says nothing.
                Ok(()) | Err(ReadError::Empty { .. }) => side.used.push(name),
                Err(e) => return Err(e),
            }
        }
        Ok(side)
    }

    fn take_line(&mut self, path: &Path, set: fn(&mut Self, String)) -> Result<(), ReadError> {
        let mut reader = LineReader::open(path)?;
        if let Some(line) = reader.next_line()? {
            set(self, String::from_utf8_lossy(line.bytes).trim().to_string());
        }
        Ok(())
    }

    fn take_probes(&mut self, path: &Path) -> Result<(), ReadError> {
        self.has_probes = true;
        lines(path, |line| {
            // `p:group/event symbol+0 args`, `r64:group/event symbol args`
            let mut words = line.split(' ');
            let (Some(kind), Some(symbol)) = (words.next(), words.next()) else { return };
            let symbol = symbol.split(['+', '.']).next().unwrap_or(symbol);
            let set = match kind.as_bytes().first() {
                Some(b'p') => &mut self.entry_probes,
                Some(b'r') => &mut self.return_probes,
                // `f:` is an fprobe, at the return if `%return` stands behind the symbol.
                Some(b'f') if symbol.ends_with("%return") => &mut self.return_probes,
                Some(b'f') => &mut self.entry_probes,
                _ => return,
            };
            let symbol = symbol.trim_end_matches("%return");
            set.insert(symbol.to_string());
            if let Some((_, event)) = kind.split_once(':') {
                let event = event.rsplit('/').next().unwrap_or(event);
                self.symbols.add_probe(event, symbol);
            }
        })
    }

    fn take_counts(&mut self, path: &Path) -> Result<(), ReadError> {
        lines(path, |line| {
            if let Some((count, name)) = line.split_once('\t')
                && count != "0"
            {
                self.events.insert(name.to_string());
            }
        })
    }

    fn take_profile(&mut self, path: &Path) -> Result<(), ReadError> {
        lines(path, |line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [name, _, missed] = words[..]
                && let Ok(missed) = missed.parse::<u64>()
                && missed > 0
            {
                self.missed.push((name.to_string(), missed));
            }
        })
    }

    fn take_config(&mut self, path: &Path, base: &str) -> Result<(), ReadError> {
        self.config_name = Some(base.to_string());
        lines(path, |line| {
            let told = |what| line.starts_with("CONFIG_") && line.contains(what);
            if (told("PAGE") || told("VA_BITS_")) && line.ends_with("=y") {
                self.config_tables.push(line.trim_end_matches("=y").to_string());
            }
        })
    }

    fn take_iomem(&mut self, path: &Path) -> Result<(), ReadError> {
        lines(path, |line| {
            if self.first_ram.is_none()
                && line.ends_with(" : System RAM")
                && let Some((first, _)) = line.trim_start().split_once('-')
            {
                self.first_ram = u64::from_str_radix(first, 16).ok();
            }
        })
    }

    fn take_modules(&mut self, path: &Path) -> Result<(), ReadError> {
        lines(path, |line| match modules::line(line) {
            modules::Said::Module(module) => self.modules.push(module),
            modules::Said::Hidden => self.modules_hidden += 1,
            modules::Said::Nothing => {}
        })?;
        // One address is one module's, whatever the file says.
        self.modules.sort_by_key(|m| m.base);
        self.modules.dedup_by_key(|m| m.base);
        Ok(())
    }

    fn take_areas(&mut self, path: &Path) -> Result<(), ReadError> {
        lines(path, |line| {
            let Some((range, rest)) = line.split_once(char::is_whitespace) else { return };
            let Some((first, last)) = range.split_once('-') else { return };
            let hex = |t: &str| u64::from_str_radix(t.trim_start_matches("0x"), 16).ok();
            let (Some(first), Some(end)) = (hex(first), hex(last)) else { return };
            let words = rest.trim_start().split_once(' ').map_or("", |(_, w)| w);
            // Hashes are no kernel addresses.
            if first >> 63 == 0 {
                self.areas_hashed += 1;
            } else if let Some(len) = end.checked_sub(first)
                && len > 0
            {
                self.areas.push((first, len, words.to_string()));
            }
        })
    }
}

/// The CPUs below a number, one bit each; from 63 on they share a bit.
pub(crate) fn below(cpus: u32) -> u64 {
    (0..cpus.min(64)).fold(0, |mask, cpu| mask | 1 << cpu)
}

/// The CPUs of such a list.
fn cpus_of(list: &str) -> u64 {
    let ranges = list.trim().split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.parse::<u32>().ok()?, last.parse::<u32>().ok()?))
    });
    ranges.fold(0, |mask, (first, last)| {
        mask | (first..=last.min(8191)).fold(0, |mask, cpu| mask | 1u64 << cpu.min(63))
    })
}

/// The highest number of a list like `0-3,8`.
fn highest_cpu(list: &str) -> Option<u32> {
    let last = list.trim().rsplit([',', '-']).next()?.parse().ok()?;
    (last < 8192).then_some(last)
}

/// Text of a file beside a log at most, in bytes: a `kallsyms` has some ten million, and what is
/// packed may unpack to anything.
const MAX_BYTES: u64 = 64 << 20;

fn lines(path: &Path, mut each: impl FnMut(&str)) -> Result<(), ReadError> {
    let mut reader = LineReader::open(path)?;
    while let Some(line) = reader.next_line()? {
        if line.offset > MAX_BYTES {
            let input = path.display().to_string();
            return Err(ReadError::FileTooLong { input, limit: MAX_BYTES });
        }
        each(&String::from_utf8_lossy(line.bytes));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_cpus_gives_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let cpus = |text: &str| {
            std::fs::write(dir.path().join("cpus"), text).unwrap();
            let side = SideFiles::beside(&dir.path().join("trace.txt")).unwrap();
            assert_eq!(side.cpu_gaps, if text.starts_with("0-3,8") { 0xf0 } else { 0 });
            side.cpus
        };
        assert_eq!(cpus("0-1\n"), Some(2));
        assert_eq!(cpus("0"), Some(1));
        assert_eq!(cpus("0-3,8\n"), Some(9));
        assert_eq!(cpus("none\n"), None);
        assert_eq!(cpus("0-99999999999\n"), None);
        assert_eq!(cpus(""), None);
    }
}
