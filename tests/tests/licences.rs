//! Licences of all dependencies against the list in `tools/licences.list`.
//!
//! Textbed is GPL-2.0-only. What is linked has to be compatible with that; what only builds or
//! tests Textbed may also be under Apache-2.0. The split follows the dependency kinds of
//! `cargo metadata`: *linked* is what a workspace package other than this one reaches by normal
//! dependencies, with all features on, on the Linux hosts named in [`HOSTS`]. Procedural macros and
//! what they use count as linked, although they only run in the compiler: their output is compiled
//! in.
//!
//! Not checked: dependencies for other systems than Linux, and whether a package's files agree with
//! what its manifest says.

use cargo_metadata::{CargoOpt, DependencyKind, Metadata, MetadataCommand, PackageId};
use spdx::{Expression, ParseMode};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Hosts whose dependencies are looked at.
const HOSTS: [&str; 3] =
    ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu", "powerpc64le-unknown-linux-gnu"];

/// The package whose normal dependencies are not distributed: this one.
const TESTS: &str = "textbed-tests";

/// The licence of every package of the workspace.
const OURS: &str = "GPL-2.0-only";

/// How expressions are read: as the registry allows them ("MIT/Apache-2.0", "GPL-2.0"), but with
/// exact identifiers, so that a name that is merely similar is not taken for a licence.
const MODE: ParseMode = ParseMode {
    allow_slash_as_or_operator: true,
    allow_imprecise_license_names: false,
    allow_postfix_plus_on_gpl: true,
    allow_deprecated: true,
    allow_unknown: false,
};

/// What a package is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Linked,
    Build,
}

/// Licences that are allowed, as SPDX terms in canonical form.
#[derive(Debug, Default)]
struct Allowed {
    linked: BTreeSet<String>,
    build: BTreeSet<String>,
}

impl Allowed {
    /// Reads the list: a term, `linked` or `build`, and the reason, which is not optional.
    fn parse(text: &str) -> Result<Self, String> {
        let mut allowed = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = |what: &str| format!("line {}: {what}: {line}", number + 1);
            let words: Vec<&str> = line.split_whitespace().collect();
            let place = words
                .iter()
                .position(|w| *w == "linked" || *w == "build")
                .ok_or_else(|| at("neither `linked` nor `build`"))?;
            if place + 1 == words.len() {
                return Err(at("no reason"));
            }
            let expression = Expression::parse_mode(&words[..place].join(" "), MODE)
                .map_err(|e| at(&e.reason.to_string()))?;
            let mut terms = expression.requirements().map(|r| r.req.to_string());
            let (Some(term), None) = (terms.next(), terms.next()) else {
                return Err(at("not a single licence"));
            };
            let set =
                if words[place] == "linked" { &mut allowed.linked } else { &mut allowed.build };
            if !set.insert(term) {
                return Err(at("twice"));
            }
        }
        Ok(allowed)
    }

    /// Whether the terms of `expression` can be met for this use.
    fn judge(&self, expression: Option<&str>, usage: Use) -> Result<(), String> {
        let text = expression.ok_or("names no licence")?;
        let parsed = Expression::parse_mode(text, MODE)
            .map_err(|e| format!("\"{text}\" is not understood: {}", e.reason))?;
        let mut refused = BTreeSet::new();
        let satisfied = parsed.evaluate(|req| {
            let term = req.to_string();
            let allowed =
                self.linked.contains(&term) || (usage == Use::Build && self.build.contains(&term));
            if !allowed {
                refused.insert(term);
            }
            allowed
        });
        if satisfied {
            return Ok(());
        }
        let refused: Vec<String> = refused.into_iter().collect();
        Err(format!("\"{text}\" can't be satisfied: {} not in the list", refused.join(", ")))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn allowed() -> Allowed {
    let file = root().join("tools/licences.list");
    let text = std::fs::read_to_string(&file).expect("tools/licences.list is readable");
    Allowed::parse(&text).expect("tools/licences.list is well formed")
}

/// The workspace and everything that it depends on, with all features.
fn metadata() -> Metadata {
    let mut options = vec!["--locked".to_owned()];
    for host in HOSTS {
        options.extend(["--filter-platform".to_owned(), host.to_owned()]);
    }
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .features(CargoOpt::AllFeatures)
        .other_options(options)
        .exec()
        .expect("cargo metadata answers")
}

/// The packages that `start` reaches by normal dependencies, itself included.
fn reached_by_normal(metadata: &Metadata, start: &[PackageId]) -> BTreeSet<PackageId> {
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves dependencies");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|n| (&n.id, n)).collect();
    let mut reached = BTreeSet::new();
    let mut open = start.to_vec();
    while let Some(id) = open.pop() {
        if !reached.insert(id.clone()) {
            continue;
        }
        for dependency in &nodes[&id].deps {
            if dependency.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal) {
                open.push(dependency.pkg.clone());
            }
        }
    }
    reached
}

#[test]
fn every_dependency_has_a_licence_that_its_use_allows() {
    let (allowed, metadata) = (allowed(), metadata());
    let ours = metadata.workspace_packages();
    let distributed: Vec<PackageId> =
        ours.iter().filter(|p| p.name.as_str() != TESTS).map(|p| p.id.clone()).collect();
    assert!(ours.len() > distributed.len(), "{TESTS} is not in the workspace");
    let linked = reached_by_normal(&metadata, &distributed);

    let mut complaints = Vec::new();
    let (mut n_linked, mut n_build) = (0, 0);
    for package in &metadata.packages {
        let usage = if linked.contains(&package.id) { Use::Linked } else { Use::Build };
        match usage {
            Use::Linked => n_linked += 1,
            Use::Build => n_build += 1,
        }
        if let Err(why) = allowed.judge(package.license.as_deref(), usage) {
            complaints.push(format!("{} {} ({usage:?}): {why}", package.name, package.version));
        }
    }
    println!("{n_linked} packages linked, {n_build} only to build and test");
    assert!(complaints.is_empty(), "see tools/licences.list\n{}", complaints.join("\n"));
    // The walk tells the two uses apart: this crate's own tools are not distributed.
    let spdx = metadata.packages.iter().find(|p| p.name.as_str() == "spdx").expect("spdx is used");
    assert!(!linked.contains(&spdx.id), "spdx (Apache-2.0) is linked");
    assert!(allowed.judge(spdx.license.as_deref(), Use::Linked).is_err());
}

#[test]
fn every_package_of_the_workspace_says_that_it_is_gpl_2_0_only() {
    for package in metadata().workspace_packages() {
        assert_eq!(package.license.as_deref(), Some(OURS), "{}", package.name);
    }
    let text = std::fs::read_to_string(root().join("LICENSE")).expect("LICENSE is readable");
    assert!(text.contains("GNU GENERAL PUBLIC LICENSE"));
    assert!(text.contains("Version 2, June 1991"));
    assert!(text.contains("END OF TERMS AND CONDITIONS"), "LICENSE is cut short");
}

#[test]
fn expressions_are_judged_by_use() {
    let allowed = allowed();
    // (expression, may be linked, may build)
    let cases = [
        ("MIT", true, true),
        ("MIT OR Apache-2.0", true, true),
        ("Apache-2.0 OR MIT", true, true),
        ("MIT/Apache-2.0", true, true),
        ("Apache-2.0 / MIT", true, true),
        ("Apache-2.0 WITH LLVM-exception OR MIT", true, true),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true, true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true, true),
        ("Unlicense OR MIT", true, true),
        ("0BSD OR MIT OR Apache-2.0", true, true),
        ("BSD-3-Clause AND MIT", true, true),
        ("GPL-2.0", true, true),
        ("GPL-2.0-only", true, true),
        ("GPL-2.0-or-later", true, true),
        ("GPL-2.0+", true, true),
        ("GPL-3.0-only OR GPL-2.0-only", true, true),
        ("MIT AND (Apache-2.0 OR ISC)", true, true),
        ("Apache-2.0", false, true),
        ("Apache-2.0 AND MIT", false, true),
        ("Apache-2.0 WITH LLVM-exception", false, true),
        ("(MIT OR ISC) AND Apache-2.0", false, true),
        ("GPL-3.0-only", false, false),
        ("GPL-3.0-or-later", false, false),
        ("GPL-3.0", false, false),
        ("AGPL-3.0-only", false, false),
        ("MPL-2.0", false, false),
        ("BSD-4-Clause", false, false),
        ("OpenSSL", false, false),
        ("MIT WITH Classpath-exception-2.0", false, false),
        ("Apache-2.0 AND GPL-3.0-only", false, false),
        ("LicenseRef-Proprietary", false, false),
        // Not SPDX: refused, never guessed at.
        ("Apache 2", false, false),
        ("BSD", false, false),
        ("mit license", false, false),
        ("MIT OR", false, false),
        ("MIT, Apache-2.0", false, false),
        ("Custom-1.0", false, false),
        ("", false, false),
    ];
    for (expression, linked, build) in cases {
        let judged = |usage| allowed.judge(Some(expression), usage);
        assert_eq!(judged(Use::Linked).is_ok(), linked, "{expression}: {:?}", judged(Use::Linked));
        assert_eq!(judged(Use::Build).is_ok(), build, "{expression}: {:?}", judged(Use::Build));
    }
    assert!(allowed.judge(None, Use::Build).is_err(), "no licence at all");
    let why = allowed.judge(Some("MIT AND GPL-3.0-only"), Use::Linked).unwrap_err();
    assert_eq!(why, "\"MIT AND GPL-3.0-only\" can't be satisfied: GPL-3.0-only not in the list");
}

#[test]
fn a_malformed_list_is_refused() {
    let refused = [
        ("MIT", "neither `linked` nor `build`"),
        ("MIT linked", "no reason"),
        ("NOPE linked because", "unknown term"),
        ("MIT OR ISC linked because", "not a single licence"),
        ("MIT linked because\nMIT linked because", "twice"),
    ];
    for (text, why) in refused {
        let error = Allowed::parse(text).expect_err(text);
        assert!(error.contains(why), "{text}: {error}");
    }
    let list = Allowed::parse("# comment\n\nMIT  linked  a reason\n").expect("well formed");
    assert_eq!(list.linked.len(), 1);
    assert!(list.build.is_empty());
}
