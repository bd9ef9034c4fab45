//! Modules that were there before a log: `/proc/modules`, and which areas are whose.
//!
//! A line has a module's name, the bytes of all its parts and where its text begins (Linux 6.12
//! kernel/module/procfs.c: `m_show`; up to 6.3 all parts lie in one allocation that begins there).
//! The other parts are areas of their own, of which the list of areas says only that a module asked
//! for them: those that follow the text's area are the module's as long as its size lasts, and only
//! if it comes out even.
//!
//! Not modelled: parts that lie elsewhere (by configuration a module's data may be far from its
//! text). They have an owner without a name, as they have without this file.

use std::collections::BTreeMap;

/// A module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Where its text begins.
    pub base: u64,
    /// Bytes of all its parts.
    pub size: u64,
    /// What it is called.
    pub name: String,
}

/// What a line of `/proc/modules` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    Module(Module),
    /// A module whose address is not shown: the reader was not root.
    Hidden,
    /// It is no line of that file.
    Nothing,
}

/// Reads `NAME BYTES REFERENCES USERS STATE ADDRESS`, with taints behind it.
pub(crate) fn line(text: &str) -> Said {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [name, size, _, _, _, address, ..] = words[..] else { return Said::Nothing };
    let base = address.strip_prefix("0x").and_then(|a| u64::from_str_radix(a, 16).ok());
    let (Ok(size), Some(base)) = (size.parse(), base) else { return Said::Nothing };
    match base >> 63 {
        0 => Said::Hidden,
        _ => Said::Module(Module { base, size, name: name.to_string() }),
    }
}

/// The areas that are a module's, by first address. `areas` has first address and bytes without
/// guard page; `by_module` says whether a module asked for the area that begins there.
pub(crate) fn areas_of<'m>(
    modules: &'m [Module],
    areas: &[(u64, u64)],
    by_module: impl Fn(u64) -> bool,
) -> BTreeMap<u64, &'m str> {
    let sizes: BTreeMap<u64, u64> = areas.iter().copied().collect();
    let bases: BTreeMap<u64, &Module> = modules.iter().map(|m| (m.base, m)).collect();
    let mut owned = BTreeMap::new();
    for module in modules.iter().filter(|m| sizes.contains_key(&m.base)) {
        owned.insert(module.base, module.name.as_str());
        let mut parts = Vec::new();
        let mut left = module.size;
        for (at, len) in sizes.range(module.base..) {
            let others = *at != module.base && (bases.contains_key(at) || !by_module(*at));
            if left == 0 || others || *len > left {
                break;
            }
            left -= len;
            parts.push(*at);
        }
        if left == 0 {
            owned.extend(parts.into_iter().map(|at| (at, module.name.as_str())));
        }
    }
    owned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_a_module_is() {
        let module =
            |name: &str, size, base| Said::Module(Module { base, size, name: name.into() });
        assert_eq!(
            line("virtio_blk 32768 0 - Live 0xffffffffc0201000"),
            module("virtio_blk", 32768, 0xffff_ffff_c020_1000)
        );
        assert_eq!(
            line("nvidia 99 1 drm, Loading 0xffffffffc0000000 (POE+)"),
            module("nvidia", 99, 0xffff_ffff_c000_0000)
        );
        assert_eq!(line("ext4 1142784 0 - Live 0x0000000000000000"), Said::Hidden);
        for nonsense in ["", "a 1 2 3", "a b - - Live 0xffffffffc0000000", "a 1 - - Live ffff"] {
            assert_eq!(line(nonsense), Said::Nothing, "{nonsense}");
        }
    }

    /// Three modules: one of four parts, one of which something is missing, one that lies apart.
    #[test]
    fn parts_are_whose_size_they_add_up_to() {
        let module = |name: &str, base, size| Module { base, size, name: name.into() };
        let modules =
            [module("a", 0x1000, 0x8000), module("b", 0x20000, 0x9000), module("c", 9, 9)];
        let areas = [
            (0x1000, 0x3000),
            (0x5000, 0x2000),
            (0x8000, 0x2000),
            (0xb000, 0x1000),
            (0xd000, 0x1000),
            (0x20000, 0x3000),
            (0x24000, 0x2000),
            (0x30000, 0x9000),
        ];
        let owned = areas_of(&modules, &areas, |at| at != 0x30000);
        let expected = [(0x1000, "a"), (0x5000, "a"), (0x8000, "a"), (0xb000, "a"), (0x20000, "b")];
        assert_eq!(owned, BTreeMap::from(expected));
        // What another module begins with, or nobody knows whose it is, ends the run.
        let owned = areas_of(&modules, &areas, |at| at != 0x8000);
        assert_eq!(owned.keys().copied().collect::<Vec<_>>(), [0x1000, 0x20000]);
    }
}
