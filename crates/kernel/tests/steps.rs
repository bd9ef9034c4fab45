//! The column of the call table that says which calls are made of steps, held against what they do.
//! (A call that leaves steps behind and is not marked panics in every test that makes it.)

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot_with, values};
use textbed_arch::{Arch, CpuId, Features, VirtAddr};
use textbed_kernel::{Arg, CALLS, CallSpec, ParamKind, find_call};

const ARCHS: [Arch; 4] = [Arch::X86_64, Arch::Arm64, Arch::Ppc64le, Arch::Ppc64];
const VERSIONS: [&str; 6] = ["5.18-rc3", "5.18", "6.1", "6.6", "6.12", "7.0"];
const ME: CpuId = CpuId(0);
const OTHER: CpuId = CpuId(1);

/// An instruction that does nothing, as long as an attach point of the architecture.
fn nop(arch: Arch) -> Vec<u8> {
    match arch {
        Arch::X86_64 => vec![0x0f, 0x1f, 0x44, 0, 0],
        Arch::Arm64 => 0xd503_201f_u32.to_le_bytes().to_vec(),
        Arch::Ppc64 => 0x6000_0000_u32.to_be_bytes().to_vec(),
        _ => 0x6000_0000_u32.to_le_bytes().to_vec(),
    }
}

/// Any argument of its kind, with an area of no-operations as the address.
fn plain(arch: Arch, kind: ParamKind, area: u64) -> Arg {
    match kind {
        ParamKind::Addr => Arg::Value(area),
        ParamKind::Bytes => Arg::Value(64),
        ParamKind::Pages | ParamKind::Cpu => Arg::Value(1),
        ParamKind::Byte => Arg::Value(0xcc),
        ParamKind::Insn if arch == Arch::Arm64 => Arg::Value(0xd503_201f),
        ParamKind::Insn => Arg::Value(0x6000_0000),
        ParamKind::Flag => Arg::Value(0),
        ParamKind::Flags(names) => Arg::Flags(vec![names[0].0.to_owned()]),
        ParamKind::Code => Arg::Code(nop(arch)),
    }
}

/// The arguments with which a call has work to do, after what has to be there first.
fn prepared(bed: &mut Bed, spec: &CallSpec) -> Vec<Arg> {
    let arch = bed.kernel.arch();
    let area = bed.call("vmalloc", &[3 * bed.kernel.pages().bytes()]) as u64;
    let module = bed.call_code("load_module", &[], &nop(arch).repeat(32)) as u64;
    bed.call_code("memcpy", &[area], &nop(arch).repeat(16));
    let text = bed.kernel.layout().text.start.0 + 0x2000;
    let site = module + 20;
    // On arm64 a module is too far from where BPF's memory lies: that needs a PLT.
    let traced = if arch == Arch::X86_64 { site } else { area + 8 };
    let prog = traced + 8;
    let stub = module + 0x60;
    let call_site = |bed: &mut Bed| {
        bed.call("ftrace_site", &[site]);
        if find_call("ftrace_ool_stub", bed.kernel.version(), arch).is_ok() {
            bed.call("ftrace_ool_stub", &[site, stub]);
        }
    };
    let enabled = |bed: &mut Bed| {
        bed.call("jump_entry", &[7, site, site + 32]);
    };
    match spec.name {
        "__vmalloc_node_range" => {
            let range = bed.kernel.layout().vmalloc;
            let mut args = values(&[64, 1, range.start.0, range.end()]);
            args.extend(["PAGE_KERNEL", "VM_ALLOC"].map(|f| Arg::Flags(vec![f.to_owned()])));
            args
        }
        "vm_unmap_aliases" => {
            bed.call("vfree", &[area]);
            vec![]
        }
        "execmem_alloc" => vec![Arg::Flags(vec!["EXECMEM_BPF".to_owned()]), Arg::Value(64)],
        "vmap" => values(&[area, 1]),
        "apply_alternatives_all" => vec![Arg::Value(text), Arg::Code(nop(arch))],
        "patch_instructions" => {
            vec![Arg::Value(area), Arg::Code(nop(arch)), Arg::Value(0), Arg::Value(4)]
        }
        "execmem_restore_rox" => values(&[module, 64]),
        "vfree_exec" => values(&[bed.call("vmalloc_exec_v1", &[64, 1]) as u64]),
        "do_init_module" | "free_module" => values(&[module]),
        "do_free_init" => {
            bed.call("do_init_module", &[module]);
            vec![]
        }
        "bpf_prog_pack_free" => values(&[bed.call("bpf_prog_pack_alloc", &[64]) as u64, 64]),
        "bpf_jit_binary_pack_finalize" | "bpf_jit_binary_pack_free" => {
            let room = bed.call("bpf_jit_binary_pack_alloc", &[64]) as u64;
            let code = Arg::Code(nop(arch));
            let [free, finalize] = [vec![Arg::Value(room)], vec![Arg::Value(room), code]];
            if spec.name == "bpf_jit_binary_pack_finalize" {
                return finalize;
            }
            bed.try_call("bpf_jit_binary_pack_finalize", &finalize).unwrap();
            free
        }
        "bpf_trampoline_link_prog" => values(&[traced, prog]),
        "bpf_trampoline_unlink_prog" | "__bpf_tramp_image_put_deferred" => {
            bed.call("bpf_trampoline_link_prog", &[traced, prog]);
            if spec.name == "bpf_trampoline_unlink_prog" {
                // One is left, so a new image is made.
                bed.call("bpf_trampoline_link_prog", &[traced, prog + 8]);
                return values(&[traced, prog]);
            }
            bed.call("bpf_trampoline_unlink_prog", &[traced, prog]);
            vec![]
        }
        "bpf_arch_text_poke" => values(&[site, 1, 0, site + 32]),
        "bpf_dispatcher_change_prog" => values(&[7, 0, prog]),
        "static_key_enable" | "static_key_enable_cpuslocked" => {
            enabled(bed);
            values(&[7])
        }
        "static_key_disable" | "static_key_disable_cpuslocked" => {
            enabled(bed);
            bed.call("static_key_enable", &[7]);
            values(&[7])
        }
        "static_call_update" => {
            bed.call("static_call_site", &[7, site]);
            values(&[7, site + 32])
        }
        "ftrace_ool_stub" => {
            bed.call("ftrace_site", &[site]);
            values(&[site, stub])
        }
        "register_ftrace_function" | "register_ftrace_direct" => {
            call_site(bed);
            values(&[1, site, site + 32])
        }
        "unregister_ftrace_function" => {
            bed.call("ftrace_site", &[site]);
            bed.call("register_ftrace_function", &[1, site, module]);
            values(&[1])
        }
        "unregister_ftrace_direct" | "modify_ftrace_direct" => {
            call_site(bed);
            bed.call("register_ftrace_direct", &[1, site, site + 32]);
            let args = [1, site + 36];
            values(if spec.name == "modify_ftrace_direct" { &args } else { &args[..1] })
        }
        "register_kprobe" | "register_kretprobe" => values(&[text]),
        "unregister_kprobe" | "disable_kprobe" | "unregister_kretprobe" => {
            bed.call(
                &spec.name.replace("unregister", "register").replace("disable_k", "register_k"),
                &[text],
            );
            values(&[text])
        }
        "enable_kprobe" => {
            bed.call("register_kprobe", &[text]);
            bed.call("disable_kprobe", &[text]);
            values(&[text])
        }
        "kprobe_optimizer" | "wait_for_kprobe_optimizer" => {
            // push rbp; mov rbp, rsp; nop
            let code = [0x55, 0x48, 0x89, 0xe5, 0x90, 0x90, 0x90, 0xc3];
            let at = if arch == Arch::X86_64 {
                bed.call_code("load_module", &[], &code) as u64
            } else {
                text
            };
            bed.call("register_kprobe", &[at]);
            vec![]
        }
        "smp_text_poke_batch_finish" | "text_poke_finish" => {
            let queue =
                spec.name.replace("finish", "add").replace("text_poke_add", "text_poke_queue");
            bed.call_code(&queue, &[area], &nop(arch));
            vec![]
        }
        "smp_text_poke_batch_add" | "text_poke_queue" => {
            // Out of order: what is pending goes first.
            bed.call_code(spec.name, &[area + 5], &nop(arch));
            vec![Arg::Value(area), Arg::Code(nop(arch))]
        }
        // What they have to wait for: a CPU that another one has begun to start.
        "remove_cpu" | "cpus_read_lock" => {
            for call in ["remove_cpu", "cpu_up_begin"] {
                bed.kernel.call(OTHER, call, &values(&[2])).unwrap();
            }
            if spec.name == "remove_cpu" { values(&[1]) } else { vec![] }
        }
        "add_cpu" | "cpu_up_begin" => {
            bed.call("remove_cpu", &[1]);
            values(&[1])
        }
        "synchronize_rcu" => {
            bed.kernel.machine_mut().read_side(OTHER, true);
            vec![]
        }
        "synchronize_rcu_tasks" => {
            bed.kernel.machine_mut().task_stands(OTHER, "task", VirtAddr(text), true);
            vec![]
        }
        "stop_machine_cpuslocked" => {
            bed.call("cpus_read_lock", &[]);
            vec![]
        }
        _ => spec.params.iter().map(|p| plain(arch, p.kind, area)).collect(),
    }
}

#[test]
fn what_is_marked_as_made_of_steps_is() {
    let (mut compared, mut whole) = (0, Vec::new());
    for spec in CALLS.iter().filter(|spec| !spec.steps.is_empty()) {
        for arch in ARCHS.into_iter().filter(|arch| spec.steps.contains(arch)) {
            let is = |v: &&&str| {
                let found = find_call(spec.name, v.parse().unwrap(), arch);
                found.is_ok_and(|found| std::ptr::eq(found, spec))
            };
            let Some(version) = VERSIONS.iter().rev().find(is) else { continue };
            // As posted, it has nothing to free there (vmalloc_exec_v1 dies).
            if spec.name == "vfree_exec" && arch.is_powerpc() {
                continue;
            }
            let mut bed = boot_with(version, arch, &[], Features::default_for(arch), 3);
            let args = prepared(&mut bed, spec);
            let begun = bed.kernel.begin(ME, spec.name, &args);
            compared += 1;
            if begun.is_err() || !bed.kernel.is_under_way(ME) {
                whole.push(format!("{} on {arch} in {version}: {begun:?}", spec.name));
            }
        }
    }
    println!("{compared} compared, {} under way", compared - whole.len());
    assert!(whole.is_empty(), "{}", whole.join("\n"));
    assert!(compared > 250, "{compared}");
}

/// A row that says for whom it sends, and where, says so of architectures that it is there for.
#[test]
fn columns_name_architectures_of_the_row() {
    for spec in CALLS {
        let archs = spec.sends.iter().flat_map(|(_, archs)| archs.iter()).chain(spec.steps);
        let none = !spec.archs.iter().any(|a| archs.clone().any(|b| a == b));
        assert!(archs.clone().next().is_none() || !none, "{}", spec.name);
    }
}
