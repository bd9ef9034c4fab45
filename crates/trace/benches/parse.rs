//! Speed of the reader and of the parser, as ratios to counting newlines with `memchr` over the
//! same bytes. `cargo bench -p textbed-trace`.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // tests and benches may

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use std::io::Cursor;
use textbed_trace::{ftrace, reader::LineReader};

fn main() {
    divan::main();
}

/// Eight MiB of lines in the shapes that recorded logs have.
fn text() -> Vec<u8> {
    let lines: [&[u8]; 4] = [
        b"            init-1       [001] .....    15.192204: __text_poke: (__text_poke+0x0/0x4c0) \
          func=text_poke_memcpy+0x0/0x10 addr=0xffffffff8104dbf1 src=0xffffffff83745a0b len=4\n",
        b"          <idle>-0       [001] d.h1.    15.926395: __flush_tlb_all: (__flush_tlb_all+0x4/0x30)\n",
        b"            init-1       [001] d..1.    15.881225: tlb_flush: pages:-1 reason:flush on task switch (0)\n",
        b"        modprobe-873     [000] .....    15.926817: set_memory_nx__ret: (module_enable_data_nx+0x34/0x50 <- set_memory_nx) ret=0x0\n",
    ];
    let mut out = Vec::with_capacity(8 << 20);
    for line in lines.iter().cycle() {
        if out.len() + line.len() > 8 << 20 {
            break;
        }
        out.extend_from_slice(line);
    }
    out
}

#[divan::bench]
fn memchr_counts_newlines(bencher: Bencher<'_, '_>) {
    let text = text();
    bencher
        .counter(BytesCount::of_slice(&text))
        .bench(|| memchr::memchr_iter(b'\n', black_box(&text)).count());
}

#[divan::bench]
fn reader_lines(bencher: Bencher<'_, '_>) {
    let text = text();
    bencher
        .counter(BytesCount::of_slice(&text))
        .with_inputs(|| Cursor::new(text.clone()))
        .bench_values(|c| {
            let mut r = LineReader::from_read("bench", c).unwrap();
            let mut n = 0u64;
            while let Some(line) = r.next_line().unwrap() {
                n += line.bytes.len() as u64;
            }
            n
        });
}

#[divan::bench]
fn parse_lines(bencher: Bencher<'_, '_>) {
    let text = text();
    bencher.counter(BytesCount::of_slice(&text)).bench(|| {
        black_box(&text)
            .split(|c| *c == b'\n')
            .filter(|l| matches!(ftrace::parse(l), ftrace::Parsed::Event(_)))
            .count()
    });
}

#[divan::bench]
fn reader_and_parser_and_one_argument(bencher: Bencher<'_, '_>) {
    let text = text();
    bencher
        .counter(BytesCount::of_slice(&text))
        .with_inputs(|| Cursor::new(text.clone()))
        .bench_values(|c| {
            let mut r = LineReader::from_read("bench", c).unwrap();
            let mut sum = 0u64;
            while let Some(line) = r.next_line().unwrap() {
                if let ftrace::Parsed::Event(e) = ftrace::parse(line.bytes) {
                    sum = sum.wrapping_add(e.number(b"addr").unwrap_or(1));
                }
            }
            sum
        });
}

/// The committed x86 log from its packed file to a sink that takes nothing: the whole replay.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn replay_a_whole_log(bencher: Bencher<'_, '_>) {
    struct Nothing;
    impl textbed_event::Sink for Nothing {
        fn batch(&mut self, batch: &textbed_event::Batch) -> std::ops::ControlFlow<()> {
            black_box(batch.events.len());
            std::ops::ControlFlow::Continue(())
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/logs/amd64-6.12/trace.txt.zst");
    let run = || textbed_trace::replay(path.as_ref(), &Default::default(), &mut Nothing).unwrap();
    bencher
        .counter(BytesCount::new(run().summary.accounting.bytes))
        .bench(|| run().summary.accounting.used);
}
