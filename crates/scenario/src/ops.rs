//! Instructions by the names that scenarios write: those of the instruction table with `_` for each
//! blank, so that `op dc_cvau p` is the row `dc cvau`.

use textbed_arch::Arch;
use textbed_arch::insn::{self, Row};

use crate::suggest;

/// The row that a scenario's name stands for on an architecture. Where several encodings share a
/// name, the first.
pub fn resolve(arch: Arch, written: &str) -> Option<&'static Row> {
    insn::rows(arch).iter().find(|row| spelling(row.name) == written)
}

/// The architecture's name nearest to one that is none.
pub fn suggest(arch: Arch, written: &str) -> Option<String> {
    let names: Vec<String> = insn::rows(arch).iter().map(|row| spelling(row.name)).collect();
    suggest::nearest(written, names.iter().map(String::as_str)).map(str::to_owned)
}

/// The architectures whose instruction it is, if it is one anywhere.
pub fn elsewhere(written: &str) -> Vec<Arch> {
    Arch::ALL.into_iter().filter(|arch| resolve(*arch, written).is_some()).collect()
}

/// How a name of the table, or of a missing operation, is written in a scenario: in lower case,
/// anything but letters, digits, dots and hyphens as one `_`.
pub fn spelling(name: &str) -> String {
    let mut spelled = String::with_capacity(name.len());
    for c in name.trim().chars() {
        if c.is_alphanumeric() || matches!(c, '.' | '-') {
            spelled.extend(c.to_lowercase());
        } else if !spelled.ends_with('_') {
            spelled.push('_');
        }
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_can_be_written_in_a_scenario() {
        let mut rows = 0;
        for arch in [Arch::X86_64, Arch::Arm64, Arch::Ppc64le] {
            for row in insn::rows(arch) {
                rows += 1;
                let written = spelling(row.name);
                assert_eq!(resolve(arch, &written).map(|r| r.name), Some(row.name));
                let text = format!("scenario \"s\"\ncpu 0 {{ op {written} 1 }}");
                assert!(crate::syntax::parse(&text).is_ok(), "{arch} {written}");
            }
        }
        assert!(rows > 100, "{rows} rows");
    }

    #[test]
    fn names_and_suggestions() {
        assert_eq!(resolve(Arch::Arm64, "dc_cvau").unwrap().name, "dc cvau");
        assert!(resolve(Arch::X86_64, "dc_cvau").is_none());
        assert_eq!(suggest(Arch::Arm64, "dc_cavu").as_deref(), Some("dc_cvau"));
        assert_eq!(elsewhere("isync"), [Arch::Ppc64le, Arch::Ppc64, Arch::Ppc32]);
        assert_eq!(spelling("DSB ISH; ISB"), "dsb_ish_isb");
    }
}
