//! The same call on three architectures, where generic code quietly differs (6.12).
//!
//! Each row is a situation and, for x86-64, arm64 and powerpc radix, what it gives: the value, the
//! WARN, and what the page and its direct-map alias grant afterwards.

mod common;

use common::{Bed, boot, values};
use textbed_arch::{Arch, SpaceId, VirtAddr};
use textbed_kernel::CallError;

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];

/// A value and a WARN, or how it ends instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Gives {
    Value(i64),
    Warns(i64, &'static str),
    Dies,
    NotModelled,
}

use Gives::{Dies, NotModelled, Value, Warns};

/// One area of two pages, executable and read-only or fresh, and what the row does to it.
struct Row {
    what: &'static str,
    run: fn(&mut Bed, u64) -> (&'static str, Vec<u64>),
    gives: [Gives; 3],
    /// Letters of the first page and of its alias afterwards.
    page: [&'static str; 3],
    alias: [&'static str; 3],
}

fn direct_map(bed: &Bed) -> u64 {
    bed.kernel.layout().direct_map.start.0
}

const RW: [&str; 3] = ["rw-"; 3];

const ROWS: &[Row] = &[
    Row {
        what: "set_memory_ro of a page",
        run: |_, a| ("set_memory_ro", vec![a, 1]),
        gives: [Value(0); 3],
        page: ["r--"; 3],
        alias: ["r--", "r--", "rw-"],
    },
    Row {
        what: "set_memory_x of a writable page",
        run: |_, a| ("set_memory_x", vec![a, 1]),
        gives: [Warns(0, "WriteExec"), Value(0), Value(0)],
        page: ["rwx"; 3],
        alias: RW,
    },
    Row {
        what: "set_memory_rw of an executable page",
        run: |bed, a| {
            bed.call("set_memory_rox", &[a, 1]);
            ("set_memory_rw", vec![a, 1])
        },
        gives: [Warns(0, "WriteExec"), Value(0), Value(0)],
        page: ["rwx"; 3],
        alias: RW,
    },
    Row {
        what: "set_memory_ro of a huge area",
        run: |bed, _| {
            let huge = bed.call("vmalloc_huge", &[2 << 20]) as u64;
            ("set_memory_ro", vec![huge, 512])
        },
        gives: [Value(0), Warns(-22, "HugeMapping"), Warns(-22, "HugeMapping")],
        page: RW,
        alias: RW,
    },
    Row {
        what: "set_memory_ro in the direct map",
        run: |bed, _| ("set_memory_ro", vec![direct_map(bed) + (48 << 20), 1]),
        gives: [Value(0), Value(-22), Warns(-22, "HugeMapping")],
        page: RW,
        alias: RW,
    },
    Row {
        what: "set_memory_rw of kernel text",
        run: |bed, _| ("set_memory_rw", vec![bed.kernel.layout().text.start.0, 1]),
        gives: [Value(0), Value(-22), Warns(-22, "HugeMapping")],
        page: RW,
        alias: RW,
    },
    Row {
        what: "set_memory_ro into the guard page",
        run: |_, a| ("set_memory_ro", vec![a, 3]),
        gives: [Warns(-14, "NotMapped"), Value(0), Value(0)],
        page: ["r--"; 3],
        alias: ["r--", "r--", "rw-"],
    },
    Row {
        what: "set_memory_ro without an area",
        run: |bed, _| ("set_memory_ro", vec![bed.kernel.layout().vmalloc.end() - (1 << 30), 1]),
        gives: [Warns(-14, "NotMapped"), Value(-22), Dies],
        page: RW,
        alias: RW,
    },
    Row {
        what: "set_memory_ro of a user address",
        run: |_, _| ("set_memory_ro", vec![0x1000, 1]),
        gives: [Warns(-14, "NotMapped"), Value(-22), NotModelled],
        page: RW,
        alias: RW,
    },
    Row {
        what: "set_memory_ro of an address that cannot be translated",
        run: |_, _| ("set_memory_ro", vec![0x1234_5678_9abc_d000, 1]),
        gives: [NotModelled, Value(-22), NotModelled],
        page: RW,
        alias: RW,
    },
    Row {
        what: "set_memory_ro of no pages",
        run: |_, a| ("set_memory_ro", vec![a, 0]),
        gives: [Value(0); 3],
        page: RW,
        alias: RW,
    },
    Row {
        what: "set_memory_ro of an unaligned address",
        run: |_, a| ("set_memory_ro", vec![a + 0x10, 1]),
        gives: [Warns(0, "Unaligned"), Warns(0, "Unaligned"), Value(0)],
        page: ["r--"; 3],
        alias: ["r--", "r--", "rw-"],
    },
    Row {
        what: "set_direct_map_invalid_noflush",
        run: |_, a| ("set_direct_map_invalid_noflush", vec![a]),
        gives: [Value(0); 3],
        page: RW,
        alias: ["---", "---", "rw-"],
    },
    Row {
        what: "set_direct_map_default_noflush after it",
        run: |bed, a| {
            bed.call("set_direct_map_invalid_noflush", &[a]);
            ("set_direct_map_default_noflush", vec![a])
        },
        gives: [Value(0); 3],
        page: RW,
        alias: RW,
    },
    Row {
        what: "vfree of an unaligned address",
        run: |_, a| ("vfree", vec![a + 1]),
        gives: [Warns(0, "Unaligned"); 3],
        page: RW,
        alias: RW,
    },
    Row {
        what: "vfree of an address without an area",
        run: |bed, _| ("vfree", vec![direct_map(bed)]),
        gives: [Warns(0, "NoArea"); 3],
        page: RW,
        alias: RW,
    },
    Row {
        what: "vfree of an address inside an area",
        run: |_, a| ("vfree", vec![a + 0x1000]),
        gives: [Value(0); 3],
        page: ["---"; 3],
        alias: RW,
    },
    Row {
        what: "set_memory_ro of a freed area",
        run: |bed, a| {
            bed.call("vfree", &[a]);
            ("set_memory_ro", vec![a, 1])
        },
        gives: [Warns(-14, "NotMapped"), Value(-22), Dies],
        page: ["---"; 3],
        alias: RW,
    },
    Row {
        what: "vmalloc of nothing",
        run: |_, _| ("vmalloc", vec![0]),
        gives: [Warns(0, "BadArgument"); 3],
        page: RW,
        alias: RW,
    },
    Row {
        what: "vmalloc of more than there is",
        run: |_, _| ("vmalloc", vec![1 << 52]),
        gives: [Warns(0, "BadArgument"); 3],
        page: RW,
        alias: RW,
    },
    Row {
        what: "store to a read-only page",
        run: |bed, a| {
            bed.call("set_memory_ro", &[a, 1]);
            ("memset", vec![a, 0, 8])
        },
        gives: [Dies; 3],
        page: ["r--"; 3],
        alias: ["r--", "r--", "rw-"],
    },
];

fn observe(row: &Row, arch: Arch) -> (Gives, &'static str, &'static str) {
    let mut bed = boot("6.12", arch, &[]);
    let a = bed.area("a", "vmalloc", 2 << 12);
    let dm = bed.marks.iter().find(|m| m.0 == "dm(a)").map_or(0, |m| m.1);
    let (call, args) = (row.run)(&mut bed, a);
    bed.trace();
    let done = bed.try_call(call, &values(&args));
    let warned =
        bed.trace().iter().find_map(|l| l.get(2..)?.strip_prefix("WARN ").map(String::from));
    let gives = match (done, warned) {
        (Ok(value), None) => Value(value.value),
        (Ok(value), Some(warned)) => {
            let names =
                ["WriteExec", "HugeMapping", "NotMapped", "Unaligned", "NoArea", "BadArgument"];
            let name = names.into_iter().find(|n| *n == warned).unwrap_or("other");
            Warns(value.value, name)
        }
        (Err(CallError::Died { .. }), _) => Dies,
        (Err(CallError::NotModelled { .. }), _) => NotModelled,
        (Err(other), _) => panic!("{}: {other}", row.what),
    };
    let letters = |at: u64| {
        let mapping = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at));
        mapping.map_or("---", |m| m.perm.letters())
    };
    (gives, letters(a), letters(dm))
}

#[test]
fn the_same_call_differs_where_it_should() {
    let mut compared = 0;
    let mut different = Vec::new();
    for row in ROWS {
        for (n, arch) in ARCHS.into_iter().enumerate() {
            let seen = observe(row, arch);
            let expected = (row.gives[n], row.page[n], row.alias[n]);
            compared += 1;
            if seen != expected {
                different.push(format!("{} on {arch}: {seen:?}, not {expected:?}", row.what));
            }
        }
    }
    println!("{compared} compared, {} equal", compared - different.len());
    assert!(different.is_empty(), "{}", different.join("\n"));
}
