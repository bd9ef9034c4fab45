//! A scenario of the tree, built by Rust calls: the same tree, and the same events.
#![cfg(feature = "vcpu")]
#![allow(clippy::expect_used, clippy::panic)] // tests may

use std::path::Path;

use textbed_arch::Arch;
use textbed_event::{Batch, Collect, Event, OriginId};
use textbed_scenario::builder::{Argument, CmpOp, Expr, Program, Scenario, jit, kib};
use textbed_scenario::syntax::ast::Block;
use textbed_scenario::{Loaded, PolicyChoice, RunOptions, Version, load, run, syntax};

const ARCHES: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];
const POLICIES: [PolicyChoice; 4] =
    [PolicyChoice::Newest, PolicyChoice::Stalest, PolicyChoice::Random(3), PolicyChoice::Random(8)];

fn var(name: &str) -> Expr {
    name.into()
}

fn args<const N: usize>(args: [Argument; N]) -> [Argument; N] {
    args
}

/// `scenarios/bcachefs-jit-pack.tb`, but for its comments.
fn pack() -> Scenario {
    let number = |n: u64| Argument::from(n);
    let of = |name: &str| Argument::from(var(name));
    let copy = |p: &mut Program, to: &str, what: &str| {
        p.call("bpf_arch_text_copy", args([of(to), jit(what)]));
    };
    let inode = |p: &mut Program, out: u64| {
        p.assign("inode", "load_u64", args([(var("keys") + kib(out) + 32u64).into()]));
        p.assert("inode", CmpOp::Eq, 4134u64);
    };
    Scenario::new("bcachefs-jit-pack")
        .about(
            "placement (b): an executable pack and the architecture's text-poke copy, nothing \
             besides",
        )
        .kernel("6.12")
        .arch("x86_64")
        .arch("arm64")
        .arch("ppc64le")
        .cpus(3)
        .setup(|p| {
            p.assign("keys", "vmalloc", args([kib(4).into()]));
            p.call("memcpy", args([of("keys"), jit("bkey_a_key")]));
            p.call("memcpy", args([(var("keys") + 64u64).into(), jit("bkey_b_key")]));
        })
        .cpu(0, |p| {
            p.assign("f", "bpf_prog_pack_alloc", args([number(128)]));
            p.assign("g", "bpf_prog_pack_alloc", args([number(128)]));
            copy(p, "f", "bkey_a");
            copy(p, "g", "bkey_a");
            p.publish("node1", "f");
            p.publish("node2", "g");
            p.wait_for("read");
            p.call("bpf_prog_pack_free", args([of("g"), number(128)]));
            p.assign("h", "bpf_prog_pack_alloc", args([number(128)]));
            p.assert("h", CmpOp::Eq, "g");
            copy(p, "h", "bkey_b");
            p.publish("node2_again", "h");
        })
        .cpu(1, |p| {
            p.wait_for("node1");
            p.label("fresh")
                .call("call", args([of("node1"), (var("keys") + kib(1)).into(), of("keys")]));
            inode(p, 1);
        })
        .cpu(2, |p| {
            p.wait_for("node2");
            for (arch, op) in [("x86_64", "serialize"), ("arm64", "isb"), ("powerpc", "isync")] {
                p.on(&[arch], |p| p.op(op, []));
            }
            p.call("call", args([of("node2"), (var("keys") + kib(2)).into(), of("keys")]));
            p.publish("read", 1u64);
            p.wait_for("node2_again");
            let (out, key) = (var("keys") + kib(3), var("keys") + 64u64);
            p.label("again").call("call", args([of("node2_again"), out.into(), key.into()]));
            inode(p, 3);
            p.assign(
                "same",
                "memcmp",
                args([(var("keys") + kib(3)).into(), jit("bkey_b_unpacked")]),
            );
            p.assert("same", CmpOp::Eq, 0u64);
        })
}

/// Names of rules are the checker's; what is expected does not matter here.
fn without_expectations(text: &str) -> String {
    text.find("\nexpect").and_then(|at| text.get(..=at)).unwrap_or(text).to_owned()
}

fn written(name: &str) -> (String, Loaded) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios").join(name);
    let text = std::fs::read_to_string(path).expect("a scenario of the tree");
    let (loaded, _) = load("a.tb", without_expectations(&text), &[]).expect("it is right");
    (text, loaded)
}

/// Events and their bytes; where each came from in the text is not compared.
fn events(loaded: &Loaded, arch: Arch, policy: PolicyChoice) -> Vec<(Event, Vec<u8>)> {
    events_on(loaded, arch, Version::parse("6.12").expect("a version"), policy)
}

fn events_on(
    loaded: &Loaded,
    arch: Arch,
    version: Version,
    policy: PolicyChoice,
) -> Vec<(Event, Vec<u8>)> {
    let mut sink = Collect::default();
    let options = RunOptions { policy, ..RunOptions::new(arch, version) };
    run(loaded, &options, &mut sink).expect("it runs");
    let bare = |batch: &Batch| -> Vec<(Event, Vec<u8>)> {
        let one = |event: &Event| {
            let payload = match event.view() {
                textbed_event::View::Store { bytes, .. } => batch.bytes(bytes).to_vec(),
                _ => Vec::new(),
            };
            (Event { origin: OriginId::NONE, ..*event }, payload)
        };
        batch.events.iter().map(one).collect()
    };
    sink.batches.iter().flat_map(bare).collect()
}

#[test]
fn the_built_story_is_the_written_one() {
    let (text, from_file) = written("bcachefs-jit-pack.tb");
    let (built, tree) = pack().file().expect("it can be written");
    let (from_rust, _) = load("a.tb", built, &[]).expect("it is right");
    let programs = |file: &syntax::ast::File| -> Vec<Block> {
        let blocks = file.blocks.iter().map(|b| b.value.clone());
        blocks.filter(|b| !matches!(b, Block::Expect(_))).collect()
    };
    assert_eq!(programs(&tree), programs(&syntax::parse(&text).expect("a tree")));
    let mut compared = 0;
    for arch in ARCHES {
        for policy in POLICIES {
            let (a, b) = (events(&from_rust, arch, policy), events(&from_file, arch, policy));
            assert_eq!(a.len(), b.len(), "{arch} {policy:?}");
            for (a, b) in a.iter().zip(&b) {
                assert_eq!(a, b, "{arch} {policy:?}");
            }
            compared += a.len();
        }
    }
    println!("{compared} events compared, {compared} equal");
    assert!(compared > 5000, "{compared} events");
}

/// Every scenario of the tree is printed and read again: the same events, as far as it runs.
#[test]
fn what_is_printed_runs_as_what_was_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .expect("the folder")
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".tb"))
        .collect();
    names.sort();
    let mut compared = 0;
    for name in &names {
        let (_, from_file) = written(name);
        let printed = from_file.file().to_string();
        let (again, _) = load("a.tb", printed, &[]).expect("what is printed is right");
        let (arch, kernel) = (from_file.archs()[0], from_file.kernels()[0]);
        let events = |loaded| events_on(loaded, arch, kernel, PolicyChoice::Random(5));
        let (a, b) = (events(&from_file), events(&again));
        assert_eq!(a, b, "{name}");
        compared += a.len();
    }
    println!("{} scenarios, {compared} events compared, {compared} equal", names.len());
    assert!(names.len() > 20 && compared > 2000, "{} scenarios, {compared} events", names.len());
}
