//! Which files there are. A test compares this list with the folder.

use textbed_arch::Arch;

/// One embedded file.
pub(crate) struct Entry {
    /// The routine's name.
    pub(crate) name: &'static str,
    /// The ELF file.
    pub(crate) file: &'static [u8],
}

macro_rules! files {
    ($dir:literal: $($name:literal)*) => {
        &[$(Entry {
            name: $name,
            file: include_bytes!(concat!(
                env!("CARGO_MANIFEST_DIR"), "/../../firmware/elf/", $dir, "/", $name, ".elf"
            )),
        },)*]
    };
}

/// The files of `arch`, ascending by name.
pub(crate) fn of(arch: Arch) -> &'static [Entry] {
    match arch {
        Arch::X86_64 => X86_64,
        Arch::Arm64 => ARM64,
        Arch::Ppc64le => PPC64LE,
        Arch::Ppc64 => PPC64,
        Arch::Ppc32 => &[],
    }
}

static X86_64: &[Entry] = files! { "x86_64":
        "add3" "atomic_inc" "cachesync" "cachesync_range" "call0" "clean_line"
        "exception_return" "fetch_add" "fib" "handler_count" "handler_skip" "invalidate_line"
        "load_word" "memcpy_words" "patched_site" "poke_call" "poke_sync_call" "publish_word"
        "reader" "reader_nosync" "reader_wait" "ret42" "spin" "store_two" "store_word"
        "sum_loop" "sync_core" "sync_cpuid" "sync_cr" "sync_serialize" "tlb_flush_page"
        "trap_breakpoint" "trap_undefined"
};

static ARM64: &[Entry] = files! { "arm64":
        "add3" "atomic_inc" "cachesync" "cachesync_range" "call0" "clean_line"
        "exception_return" "fetch_add" "fib" "handler_count" "handler_skip" "invalidate_line"
        "load_word" "memcpy_words" "patched_site" "poke_call" "poke_sync_call" "publish_word"
        "reader" "reader_nosync" "reader_wait" "ret42" "spin" "store_two" "store_word"
        "sum_loop" "sync_core" "tlb_flush_page" "trap_breakpoint" "trap_undefined"
};

static PPC64LE: &[Entry] = files! { "ppc64le":
        "add3" "atomic_inc" "cachesync" "cachesync_range" "call0" "clean_line"
        "exception_return" "fetch_add" "fib" "handler_count" "handler_skip" "invalidate_line"
        "load_word" "memcpy_words" "patched_site" "poke_call" "poke_sync_call" "publish_word"
        "reader" "reader_nosync" "reader_wait" "ret42" "spin" "store_two" "store_word"
        "sum_loop" "sync_core" "tlb_flush_page" "trap_breakpoint" "trap_undefined"
};

static PPC64: &[Entry] = files! { "ppc64":
        "add3" "atomic_inc" "cachesync" "cachesync_range" "call0" "clean_line"
        "exception_return" "fetch_add" "fib" "handler_count" "handler_skip" "invalidate_line"
        "load_word" "memcpy_words" "patched_site" "poke_call" "poke_sync_call" "publish_word"
        "reader" "reader_nosync" "reader_wait" "ret42" "spin" "store_two" "store_word"
        "sum_loop" "sync_core" "tlb_flush_page" "trap_breakpoint" "trap_undefined"
};
