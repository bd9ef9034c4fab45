//! What this crate relies on in Unicorn, on each architecture: a new version has to pass this
//! first.
//!
//! Every fact is tried on the bare engine, without this crate's own code.

#![allow(unsafe_code, clippy::unwrap_used)]

use unicorn_engine::{
    Arch, ControlType, HookType, MemType, Mode, Prot, RegisterARM64, RegisterPPC, RegisterX86,
    TlbEntry, TlbType, Unicorn, uc_ctl, uc_error,
};

const RAM: u64 = 0;
const SHADOW: u64 = 0x10_0000;
const SHADOW_2: u64 = 0x20_0000;
/// Virtual address of the one page of code and data.
const PAGE: u64 = 0xffff_8000_1234_5000;
/// A virtual page that is not mapped.
const HOLE: u64 = 0xffff_8000_2000_0000;

/// What an instance under test knows: fills, accesses, exceptions; where fetches go.
#[derive(Default)]
struct Seen {
    fills: Vec<(u64, MemType)>,
    accesses: Vec<(MemType, u64, usize)>,
    exceptions: Vec<u32>,
    fetch_from: u64,
}

struct Target {
    name: &'static str,
    arch: Arch,
    mode: Mode,
    big_endian: bool,
    /// Registers: program counter, address operand, value operand, destination of loads, result.
    pc: i32,
    address: i32,
    value: i32,
    loaded: i32,
    result: i32,
    /// result = 1, result = 2, loaded = \[address\], \[address\] = value (32 bits), trap.
    set_1: &'static [u8],
    set_2: &'static [u8],
    load: &'static [u8],
    store: &'static [u8],
    trap: &'static [u8],
    /// The engine's number of that trap, and how far behind it the program counter is.
    trap_number: u32,
    trap_pc: u64,
}

const WORDS: [u32; 5] = [0x3860_0001, 0x3860_0002, 0x80a6_0000, 0x9086_0000, 0x7fe0_0008];
static BE: [[u8; 4]; 5] = words(true);
static LE: [[u8; 4]; 5] = words(false);

const fn words(big_endian: bool) -> [[u8; 4]; 5] {
    let mut out = [[0; 4]; 5];
    let mut i = 0;
    while i < 5 {
        out[i] = if big_endian { WORDS[i].to_be_bytes() } else { WORDS[i].to_le_bytes() };
        i += 1;
    }
    out
}

fn targets() -> [Target; 4] {
    let powerpc = |name, big_endian, w: &'static [[u8; 4]; 5]| Target {
        name,
        arch: Arch::PPC,
        mode: Mode::PPC64 | Mode::BIG_ENDIAN,
        big_endian,
        pc: RegisterPPC::PC as i32,
        address: RegisterPPC::R6 as i32,
        value: RegisterPPC::R4 as i32,
        loaded: RegisterPPC::R5 as i32,
        result: RegisterPPC::R3 as i32,
        set_1: &w[0],
        set_2: &w[1],
        load: &w[2],
        store: &w[3],
        trap: &w[4],
        trap_number: 6,
        trap_pc: 4,
    };
    [
        Target {
            name: "x86_64",
            arch: Arch::X86,
            mode: Mode::MODE_64,
            big_endian: false,
            pc: RegisterX86::RIP as i32,
            address: RegisterX86::RDI as i32,
            value: RegisterX86::RSI as i32,
            loaded: RegisterX86::RCX as i32,
            result: RegisterX86::RAX as i32,
            set_1: &[0xb8, 1, 0, 0, 0],
            set_2: &[0xb8, 2, 0, 0, 0],
            load: &[0x8b, 0x0f],
            store: &[0x89, 0x37],
            trap: &[0xcc],
            trap_number: 3,
            trap_pc: 1,
        },
        Target {
            name: "arm64",
            arch: Arch::ARM64,
            mode: Mode::LITTLE_ENDIAN,
            big_endian: false,
            pc: RegisterARM64::PC as i32,
            address: RegisterARM64::X1 as i32,
            value: RegisterARM64::X2 as i32,
            loaded: RegisterARM64::X3 as i32,
            result: RegisterARM64::X0 as i32,
            set_1: &[0x20, 0x00, 0x80, 0x52],
            set_2: &[0x40, 0x00, 0x80, 0x52],
            load: &[0x23, 0x00, 0x40, 0xb9],
            store: &[0x22, 0x00, 0x00, 0xb9],
            trap: &[0x00, 0x00, 0x20, 0xd4],
            trap_number: 7,
            trap_pc: 0,
        },
        powerpc("ppc64", true, &BE),
        powerpc("ppc64le", false, &LE),
    ]
}

/// An instance as this crate makes it, with the code in RAM and in the shadow.
fn instance(t: &Target, code: &[u8]) -> Unicorn<'static, Seen> {
    let seen = Seen { fetch_from: SHADOW, ..Seen::default() };
    let mut uc = Unicorn::new_with_data(t.arch, t.mode, seen).unwrap();
    let control = ControlType(ControlType::TCG_BUFFER_SIZE.0 | ControlType::IO_WRITE.0);
    // SAFETY: the handle is that of a live instance, and this control takes one 32-bit argument.
    let error = unsafe { uc_ctl(uc.get_handle(), control, 16u32 << 20) };
    assert_eq!(error, uc_error::OK, "{}: code buffer size", t.name);
    if t.arch == Arch::ARM64 {
        uc.ctl_set_cpu_model(3).unwrap();
        uc.ctl_set_page_size(4096).unwrap();
    }
    uc.mem_map(RAM, 0x1000, Prot::READ | Prot::WRITE).unwrap();
    uc.mem_map(SHADOW, 0x1000, Prot::ALL).unwrap();
    uc.mem_map(SHADOW_2, 0x1000, Prot::ALL).unwrap();
    uc.mem_write(RAM, code).unwrap();
    uc.mem_write(SHADOW, code).unwrap();
    uc.ctl_set_tlb_type(TlbType::VIRTUAL).unwrap();
    uc.add_tlb_hook(0, u64::MAX, |uc, page, kind| {
        let seen = uc.get_data_mut();
        seen.fills.push((page, kind));
        match (page, kind) {
            (PAGE, MemType::FETCH) => Some(TlbEntry { paddr: seen.fetch_from, perms: Prot::EXEC }),
            (PAGE, _) => Some(TlbEntry { paddr: RAM, perms: Prot::READ | Prot::WRITE }),
            _ => None,
        }
    })
    .unwrap();
    uc.add_mem_hook(HookType::MEM_READ | HookType::MEM_WRITE, 0, u64::MAX, |uc, kind, at, n, _| {
        uc.get_data_mut().accesses.push((kind, at, n));
        true
    })
    .unwrap();
    uc.add_intr_hook(|uc, number| {
        uc.get_data_mut().exceptions.push(number);
        uc.emu_stop().unwrap();
    })
    .unwrap();
    if t.arch == Arch::PPC {
        let order = u64::from(!t.big_endian);
        uc.reg_write(RegisterPPC::MSR, 1 << 63 | order).unwrap();
    }
    uc
}

fn step(uc: &mut Unicorn<'static, Seen>, at: u64) -> Result<(), uc_error> {
    uc.emu_start(at, 0, 0, 1)
}

#[test]
fn a_fetch_and_a_load_of_one_page_see_different_memory() {
    for t in targets() {
        let load_at = t.set_1.len() as u64;
        let code = [t.set_1, t.load].concat();
        let mut uc = instance(&t, &code);
        uc.mem_write(RAM, t.set_2).unwrap();
        uc.reg_write(t.address, PAGE).unwrap();
        for round in 0..3 {
            step(&mut uc, PAGE).unwrap();
            assert_eq!(uc.reg_read(t.result), Ok(1), "{} round {round}: old code", t.name);
            step(&mut uc, PAGE + load_at).unwrap();
            let loaded = uc.reg_read(t.loaded).unwrap() as u32;
            let word = if t.big_endian { loaded.to_be_bytes() } else { loaded.to_le_bytes() };
            assert_eq!(word, t.set_2[..4], "{}: new data", t.name);
        }
        // The view changes: old until the translation is dropped, then new.
        uc.mem_write(SHADOW, t.set_2).unwrap();
        step(&mut uc, PAGE).unwrap();
        assert_eq!(uc.reg_read(t.result), Ok(1), "{}: translated before", t.name);
        uc.ctl_remove_cache(PAGE, PAGE + load_at).unwrap();
        step(&mut uc, PAGE).unwrap();
        assert_eq!(uc.reg_read(t.result), Ok(2), "{}: translation dropped", t.name);
    }
}

#[test]
fn a_store_to_code_is_not_executed() {
    for t in targets() {
        let store_at = t.set_1.len() as u64;
        let code = [t.set_1, t.store].concat();
        let mut uc = instance(&t, &code);
        step(&mut uc, PAGE).unwrap();
        let word: [u8; 4] = t.set_2[..4].try_into().unwrap();
        let value = if t.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) };
        uc.reg_write(t.address, PAGE).unwrap();
        uc.reg_write(t.value, value.into()).unwrap();
        step(&mut uc, PAGE + store_at).unwrap();
        assert_eq!(uc.mem_read_as_vec(RAM, 4).unwrap(), word, "{}: stored", t.name);
        uc.ctl_flush_tlb().unwrap();
        step(&mut uc, PAGE).unwrap();
        assert_eq!(uc.reg_read(t.result), Ok(1), "{}: not executed", t.name);
    }
}

#[test]
fn count_1_is_exactly_one_instruction_and_the_counter_is_exact() {
    for t in targets() {
        let n = t.set_1.len() as u64;
        let mut uc = instance(&t, &[t.set_1, t.set_2, t.set_1].concat());
        for (i, expected) in [1, 2, 1].into_iter().enumerate() {
            step(&mut uc, PAGE + i as u64 * n).unwrap();
            assert_eq!(uc.reg_read(t.result), Ok(expected), "{} at {i}", t.name);
            assert_eq!(uc.reg_read(t.pc), Ok(PAGE + (i as u64 + 1) * n), "{} at {i}", t.name);
        }
    }
}

#[test]
fn a_refused_fill_is_an_exception_at_the_instruction_and_can_be_resumed() {
    for t in targets() {
        let n = t.set_1.len() as u64;
        let mut uc = instance(&t, &[t.set_1, t.load].concat());
        uc.reg_write(t.address, HOLE + 0x18).unwrap();
        uc.reg_write(t.loaded, 77).unwrap();
        // Two instructions, so that the faulting one is in the middle of a block.
        assert_eq!(uc.emu_start(PAGE, 0, 0, 2), Err(uc_error::EXCEPTION), "{}", t.name);
        assert_eq!(uc.reg_read(t.pc), Ok(PAGE + n), "{}", t.name);
        assert_eq!((uc.reg_read(t.result), uc.reg_read(t.loaded)), (Ok(1), Ok(77)), "{}", t.name);
        assert_eq!(uc.get_data().fills.last(), Some(&(HOLE, MemType::READ)), "{}", t.name);
        uc.reg_write(t.address, PAGE).unwrap();
        step(&mut uc, PAGE + n).unwrap();
        assert_ne!(uc.reg_read(t.loaded), Ok(77), "{}: resumed", t.name);
    }
}

#[test]
fn memory_hooks_see_every_access_also_when_the_tlb_hits() {
    for t in targets() {
        let n = t.load.len() as u64;
        let mut uc = instance(&t, &[t.load, t.store, t.load].concat());
        uc.reg_write(t.address, PAGE + 0x123).unwrap();
        for _ in 0..2 {
            step(&mut uc, PAGE).unwrap();
            step(&mut uc, PAGE + n).unwrap();
        }
        let (read, write) = ((MemType::READ, 0x123, 4), (MemType::WRITE, 0x123, 4));
        let accesses = &uc.get_data().accesses;
        assert_eq!(*accesses, [read, write, read, write], "{}: physical addresses", t.name);
        // Crossing a page: one report, with the address of the first byte.
        uc.get_data_mut().accesses.clear();
        uc.reg_write(t.address, PAGE + 0xffe).unwrap();
        assert_eq!(step(&mut uc, PAGE + n), Err(uc_error::EXCEPTION), "{}: next page", t.name);
        assert_eq!(uc.mem_read_as_vec(RAM + 0xffe, 2), Ok(vec![0, 0]), "{}: no half", t.name);
    }
}

#[test]
fn translations_stay_until_they_are_flushed() {
    for t in targets() {
        let mut uc = instance(&t, t.set_1);
        uc.mem_write(SHADOW_2, t.set_2).unwrap();
        step(&mut uc, PAGE).unwrap();
        uc.get_data_mut().fetch_from = SHADOW_2;
        step(&mut uc, PAGE).unwrap();
        assert_eq!(uc.reg_read(t.result), Ok(1), "{}: old page", t.name);
        uc.ctl_flush_tlb().unwrap();
        step(&mut uc, PAGE).unwrap();
        assert_eq!(uc.reg_read(t.result), Ok(2), "{}: other page, other code", t.name);
        uc.get_data_mut().fetch_from = SHADOW;
        uc.ctl_flush_tlb().unwrap();
        step(&mut uc, PAGE).unwrap();
        assert_eq!(uc.reg_read(t.result), Ok(1), "{}: and back", t.name);
    }
}

#[test]
fn a_context_brings_back_registers_after_a_run() {
    for t in targets() {
        let mut uc = instance(&t, &[t.set_1, t.set_2].concat());
        step(&mut uc, PAGE).unwrap();
        let mut saved = uc.context_alloc().unwrap();
        uc.context_save(&mut saved).unwrap();
        for _ in 0..3 {
            step(&mut uc, PAGE + t.set_1.len() as u64).unwrap();
            assert_eq!(uc.reg_read(t.result), Ok(2), "{}", t.name);
            uc.context_restore(&saved).unwrap();
            assert_eq!(uc.reg_read(t.result), Ok(1), "{}", t.name);
            assert_eq!(uc.reg_read(t.pc), Ok(PAGE + t.set_1.len() as u64), "{}", t.name);
        }
    }
}

#[test]
fn traps_have_known_numbers() {
    for t in targets() {
        let mut uc = instance(&t, &[t.trap, t.set_1].concat());
        let _ = step(&mut uc, PAGE);
        assert_eq!(uc.get_data().exceptions, [t.trap_number], "{}", t.name);
        assert_eq!(uc.reg_read(t.pc), Ok(PAGE + t.trap_pc), "{}", t.name);
        assert_ne!(uc.reg_read(t.result), Ok(1), "{}: stopped", t.name);
    }
}

#[test]
fn registers_of_one_instance_are_taken_over_by_another() {
    for t in targets() {
        let n = t.set_1.len() as u64;
        let code = [t.set_1, t.load].concat();
        let (mut from, mut to) = (instance(&t, &code), instance(&t, &code));
        let own = to.context_init().unwrap();
        from.reg_write(t.address, PAGE).unwrap();
        step(&mut from, PAGE).unwrap();
        let saved = from.context_init().unwrap();
        to.context_restore(&saved).unwrap();
        assert_eq!(to.reg_read(t.result), Ok(1), "{}", t.name);
        assert_eq!(to.reg_read(t.pc), Ok(PAGE + n), "{}", t.name);
        step(&mut to, PAGE + n).unwrap();
        let loaded = to.reg_read(t.loaded).unwrap();
        assert_ne!(loaded, 0, "{}: it goes on there", t.name);
        let saved = to.context_init().unwrap();
        from.context_restore(&saved).unwrap();
        assert_eq!(from.reg_read(t.loaded), Ok(loaded), "{}: and back", t.name);
        // An instance ends with addresses of its own.
        to.context_restore(&own).unwrap();
        assert_eq!(to.reg_read(t.result), Ok(0), "{}", t.name);
    }
}

#[test]
fn a_run_without_a_count_stops_at_a_trap_and_before_a_block_that_is_too_much() {
    for t in targets() {
        let n = t.set_1.len() as u64;
        let mut uc = instance(&t, &[t.set_2, t.set_1, t.trap].concat());
        let _ = uc.emu_start(PAGE, 0, 0, 0);
        assert_eq!(uc.get_data().exceptions, [t.trap_number], "{}", t.name);
        assert_eq!(uc.reg_read(t.pc), Ok(PAGE + 2 * n + t.trap_pc), "{}", t.name);
        let blocks = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen = std::rc::Rc::clone(&blocks);
        uc.add_block_hook(1, 0, move |uc, at, size| {
            seen.borrow_mut().push((at, u64::from(size)));
            uc.emu_stop().unwrap();
        })
        .unwrap();
        uc.ctl_flush_tb().unwrap();
        uc.emu_start(PAGE, 0, 0, 0).unwrap();
        assert_eq!(*blocks.borrow(), [(PAGE, 2 * n + t.trap.len() as u64)], "{}", t.name);
        assert_eq!(uc.reg_read(t.pc), Ok(PAGE), "{}", t.name);
        assert_eq!(uc.reg_read(t.result), Ok(1), "{}: nothing ran", t.name);
    }
}

#[test]
fn a_page_granted_for_loads_is_asked_for_again_at_a_store() {
    for t in targets() {
        let n = t.load.len() as u64;
        let mut uc = instance(&t, &[t.load, t.store, t.trap].concat());
        uc.reg_write(t.address, HOLE + 0x100).unwrap();
        uc.reg_write(t.value, 7).unwrap();
        // Asked before the fills of `instance`, and answered for loads alone.
        let asked = std::rc::Rc::new(std::cell::RefCell::new(Vec::new()));
        let seen = std::rc::Rc::clone(&asked);
        uc.add_tlb_hook(HOLE, HOLE + 0xfff, move |_, _, kind| {
            seen.borrow_mut().push(kind);
            (kind == MemType::READ).then_some(TlbEntry { paddr: RAM, perms: Prot::READ })
        })
        .unwrap();
        assert_eq!(uc.emu_start(PAGE, 0, 0, 0), Err(uc_error::EXCEPTION), "{}", t.name);
        assert_eq!(*asked.borrow(), [MemType::READ, MemType::WRITE], "{}", t.name);
        assert_eq!(uc.reg_read(t.pc), Ok(PAGE + n), "{}: before the store", t.name);
        assert_eq!(uc.mem_read_as_vec(RAM + 0x100, 4), Ok(vec![0; 4]), "{}", t.name);
    }
}

/// x86-64: a second exception counts as raised inside the first, unless registers are restored.
#[test]
fn an_exception_is_remembered_until_registers_are_restored() {
    let mut uc = instance(&targets()[0], &[0xf7, 0xf1]); // div ecx, of zero
    let mut saved = uc.context_alloc().unwrap();
    uc.context_save(&mut saved).unwrap();
    for _ in 0..2 {
        let _ = step(&mut uc, PAGE);
    }
    uc.context_restore(&saved).unwrap();
    let _ = step(&mut uc, PAGE);
    assert_eq!(uc.get_data().exceptions, [0, 8, 0], "#DE, #DF, #DE");
}

/// x86-64: what is translated for the first time is announced before it runs.
#[test]
fn a_new_block_is_announced_and_can_be_kept_from_running() {
    let t = &targets()[0];
    let code = [t.set_2, &[0xeb, 0x00], t.set_1, t.trap].concat();
    let mut uc = instance(t, &code);
    let target = PAGE + t.set_2.len() as u64 + 2;
    let stops = std::rc::Rc::new(std::cell::Cell::new(true));
    let (seen, stop) = (std::rc::Rc::new(std::cell::RefCell::new(Vec::new())), stops.clone());
    let blocks = seen.clone();
    uc.add_edge_gen_hook(1, 0, move |uc, block, _| {
        seen.borrow_mut().push(block.pc);
        if stop.get() {
            uc.emu_stop().unwrap();
        }
    })
    .unwrap();
    uc.emu_start(PAGE, 0, 0, 0).unwrap();
    assert_eq!(*blocks.borrow(), [target], "the block behind the jump");
    assert_eq!((uc.reg_read(t.pc), uc.reg_read(t.result)), (Ok(target), Ok(2)));
    // It is there now, and is not announced again, until it is dropped.
    uc.emu_start(target, 0, 0, 0).unwrap();
    assert_eq!((blocks.borrow().len(), uc.reg_read(t.result)), (1, Ok(1)));
    uc.ctl_remove_cache(PAGE, PAGE + 0x1000).unwrap();
    stops.set(false);
    uc.emu_start(PAGE, 0, 0, 0).unwrap();
    assert_eq!(blocks.borrow().last(), Some(&target));
}

#[test]
fn the_powers_differ_in_byte_order_of_code_and_data() {
    let both = targets();
    for (t, other) in [(&both[2], &both[3]), (&both[3], &both[2])] {
        let mut uc = instance(t, other.set_2);
        let _ = step(&mut uc, PAGE);
        assert_ne!(uc.reg_read(t.result), Ok(2), "{} runs code of {}", t.name, other.name);
        let mut uc = instance(t, t.store);
        uc.reg_write(t.address, PAGE + 0x100).unwrap();
        uc.reg_write(t.value, 0x1122_3344).unwrap();
        step(&mut uc, PAGE).unwrap();
        let expected =
            if t.big_endian { [0x11, 0x22, 0x33, 0x44] } else { [0x44, 0x33, 0x22, 0x11] };
        assert_eq!(uc.mem_read_as_vec(RAM + 0x100, 4).unwrap(), expected, "{}", t.name);
    }
}

#[test]
fn a_repeated_string_instruction_is_one_step_an_iteration() {
    let t = &targets()[0];
    let mut uc = instance(t, &[0xf3, 0xa4]); // rep movsb
    uc.reg_write(RegisterX86::RSI, PAGE).unwrap();
    uc.reg_write(RegisterX86::RDI, PAGE + 0x100).unwrap();
    uc.reg_write(RegisterX86::RCX, 3).unwrap();
    for left in [2, 1] {
        step(&mut uc, PAGE).unwrap();
        assert_eq!(uc.reg_read(RegisterX86::RCX), Ok(left));
        assert_eq!(uc.reg_read(t.pc), Ok(PAGE), "still there");
    }
    assert_eq!(uc.get_data().accesses.len(), 4, "a load and a store for each");
}

/// What the engine does not know ends the run one way or another, before anything happened: by the
/// hook of unknown instructions, whose `false` makes an error, or by an exception's number.
#[test]
fn what_is_no_instruction_ends_the_run_and_changes_nothing() {
    for t in targets() {
        let word = 0u32.to_le_bytes();
        let unknown: &[u8] = if t.arch == Arch::X86 { &[0x0f, 0x0b] } else { &word };
        let mut uc = instance(&t, &[t.set_1, unknown].concat());
        let asked = std::rc::Rc::new(std::cell::Cell::new(0));
        let seen = asked.clone();
        uc.add_insn_invalid_hook(move |_| {
            seen.set(seen.get() + 1);
            false
        })
        .unwrap();
        step(&mut uc, PAGE).unwrap();
        let at = PAGE + t.set_1.len() as u64;
        let ended = step(&mut uc, at);
        let by_hook = asked.get() > 0 || ended == Err(uc_error::INSN_INVALID);
        let by_number = !uc.get_data().exceptions.is_empty();
        assert!(by_hook || by_number, "{}: {ended:?}", t.name);
        assert_eq!(uc.reg_read(t.result), Ok(1), "{}", t.name);
        assert_eq!(uc.mem_read_as_vec(RAM, 4), uc.mem_read_as_vec(SHADOW, 4), "{}", t.name);
    }
}

/// Counting is switched off again: without the hook, and with the blocks translated anew.
#[test]
fn a_hook_that_is_removed_is_not_called_any_more() {
    for t in targets() {
        let mut uc = instance(&t, &[t.set_1, t.trap].concat());
        let calls = std::rc::Rc::new(std::cell::Cell::new(0));
        let seen = calls.clone();
        let hook = uc.add_block_hook(1, 0, move |_, _, _| seen.set(seen.get() + 1)).unwrap();
        let _ = uc.emu_start(PAGE, 0, 0, 0);
        assert_eq!(calls.get(), 1, "{}", t.name);
        uc.remove_hook(hook).unwrap();
        uc.ctl_flush_tb().unwrap();
        let _ = uc.emu_start(PAGE, 0, 0, 0);
        assert_eq!((calls.get(), uc.get_data().exceptions.len()), (1, 2), "{}", t.name);
    }
}

/// Registers that were noted once are come back to after many runs, again and again.
#[test]
fn a_context_stays_good_over_many_runs() {
    for t in targets() {
        let mut uc = instance(&t, &[t.set_1, t.load].concat());
        uc.reg_write(t.address, PAGE).unwrap();
        uc.reg_write(t.loaded, 77).unwrap();
        let saved = uc.context_init().unwrap();
        for _ in 0..3 {
            for at in [PAGE, PAGE + t.set_1.len() as u64] {
                step(&mut uc, at).unwrap();
            }
            assert_ne!(uc.reg_read(t.loaded), Ok(77), "{}", t.name);
            uc.context_restore(&saved).unwrap();
            assert_eq!(uc.reg_read(t.loaded), Ok(77), "{}", t.name);
            assert_eq!(uc.reg_read(t.result), Ok(0), "{}", t.name);
        }
    }
}

/// What a kernel has in the control registers is there for guests that read it, and switches
/// nothing of the engine's own that is relied on.
#[test]
fn control_registers_keep_what_a_kernel_has_in_them() {
    let all = targets();
    let mut uc = instance(&all[0], all[0].set_1);
    uc.reg_write(RegisterX86::CR0, 0x8005_0033).unwrap();
    uc.reg_write(RegisterX86::CR4, 0x6f0).unwrap();
    let mut efer = [0; 16];
    efer[..4].copy_from_slice(&0xc000_0080_u32.to_le_bytes());
    efer[8..].copy_from_slice(&0xd01_u64.to_le_bytes());
    uc.reg_write_long(RegisterX86::MSR, &efer).unwrap();
    uc.reg_write(RegisterX86::RFLAGS, 0x202).unwrap();
    step(&mut uc, PAGE).unwrap();
    assert_eq!(uc.reg_read(RegisterX86::RAX), Ok(1), "it still goes by the virtual TLB");
    assert_eq!(uc.reg_read(RegisterX86::CR0), Ok(0x8005_0033));
    assert_eq!(uc.reg_read(RegisterX86::CR4), Ok(0x6f0));
    assert_eq!(uc.reg_read(RegisterX86::RFLAGS).unwrap() & 0x200, 0x200);

    // fmov d0, #1.0, with floating point let in.
    let mut uc = instance(&all[1], &0x1e6e_1000u32.to_le_bytes());
    uc.reg_write(RegisterARM64::CPACR_EL1, 3 << 20).unwrap();
    step(&mut uc, PAGE).unwrap();
    assert_eq!(uc.reg_read(RegisterARM64::D0), Ok(1f64.to_bits()));
    assert_eq!(uc.reg_read(RegisterARM64::CPACR_EL1), Ok(3 << 20));
}

#[test]
#[cfg(target_os = "linux")]
fn the_code_buffer_can_be_made_small() {
    let address_space_mib = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4 / 1024
    };
    let before = address_space_mib();
    let t = &targets()[1];
    let all: Vec<_> = (0..8).map(|_| instance(t, t.set_1)).collect();
    let grown = address_space_mib() - before;
    // Other tests of this process make instances too; with the default size it would be 8 GiB.
    assert!(grown < 6000, "{grown} MiB for {} instances", all.len());
}
