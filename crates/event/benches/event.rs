//! What an event costs: made, recorded, read, written to and read from a file.

use std::ops::ControlFlow;

use divan::{Bencher, black_box, counter::ItemsCount};
use textbed_arch::{Arch, CpuId, PhysAddr, VirtAddr};
use textbed_event::{Batch, Event, Header, Recorder, Sink, View, tbe};

const EVENTS: u64 = 100_000;

fn main() {
    divan::main();
}

fn fetch(n: u64) -> View {
    View::Fetch { virt: VirtAddr(0xffff_8000_0000_0000 + 4 * n), phys: PhysAddr(4 * n), len: 4 }
}

fn stream() -> Batch {
    let mut recorder = Recorder::new();
    for n in 0..EVENTS {
        recorder.emit(CpuId((n % 8) as u16), fetch(n));
    }
    recorder.take()
}

#[divan::bench]
fn make_and_record(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(EVENTS)).bench(stream);
}

#[divan::bench]
fn read_views(bencher: Bencher<'_, '_>) {
    let batch = stream();
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        batch.events.iter().map(Event::view).filter(|v| matches!(v, View::Fetch { .. })).count()
    });
}

#[divan::bench]
fn write_file(bencher: Bencher<'_, '_>) {
    let batch = stream();
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        let mut writer = tbe::Writer::new(Vec::new());
        let _ = writer.begin(&Header::all_seeing(Arch::Arm64, 8));
        let _ = writer.batch(&batch);
        writer.finish().map(|file| file.len())
    });
}

#[divan::bench]
fn read_file(bencher: Bencher<'_, '_>) {
    struct Count(u64);
    impl Sink for Count {
        fn batch(&mut self, batch: &Batch) -> ControlFlow<()> {
            self.0 += black_box(batch).events.len() as u64;
            ControlFlow::Continue(())
        }
    }
    let mut writer = tbe::Writer::new(Vec::new());
    let _ = writer.begin(&Header::all_seeing(Arch::Arm64, 8));
    let _ = writer.batch(&stream());
    let file = writer.finish().unwrap_or_default();
    bencher.counter(ItemsCount::new(EVENTS)).bench(|| {
        let mut count = Count(0);
        let read = tbe::read(file.as_slice(), &mut count);
        (read.is_ok(), count.0)
    });
}
