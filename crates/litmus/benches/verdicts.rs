//! Time of the checker's verdict on a litmus test: the shapes of this crate's tests, and, with
//! TEXTBED_LITMUS naming a directory, every test below it. A figure is for all tests of a set; the
//! number of tests is its argument, so that divan's items a second are tests a second.

#![allow(clippy::unwrap_used)]

#[path = "../tests/shapes/mod.rs"]
mod shapes;

use divan::Bencher;
use divan::counter::ItemsCount;
use textbed_litmus::{By, Test, decide, parse};

fn main() {
    divan::main();
}

fn own() -> Vec<Test> {
    let shapes = shapes::SHAPES.iter().chain(shapes::MORE_SHAPES);
    let all = shapes.flat_map(|s| shapes::CONFIGURATIONS.map(|c| shapes::text(s, c)));
    all.map(|text| parse(&text).unwrap()).collect()
}

fn from_outside() -> Vec<Test> {
    let Ok(root) = std::env::var("TEXTBED_LITMUS") else { return Vec::new() };
    let (mut tests, mut open) = (Vec::new(), vec![std::path::PathBuf::from(root)]);
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "litmus") {
                tests.push(parse(&std::fs::read_to_string(&path).unwrap()).unwrap());
            }
        }
    }
    tests
}

fn bench(bencher: Bencher<'_, '_>, tests: &[Test]) {
    bencher
        .counter(ItemsCount::new(tests.len()))
        .bench(|| tests.iter().filter(|t| decide(t, By::Joint, true).is_ok()).count());
}

#[divan::bench]
fn own_shapes(bencher: Bencher<'_, '_>) {
    bench(bencher, &own());
}

#[divan::bench]
fn tests_of_textbed_litmus(bencher: Bencher<'_, '_>) {
    bench(bencher, &from_outside());
}
