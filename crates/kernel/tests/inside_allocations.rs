//! What others see inside of allocations, packs, modules and x86's cache of text, who waits for
//! whom there, and what is undone where one of them fails.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot, boot_under, run, values};
use textbed_arch::{Arch, CpuId, FRAME_BYTES, Features, Perm, SpaceId, VirtAddr};
use textbed_event::MemOrder;
use textbed_kernel::{Arg, Progress, Wait, vm_flags};
use textbed_machine::Stalest;

const ARCHS: [Arch; 3] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le];
const VERSIONS: [&str; 6] = ["5.18", "6.1", "6.6", "6.12", "6.18", "7.0"];
const ME: CpuId = CpuId(0);
const OTHER: CpuId = CpuId(1);

fn perm(bed: &Bed, at: u64) -> Option<Perm> {
    bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(at)).map(|leaf| leaf.perm)
}

/// How an address is mapped, in letters.
fn letters(bed: &Bed, at: u64) -> String {
    perm(bed, at).map_or("---".to_owned(), |p| p.letters().to_string())
}

fn stores(bed: &mut Bed, at: u64) -> bool {
    bed.kernel.machine_mut().store(OTHER, VirtAddr(at), &[1], MemOrder::Plain).is_ok()
}

fn byte(bed: &mut Bed, at: u64) -> u8 {
    let mut now = [0];
    bed.kernel.machine_mut().load(OTHER, VirtAddr(at), &mut now).unwrap();
    now[0]
}

fn typed(kind: &str, size: u64) -> Vec<Arg> {
    vec![Arg::Flags(vec![kind.to_owned()]), Arg::Value(size)]
}

fn nops(arch: Arch, len: usize) -> Vec<u8> {
    let one: &[u8] = match arch {
        Arch::X86_64 => &[0x90],
        Arch::Arm64 => &[0x1f, 0x20, 0x03, 0xd5],
        _ => &[0, 0, 0, 0x60],
    };
    one.iter().copied().cycle().take(len).collect()
}

/// Begins a call on a CPU, goes on with it while it can, and says what it waits for.
fn until_it_waits(bed: &mut Bed, cpu: CpuId, name: &str, args: &[Arg]) -> Wait {
    let mut progress = bed.kernel.begin(cpu, name, args).unwrap();
    loop {
        match progress {
            Progress::More => progress = bed.kernel.resume(cpu).unwrap(),
            Progress::Waits(wait) => return wait,
            Progress::Done(value) => panic!("{name} returned {value:?}"),
        }
    }
}

fn finish(bed: &mut Bed, cpu: CpuId) -> i64 {
    loop {
        match bed.kernel.resume(cpu).unwrap() {
            Progress::Done(value) => return value.value,
            Progress::More => {}
            Progress::Waits(wait) => panic!("{cpu} waits for {wait}"),
        }
    }
}

/// What was seen, without repetitions.
fn seen<T: PartialEq>(mut moments: Vec<T>) -> Vec<T> {
    moments.dedup();
    moments
}

#[test]
fn an_area_is_reserved_then_has_its_pages_then_maps_them() {
    for arch in ARCHS {
        for version in VERSIONS {
            for call in ["vmalloc", "vmalloc_huge"] {
                let mut bed = boot(version, arch, &[]);
                let size = 2 << 20;
                let probe = bed.call(call, &[size]) as u64;
                // Where the next one lies.
                let next = bed.call(call, &[size]) as u64;
                bed.call("vfree", &[next]);
                bed.call("vfree", &[probe]);
                bed.call("vm_unmap_aliases", &[]);
                bed.trace();
                let (mut moments, mut frames) = (Vec::new(), 0);
                let made = run(&mut bed, ME, (call, &values(&[size])), |bed| {
                    let lines = bed.trace();
                    frames += lines.iter().filter(|l| l.contains("frames +")).count();
                    let areas = bed.kernel.areas();
                    let found = [probe, next].iter().find_map(|at| areas.find(VirtAddr(*at)));
                    let is_found = found.is_some();
                    let (start, pages) = found.map_or((probe, 0), |a| (a.start.0, a.nr_pages()));
                    let mapped = perm(bed, start).is_some();
                    assert_eq!(stores(bed, start), mapped, "{arch} {version} {call}");
                    moments.push((is_found, pages > 0, mapped));
                });
                assert!(made != 0 && frames > 0);
                let [no, yes] = [false, true];
                let order = [(yes, no, no), (yes, yes, no), (yes, yes, yes)];
                assert_eq!(seen(moments), order, "{arch} {version} {call}");
            }
        }
    }
}

#[test]
fn who_allocates_inside_gets_another_place_and_other_pages() {
    for arch in ARCHS {
        let mut bed = boot("6.12", arch, &[]);
        let mut theirs = Vec::new();
        let size = 3 * FRAME_BYTES;
        let mine = run(&mut bed, ME, ("vmalloc", &values(&[size])), |bed| {
            theirs.push(run(bed, OTHER, ("vmalloc", &values(&[size])), |_| {}) as u64);
        }) as u64;
        assert!(theirs.len() >= 3, "{arch}");
        let mut all = theirs;
        all.push(mine);
        let mut places: Vec<(u64, u64)> = all
            .iter()
            .map(|at| {
                (*at, bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(*at)).unwrap().phys.0)
            })
            .collect();
        places.sort_unstable();
        assert!(places.windows(2).all(|p| p[0].0 + size < p[1].0), "{arch}: {places:x?}");
        let mut frames: Vec<u64> = places.iter().map(|p| p.1).collect();
        frames.sort_unstable();
        assert!(frames.windows(2).all(|f| f[0] + size <= f[1]), "{arch}: {frames:x?}");
    }
}

#[test]
fn vmap_maps_page_by_page_for_all_to_see() {
    for arch in ARCHS {
        let mut bed = boot("6.12", arch, &[]);
        let page = bed.kernel.pages().bytes();
        let a = bed.call("vmalloc", &[3 * page]) as u64;
        let probe = bed.call("vmap", &[a, 3]) as u64;
        bed.call("vunmap", &[probe]);
        bed.call("vm_unmap_aliases", &[]);
        let (mut moments, mut at) = (Vec::new(), 0);
        let made = run(&mut bed, ME, ("vmap", &values(&[a, 3])), |bed| {
            let after = bed.kernel.areas().find(VirtAddr(probe));
            at = after.map_or(at, |area| area.start.0);
            moments.push((0..3).filter(|n| perm(bed, probe + n * page).is_some()).count());
        });
        assert_eq!(made as u64, probe, "{arch}");
        assert_eq!(seen(moments), [0, 1, 2, 3], "{arch}");
    }
}

/// As vfree: others see the pages, and then none; its addresses wait for a purge.
#[test]
fn an_area_that_cannot_be_mapped_is_taken_down_where_that_shows() {
    for arch in ARCHS {
        for (allocation, order) in [(2, vec![Some(0), None]), (3, vec![Some(0), Some(3), None])] {
            let mut bed = boot("6.12", arch, &[]);
            let count = 3 * bed.kernel.pages().frames();
            let size = count * FRAME_BYTES;
            let place = bed.call("vmalloc", &[size]) as u64;
            bed.call("vfree", &[place]);
            bed.call("vm_unmap_aliases", &[]);
            bed.kernel.fail_allocation("vmalloc", 2, allocation).unwrap();
            bed.trace();
            let mut moments = Vec::new();
            let made = run(&mut bed, ME, ("vmalloc", &values(&[size])), |bed| {
                let area = bed.kernel.areas().find(VirtAddr(place));
                moments.push(area.map(|a| a.nr_pages() * 3 / count));
            });
            assert_eq!(made, 0, "{arch}");
            assert_eq!(seen(moments), order, "{arch} allocation {allocation}");
            let trace = bed.trace();
            let frames = |what: &str| trace.iter().filter(|l| l.contains(what)).count();
            assert_eq!(frames("frames +"), frames("frames -"), "{arch}: {trace:#?}");
            assert!(!trace.iter().any(|l| l.contains("area")), "{arch}: {trace:#?}");
            assert_ne!(bed.call("vmalloc", &[size]) as u64, place, "{arch}: not yet");
            bed.call("vm_unmap_aliases", &[]);
            assert_eq!(bed.call("vmalloc", &[size]) as u64, place, "{arch}: after a purge");
        }
    }
}

/// An empty table is unlinked, flushed and given back before the large leaf; who flushes inside
/// does not give it back for the other.
#[test]
fn an_empty_table_goes_when_it_is_flushed_by_who_unlinked_it() {
    let machine = (Features::default_for(Arch::X86_64), 2);
    let mut bed = boot_under("6.12", Arch::X86_64, &[], machine, Box::new(Stalest));
    // By small pages, each in a block of its own.
    let [a, b] = [0, 1].map(|_| bed.call("vmalloc", &[4 << 20]) as u64);
    bed.call("vfree", &[a]);
    bed.call("vfree", &[b]);
    bed.call("vm_unmap_aliases", &[]);
    bed.trace();
    let (mut unlinked, mut inside) = (0, false);
    run(&mut bed, ME, ("vmalloc_huge", &values(&[2 << 20])), |bed| {
        let lines = bed.trace();
        let count =
            |what: &str| lines.iter().filter(|l| l.starts_with("0") && l.contains(what)).count();
        unlinked += count("TableUnlinked");
        if count("TableUnlinked") > 0 && !inside {
            inside = true;
            run(bed, OTHER, ("vmalloc_huge", &values(&[2 << 20])), |_| {});
            let theirs = bed.trace();
            let freed = |l: &&String| l.contains("TableFreed");
            let (mine, others): (Vec<&String>, _) =
                theirs.iter().filter(freed).partition(|l| l.starts_with('0'));
            let other: Vec<&String> = others;
            assert!(mine.is_empty() && other.len() == 1, "{theirs:#?}");
        }
    });
    assert!(unlinked == 1 && inside);
}

/// Permissions of a part in the order in which another CPU sees them.
fn part_of(moments: &[[String; 3]], part: usize) -> Vec<String> {
    seen(moments.iter().map(|m| m[part].clone()).filter(|p| p != "---").collect())
}

#[test]
fn a_module_is_seen_by_parts_in_the_order_of_its_version() {
    for arch in ARCHS {
        for version in VERSIONS {
            let mut bed = boot(version, arch, &[]);
            let code = nops(arch, 64);
            let args = [Arg::Code(code.clone())];
            // Where it will lie, by a kernel of its own.
            let mut first = boot(version, arch, &[]);
            let module = first.call_code("load_module", &[], &code) as u64;
            let at = ["MOD_TEXT", "MOD_RODATA", "MOD_DATA"].map(|name| {
                let args = [Arg::Value(module), Arg::Flags(vec![name.to_owned()])];
                first.try_call("module_section", &args).unwrap().value as u64
            });
            let mut moments = Vec::new();
            let mut bytes = Vec::new();
            let loaded = run(&mut bed, ME, ("load_module", &args), |bed| {
                moments.push(at.map(|at| letters(bed, at)));
                if perm(bed, at[0]).is_some() {
                    bytes.push(byte(bed, at[0] + 3) == code[3]);
                }
            });
            assert_eq!(loaded as u64, at[0], "{arch} {version}");
            let what = format!("{arch} {version}");
            let cached = arch == Arch::X86_64 && ["6.18", "7.0"].contains(&version);
            let text = part_of(&moments, 0);
            let ends: &[&str] = match (arch, version) {
                // Out of the cache: not executable, writable, and back in one pass.
                _ if cached => &["rw-", "r-x"],
                // One pass of set_memory_rox().
                (Arch::X86_64, "6.12") => &["rw-", "r-x"],
                (Arch::Ppc64le, "6.12" | "6.18" | "7.0") => &["rw-", "r-x"],
                _ => &["rw-", "r--", "r-x"],
            };
            assert!(
                text.ends_with(&ends.iter().map(|e| (*e).to_owned()).collect::<Vec<_>>()),
                "{what}: {text:?}"
            );
            assert!(text.iter().all(|p| p != "rwx"), "{what}: {text:?}");
            assert_eq!(part_of(&moments, 1), ["rw-", "r--"], "{what}");
            assert_eq!(part_of(&moments, 2), ["rw-"], "{what}");
            // The text is there before it is protected, and executable last.
            let (filled, ro) =
                (bytes.iter().filter(|b| !**b).count(), |m: &&[String; 3]| m[1] == "r--");
            assert!(filled > 0 && bytes.last() == Some(&true), "{what}");
            let first_ro = moments.iter().find(ro).unwrap();
            assert_eq!(first_ro[0] == "rw-", !["5.18", "6.1", "6.6"].contains(&version), "{what}");
        }
    }
}

#[test]
fn who_forms_a_module_keeps_others_from_the_list() {
    for arch in ARCHS {
        for version in VERSIONS {
            let mut bed = boot(version, arch, &[]);
            let code = nops(arch, 64);
            let other = bed.call_code("load_module", &[], &code) as u64;
            bed.kernel.begin(ME, "load_module", &[Arg::Code(code)]).unwrap();
            while bed.kernel.machine().lock_holder("module_mutex") != Some(ME) {
                assert_eq!(bed.kernel.resume(ME).unwrap(), Progress::More, "{arch} {version}");
            }
            let waits = until_it_waits(&mut bed, OTHER, "free_module", &values(&[other]));
            assert_eq!(waits, Wait::Lock("module_mutex".to_owned()), "{arch} {version}");
            assert!(finish(&mut bed, ME) != 0);
            finish(&mut bed, OTHER);
            let text = [Arg::Value(other), Arg::Flags(vec!["MOD_TEXT".to_owned()])];
            assert_eq!(bed.try_call("module_section", &text).unwrap().value, 0, "{arch} {version}");
        }
    }
}

/// The error of a part's permissions ends the loading there: others find its memory until it goes.
#[test]
fn a_module_whose_permissions_fail_goes_again() {
    for arch in ARCHS {
        let mut bed = boot("6.12", arch, &[]);
        let code = nops(arch, 64);
        let probe = bed.call_code("load_module", &[], &code) as u64;
        bed.call("free_module", &[probe]);
        bed.call("vm_unmap_aliases", &[]);
        let done = bed.trace().iter().filter(|l| l.contains("call set_memory_nx")).count();
        bed.kernel.fail("set_memory_nx", done as u32 + 1, 22).unwrap();
        let mut moments = Vec::new();
        let loaded = run(&mut bed, ME, ("load_module", &[Arg::Code(code)]), |bed| {
            moments.push((bed.kernel.areas().find(VirtAddr(probe)).is_some(), letters(bed, probe)));
        });
        assert_eq!(loaded, -22, "{arch}");
        assert!(moments.iter().all(|m| !m.1.contains('x')), "{arch}: {moments:?}");
        assert!(moments.contains(&(true, "rw-".to_owned())), "{arch}: {moments:?}");
        assert!(!moments.last().unwrap().0, "{arch}: {moments:?}");
    }
}

#[test]
fn init_memory_goes_after_the_grace_period_while_the_module_runs() {
    for arch in ARCHS {
        for version in VERSIONS {
            let mut bed = boot(version, arch, &[]);
            let module = bed.call_code("load_module", &[], &nops(arch, 64)) as u64;
            let args = [Arg::Value(module), Arg::Flags(vec!["MOD_INIT_TEXT".to_owned()])];
            let init = bed.try_call("module_section", &args).unwrap().value as u64;
            bed.call("do_init_module", &[module]);
            let mut moments = Vec::new();
            run(&mut bed, ME, ("do_free_init", &[]), |bed| {
                assert_eq!(letters(bed, module), "r-x", "{arch} {version}");
                moments.push(letters(bed, init));
            });
            let mut order = seen(moments);
            // The cache makes it writable to fill it, and keeps it.
            let cached = arch == Arch::X86_64 && ["6.18", "7.0"].contains(&version);
            if cached {
                assert_eq!(order, ["r-x", "r--", "rw-", "r-x"], "{arch} {version}");
            } else {
                assert_eq!(order.pop().unwrap(), "---", "{arch} {version}");
                assert_eq!(order.first().unwrap(), "r-x", "{arch} {version}");
            }
        }
    }
}

#[test]
fn a_pack_is_filled_and_protected_before_anybody_else_gets_room_in_it() {
    for arch in ARCHS {
        for version in VERSIONS {
            let mut bed = boot(version, arch, &[]);
            bed.kernel.begin(ME, "bpf_prog_pack_alloc", &values(&[64])).unwrap();
            assert_eq!(bed.kernel.machine().lock_holder("pack_mutex"), Some(ME));
            let waits = until_it_waits(&mut bed, OTHER, "bpf_prog_pack_alloc", &values(&[64]));
            assert_eq!(waits, Wait::Lock("pack_mutex".to_owned()), "{arch} {version}");
            let mut moments = Vec::new();
            let room = loop {
                match bed.kernel.resume(ME).unwrap() {
                    Progress::Done(value) => break value.value as u64,
                    progress => assert_eq!(progress, Progress::More, "{arch} {version}"),
                }
                moments.push(bed.kernel.machine().lock_holder("pack_mutex"));
            };
            let theirs = finish(&mut bed, OTHER) as u64;
            assert_eq!(theirs, room + 64, "{arch} {version}: the same pack");
            assert!(moments.len() > 3 && moments.iter().all(|by| *by == Some(ME)));
            // Once more, where the same place is taken again, to see what others see.
            bed.call("bpf_prog_pack_free", &[theirs, 64]);
            bed.call("bpf_prog_pack_free", &[room, 64]);
            bed.call("vm_unmap_aliases", &[]);
            let room = bed.call("bpf_prog_pack_alloc", &[64]) as u64;
            bed.call("bpf_prog_pack_free", &[room, 64]);
            bed.call("vm_unmap_aliases", &[]);
            let mut moments = Vec::new();
            let again = run(&mut bed, ME, ("bpf_prog_pack_alloc", &values(&[64])), |bed| {
                moments.push(letters(bed, room));
            }) as u64;
            assert_eq!(again, room, "{arch} {version}");
            let order = seen(moments);
            assert_eq!(order.first().unwrap(), "---", "{arch} {version}: {order:?}");
            assert!(order.contains(&"rw-".to_owned()) && order.iter().all(|p| p != "rwx"));
            assert_eq!(letters(&bed, room), "r-x", "{arch} {version}");
        }
    }
}

/// Linux 6.12 bpf_prog_pack_free(): traps first, then the bitmap, both under pack_mutex.
#[test]
fn a_program_is_overwritten_before_its_room_is_free() {
    for arch in ARCHS {
        let mut bed = boot("6.12", arch, &[]);
        let rooms = [0, 1].map(|_| bed.call("bpf_prog_pack_alloc", &[64]) as u64);
        let code = nops(arch, 64);
        for room in rooms {
            bed.call_code("bpf_arch_text_copy", &[room], &code);
        }
        bed.trace();
        bed.kernel.begin(ME, "bpf_prog_pack_free", &values(&[rooms[0], 64])).unwrap();
        let mut at_traps = false;
        let waits = until_it_waits(&mut bed, OTHER, "bpf_prog_pack_alloc", &values(&[64]));
        assert_eq!(waits, Wait::Lock("pack_mutex".to_owned()), "{arch}");
        let mut gone = false;
        loop {
            let lines = bed.trace();
            gone |= lines.iter().any(|l| l.contains("area gone"));
            at_traps |= !gone && byte(&mut bed, rooms[0]) != code[0];
            bed.trace();
            assert!(matches!(bed.kernel.resume(OTHER).unwrap(), Progress::Waits(_)), "{arch}");
            if let Progress::Done(_) = bed.kernel.resume(ME).unwrap() {
                break;
            }
        }
        assert!(at_traps, "{arch}");
        assert_eq!(finish(&mut bed, OTHER) as u64, rooms[0], "{arch}");
        assert_eq!(byte(&mut bed, rooms[1]), code[0], "{arch}");
    }
}

#[test]
fn the_cache_is_filled_by_two_at_once_and_each_has_its_own() {
    for version in ["6.18", "7.0"] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        let args = typed("EXECMEM_MODULE_TEXT", 2 << 20);
        let mut theirs = 0;
        let mine = run(&mut bed, ME, ("execmem_alloc", &args), |bed| {
            if theirs == 0 {
                theirs = run(bed, OTHER, ("execmem_alloc", &args), |_| {}) as u64;
                assert_eq!(letters(bed, theirs), "r-x");
            }
        }) as u64;
        assert!(mine != theirs && theirs != 0, "{version}");
        assert_eq!(letters(&bed, mine), "r-x", "{version}");
    }
}

/// The state of text that is freed, and who waits for the cache meanwhile.
#[test]
fn the_cache_keeps_others_out_while_a_range_is_filled_with_traps() {
    for version in ["6.18", "7.0"] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        let [mine, other] = [0, 1].map(|_| {
            let args = typed("EXECMEM_MODULE_TEXT", FRAME_BYTES);
            bed.try_call("execmem_alloc", &args).unwrap().value as u64
        });
        bed.trace();
        let mut moments = Vec::new();
        let mut asked = false;
        run(&mut bed, ME, ("execmem_free", &values(&[mine])), |bed| {
            moments.push((letters(bed, mine), letters(bed, other)));
            if !asked {
                asked = true;
                let args = typed("EXECMEM_MODULE_TEXT", FRAME_BYTES);
                let wait = until_it_waits(bed, OTHER, "execmem_alloc", &args);
                assert_eq!(wait, Wait::Lock("execmem_cache.mutex".to_owned()), "{version}");
            }
        });
        let order = ["r-x", "r--", "rw-", "r-x"];
        let mine_seen: Vec<String> = seen(moments.iter().map(|m| m.0.clone()).collect());
        assert!(
            order.ends_with(&mine_seen.iter().map(String::as_str).collect::<Vec<_>>()[..]),
            "{version}: {mine_seen:?}"
        );
        assert!(mine_seen.len() >= 3, "{version}: {mine_seen:?}");
        assert!(moments.iter().all(|m| m.1 == "r-x"), "{version}: {moments:?}");
        // Who waited gets what was freed.
        assert_eq!(finish(&mut bed, OTHER) as u64, mine, "{version}");
    }
}

/// x86: the direct map's leaf is split and flushed before its page goes; others run in between.
#[test]
fn the_direct_map_is_split_before_a_page_of_it_goes() {
    let machine = (Features::default_for(Arch::X86_64), 2);
    let mut bed = boot_under("6.12", Arch::X86_64, &[], machine, Box::new(Stalest));
    let a = bed.call("vmalloc", &[FRAME_BYTES]) as u64;
    let frame = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(a)).unwrap().phys;
    let alias = bed.kernel.direct_map_of(frame.pfn()).unwrap().0;
    assert!(stores(&mut bed, alias));
    let mut moments = Vec::new();
    let args = values(&[a]);
    let done = run(&mut bed, ME, ("set_direct_map_invalid_noflush", &args), |bed| {
        let leaf = bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(alias));
        moments.push(leaf.map(|l| l.shift));
    });
    assert_eq!(done, 0);
    let order = seen(moments);
    assert!(
        order.len() >= 3 && order[0] > Some(12) && order.ends_with(&[Some(12), None]),
        "{order:?}"
    );
}

/// The site is what it was until the image is there; who links another program waits.
#[test]
fn a_trampoline_is_made_before_its_site_changes() {
    for version in ["6.1", "6.12"] {
        let mut bed = boot(version, Arch::X86_64, &[]);
        let site = bed.call("module_alloc_huge", &[4096]) as u64;
        let nop = [0x0f, 0x1f, 0x44, 0, 0];
        bed.call_code("memcpy", &[site], &nop.repeat(8));
        bed.trace();
        let mut moments = Vec::new();
        let mut asked = false;
        let args = values(&[site, site + 8]);
        let linked = run(&mut bed, ME, ("bpf_trampoline_link_prog", &args), |bed| {
            let made = bed.trace().iter().any(|l| l.contains("region bpf trampoline"));
            moments.push((made, byte(bed, site) == nop[0]));
            bed.trace();
            if !asked {
                asked = true;
                let other = values(&[site, site + 16]);
                let wait = until_it_waits(bed, OTHER, "bpf_trampoline_link_prog", &other);
                assert_eq!(wait, Wait::Lock("bpf_trampoline.mutex".to_owned()), "{version}");
            }
        });
        assert_eq!(linked, 0, "{version}");
        let made = moments.iter().position(|m| m.0).unwrap();
        let changed = moments.iter().position(|m| !m.1).unwrap();
        assert!(made > 0 && made < changed, "{version}: {moments:?}");
        assert_eq!(finish(&mut bed, OTHER), 0, "{version}");
    }
}

#[test]
fn flags_of_an_area_are_there_from_its_reservation_on() {
    let mut bed = boot("6.12", Arch::X86_64, &[]);
    let mut flags = Vec::new();
    let args = typed("EXECMEM_BPF", FRAME_BYTES);
    let probe = bed.try_call("execmem_alloc", &args).unwrap().value as u64;
    bed.call("execmem_free", &[probe]);
    bed.call("vm_unmap_aliases", &[]);
    run(&mut bed, ME, ("execmem_alloc", &args), |bed| {
        let area = bed.kernel.areas().find(VirtAddr(probe));
        flags.push(area.is_some_and(|a| a.flags & vm_flags::VM_FLUSH_RESET_PERMS != 0));
    });
    assert!(flags.len() > 2 && flags.iter().all(|f| *f), "{flags:?}");
}
