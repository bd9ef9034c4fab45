//! Two CPUs that patch at the same time, interleaved by chance: at every moment each site holds its
//! old or its new instruction, or a breakpoint that the handler knows.

#![allow(clippy::unwrap_used)] // test code outside test functions

mod common;

use common::{Bed, boot, values};
use proptest::prelude::*;
use textbed_arch::{Arch, CpuId, SpaceId, VirtAddr};
use textbed_kernel::{Progress, Resume};

const NOP: [u8; 5] = [0x0f, 0x1f, 0x44, 0, 0];
/// Sites of each of the two keys.
const SITES: u64 = 3;

struct Rig {
    bed: Bed,
    /// Each site with its key, and its jump.
    sites: Vec<(u64, [u8; 5])>,
}

fn rig(skip: &str) -> Rig {
    let mut bed = boot("6.12", Arch::X86_64, &[("skip_text_poke_sync", skip)]);
    let a = bed.area("a", "vmalloc", 1 << 12);
    let mut sites = Vec::new();
    for n in 0..2 * SITES {
        let site = a + n * 16;
        bed.call_code("memcpy", &[site], &NOP);
        bed.call("jump_entry", &[n % 2, site, site + 0x105]);
        sites.push((site, [0xe9, 0, 1, 0, 0]));
    }
    bed.trace();
    Rig { bed, sites }
}

impl Rig {
    fn whole(&mut self) {
        for (site, jump) in self.sites.clone() {
            let mut now = [0; 5];
            let mapped = self.bed.kernel.machine().lookup(SpaceId::KERNEL, VirtAddr(site)).unwrap();
            let phys = mapped.phys.offset(site - mapped.virt.0);
            self.bed.kernel.machine().read_phys(phys, &mut now).unwrap();
            if now[0] == 0xcc {
                let resume = self.bed.kernel.trap(CpuId(1), VirtAddr(site), 3);
                let next = [VirtAddr(site + 5), VirtAddr(site + 0x105)];
                let known = next.iter().any(|to| resume == Some(Resume::At(*to)));
                assert!(known, "{site:#x}: {resume:?}");
            } else {
                assert!(now == NOP || now == jump, "{site:#x} is torn: {now:02x?}");
            }
        }
    }
}

/// Runs both CPUs' calls, each a key switched on and off in turn, as `schedule` says.
fn run(schedule: &[bool], calls: u32) -> (Rig, u32) {
    let mut rig = rig("0");
    let mut made = [0u32; 2];
    let mut waits = 0;
    let mut pending = [false; 2];
    let round = schedule.iter().copied().chain((0..4000).map(|n| n % 2 == 0));
    for second in round {
        let me = usize::from(second);
        let cpu = CpuId(me as u16);
        if !pending[me] && made[me] == calls {
            if !pending.contains(&true) && made == [calls; 2] {
                break;
            }
            continue;
        }
        let progress = if rig.bed.kernel.is_under_way(cpu) {
            rig.bed.kernel.resume(cpu)
        } else {
            let name =
                if made[me].is_multiple_of(2) { "static_key_enable" } else { "static_key_disable" };
            rig.bed.kernel.begin(cpu, name, &values(&[me as u64]))
        };
        pending[me] = true;
        match progress.unwrap() {
            Progress::Done(_) => {
                pending[me] = false;
                made[me] += 1;
            }
            Progress::More => {}
            Progress::Waits(_) => waits += 1,
        }
        rig.whole();
    }
    assert_eq!(made, [calls; 2], "both came to their end");
    (rig, waits)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn no_site_is_ever_torn(schedule in prop::collection::vec(any::<bool>(), 0..200)) {
        let (rig, _) = run(&schedule, 3);
        for lock in ["text_mutex", "jump_label_mutex"] {
            prop_assert_eq!(rig.bed.kernel.machine().lock_holder(lock), None);
        }
    }
}

#[test]
fn who_comes_second_waits_for_the_lock() {
    let turns: Vec<bool> = (0..40).map(|n| n % 2 == 1).collect();
    let (mut rig, waits) = run(&turns, 1);
    assert!(waits > 5, "{waits}");
    // Both keys are on: every site jumps.
    rig.whole();
    for (site, jump) in rig.sites.clone() {
        let mut now = [0; 5];
        rig.bed.kernel.machine_mut().load(CpuId(0), VirtAddr(site), &mut now).unwrap();
        assert_eq!(now, jump);
    }
}
