//! Text of an ftrace log, as much as is asked for, made from nothing: what tracefs prints of an
//! x86-64 kernel 6.12 with two CPUs that patches text through INT3, loads and unloads modules, and
//! allocates and frees memory, again and again. The mixture of lines follows the recorded log in
//! `tests/logs/amd64-6.12`; addresses come from a pool, so that what is live does not grow.
#![allow(dead_code)] // each user has a part of it

use std::io::{Read, Write as _};

/// Areas in the pools of addresses.
const POOL: u64 = 64;
const MODULES: u64 = 0xffff_ffff_c000_0000;
const VMALLOC: u64 = 0xffff_c900_0000_0000;
const DIRECT: u64 = 0xffff_8880_0800_0000;
const TEXT: u64 = 0xffff_ffff_8100_0000;

/// A stream of text that ends after the first whole cycle past a number of bytes.
pub(crate) struct Log {
    left: u64,
    cycle: u64,
    /// Microseconds.
    time: u64,
    text: Vec<u8>,
    at: usize,
}

impl Log {
    /// At least `bytes` bytes of text.
    pub(crate) fn new(bytes: u64) -> Self {
        let head = b"# tracer: nop\n#\n#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION\n";
        Self { left: bytes, cycle: 0, time: 15_000_000, text: head.to_vec(), at: 0 }
    }

    fn line(&mut self, front: &str, flags: &str, what: std::fmt::Arguments<'_>) {
        self.time += 7;
        let (seconds, micros) = (self.time / 1_000_000, self.time % 1_000_000);
        // Writing to a vector cannot fail.
        let _ = writeln!(self.text, "{front} {flags}{seconds:>6}.{micros:06}: {what}");
    }

    fn task(&mut self, flags: &str, what: std::fmt::Arguments<'_>) {
        self.line("        modprobe-873     [000]", flags, what);
    }

    fn idle(&mut self, what: std::fmt::Arguments<'_>) {
        self.line("          <idle>-0       [001]", "d.h1. ", what);
    }

    /// Both CPUs run `func`, the other one in an interrupt.
    fn everywhere(&mut self, func: &str, inner: Option<&str>) {
        self.task(
            "..... ",
            format_args!(
                "on_each_cpu_cond_mask: (on_each_cpu_cond_mask+0x4/0x40) cond=0x0 \
             func={func}+0x0/0x30 info=0x0 wait=1"
            ),
        );
        self.task(
            "...1. ",
            format_args!(
                "smp_call_function_many_cond: (smp_call_function_many_cond+0x0/0x4c0) \
             func={func}+0x0/0x30 info=0x0"
            ),
        );
        self.task(
            "...1. ",
            format_args!(
                "ipi_send_cpu: cpu=1 callsite=on_each_cpu_cond_mask+0x24/0x40 \
             callback=generic_smp_call_function_single_interrupt+0x0/0x20"
            ),
        );
        for name in [Some(func), inner].into_iter().flatten() {
            self.task("d..1. ", format_args!("{name}: ({name}+0x4/0x30)"));
        }
        self.idle(format_args!("call_function_single_entry: vector=251"));
        for name in [Some(func), inner].into_iter().flatten() {
            self.idle(format_args!("{name}: ({name}+0x4/0x30)"));
        }
    }

    fn poke(&mut self, addr: u64, len: u64) {
        self.task("..... ", format_args!(
            "__text_poke: (__text_poke+0x0/0x4c0) func=text_poke_memcpy+0x0/0x10 addr={addr:#x} \
             src=0xffffffff83745a0b len={len}"
        ));
        for _ in 0..2 {
            self.task(
                "d..1. ",
                format_args!("tlb_flush: pages:-1 reason:flush on task switch (0)"),
            );
        }
        self.everywhere("do_sync_core", None);
    }

    /// One live instruction is replaced.
    fn patch(&mut self) {
        let addr = TEXT + self.cycle * 40 % (8 << 20);
        self.task(
            "..... ",
            format_args!(
                "text_poke_bp: (text_poke_bp+0x4/0x70) addr={addr:#x} len=5 \
             op={{0xe9,0xb3,0xea,0x4a,0xff,0x0,0x0,0x0}}"
            ),
        );
        self.task(
            "..... ",
            format_args!(
                "text_poke_bp_batch: (text_poke_bp_batch+0x0/0x300) tp=0xffffc90000013b20 n=1"
            ),
        );
        self.poke(addr, 1);
        self.poke(addr + 1, 4);
        self.poke(addr, 1);
    }

    fn allocate(&mut self, addr: u64, pages: u64, caller: &str) {
        let (bytes, end) = (pages * 4096, addr + pages * 4096);
        self.task("..... ", format_args!(
            "__vmalloc_node_range_noprof: (__vmalloc_node_range_noprof+0x4/0x850) size={bytes:#x} \
             align=0x1000 start={addr:#x} end={end:#x} gfp=0x2cc0 prot=0x8000000000000163 \
             vmflags=0x0 node=-1"
        ));
        self.task("..... ", format_args!(
            "alloc_vmap_area: va_start: {addr} size={} align=4096 vstart={addr:#x} vend={end:#x} \
             failed=0",
            bytes + 4096
        ));
        self.task(
            "..... ",
            format_args!(
                "__vmap_pages_range_noflush: (__vmap_pages_range_noflush+0x4/0xf0) start={addr:#x} \
             end={end:#x} prot=0x8000000000000163"
            ),
        );
        self.task(
            "..... ",
            format_args!(
                "__vmalloc_node_range_noprof__ret: ({caller} <- __vmalloc_node_range_noprof) \
             ret={addr:#x}"
            ),
        );
    }

    fn free(&mut self, addr: u64, pages: u64) {
        let end = addr + pages * 4096;
        self.task("..... ", format_args!("vfree: (vfree+0x4/0x50) addr={addr:#x}"));
        self.task(
            "..... ",
            format_args!("remove_vm_area: (remove_vm_area+0x4/0x70) addr={addr:#x}"),
        );
        self.task("..... ", format_args!(
            "__vunmap_range_noflush: (__vunmap_range_noflush+0x4/0x530) start={addr:#x} end={end:#x}"
        ));
        self.task(
            "..... ",
            format_args!("free_vmap_area_noflush: va_start={addr:#x} nr_lazy=15 nr_lazy_max=16384"),
        );
    }

    /// A module's text: allocated, made executable, and freed when its turn comes again.
    fn module(&mut self) {
        let slot = self.cycle / 16 % POOL;
        let (addr, alias) = (MODULES + slot * 0x2000, DIRECT + slot * 0x1000);
        if self.cycle / 16 >= POOL {
            self.free(addr, 1);
        }
        self.task(
            "..... ",
            format_args!("execmem_alloc: (execmem_alloc+0x4/0xe0) type=0 size=0x1000"),
        );
        self.allocate(addr, 1, "execmem_alloc+0x58/0xe0");
        self.task(
            "..... ",
            format_args!(
                "execmem_alloc__ret: (load_module+0x784/0x21b0 <- execmem_alloc) ret={addr:#x}"
            ),
        );
        self.task(
            "..... ",
            format_args!("set_memory_rox: (set_memory_rox+0x4/0x50) addr={addr:#x} numpages=1"),
        );
        self.task(
            "..... ",
            format_args!(
                "change_page_attr_set_clr: (change_page_attr_set_clr+0x0/0x1a0) addr={addr:#x} \
             numpages=1 set=0x0 clr=0x8000000000000042 force_split=0 in_flag=0"
            ),
        );
        for (primary, vaddr) in [(1, addr), (0, alias)] {
            self.task(
                "..... ",
                format_args!(
                    "__change_page_attr_set_clr: (__change_page_attr_set_clr+0x0/0x1010) \
                 cpa=0xffffc9000128fad8 primary={primary} vaddr={vaddr:#x} numpages=66"
                ),
            );
        }
        self.task(
            "..... ",
            format_args!("cpa_flush: (cpa_flush+0x0/0x1f0) cpa=0xffffc9000128fad8 cache=0"),
        );
        self.everywhere("do_flush_tlb_all", Some("__flush_tlb_all"));
        self.task(
            "..... ",
            format_args!(
                "change_page_attr_set_clr__ret: (set_memory_rox+0x40/0x50 <- \
             change_page_attr_set_clr) ret=0x0"
            ),
        );
        self.task(
            "..... ",
            format_args!(
                "set_memory_rox__ret: (module_enable_text_rox+0x3a/0x50 <- set_memory_rox) ret=0x0"
            ),
        );
    }

    fn cycle(&mut self) {
        self.text.clear();
        self.at = 0;
        self.patch();
        if self.cycle.is_multiple_of(4) {
            let addr = VMALLOC + self.cycle / 4 % POOL * 0x8000;
            if self.cycle / 4 >= POOL {
                self.free(addr, 4);
            }
            self.allocate(addr, 4, "__vmalloc_node_noprof+0x4e/0x70");
        }
        if self.cycle.is_multiple_of(16) {
            self.module();
        }
        self.cycle += 1;
    }
}

impl Read for Log {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.text.len() {
            if self.left == 0 {
                return Ok(0);
            }
            self.cycle();
        }
        let rest = self.text.get(self.at..).unwrap_or_default();
        let n = rest.len().min(into.len());
        if let (Some(to), Some(from)) = (into.get_mut(..n), rest.get(..n)) {
            to.copy_from_slice(from);
        }
        self.at += n;
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}
