//! Blocks of 32-bit Power (BATs): registers of each CPU that translate before its hashed table
//! does, one set for loads and stores and one for fetches.
//!
//! Modelled: the same blocks on every CPU, set while nothing uses what they concern. Not modelled:
//! blocks that change later (nothing is cached of them, but what was fetched through them is in
//! flight), fetch blocks where loads and stores go by pages.

use textbed_arch::hashed::Block;
use textbed_arch::paging::{Attributes, Privilege};
use textbed_arch::{CpuId, Perm, SpaceId, VirtAddr};

use super::Mapping;
use super::edit::Runs;
use super::hashed::run_of;
use crate::{Machine, MapError};

/// `log2` of the smallest block: within so many bytes all is alike.
const BLOCK_SHIFT: u32 = 17;
const KERNEL: Privilege = Privilege::Kernel;

impl Machine {
    /// Gives every CPU these blocks.
    ///
    /// # Errors
    /// CPUs translate by no hashed table or have blocks already, or a block for fetches lies where
    /// there is none for loads and stores.
    pub fn set_blocks(
        &mut self,
        cpu: CpuId,
        data: Vec<Block>,
        fetch: Vec<Block>,
    ) -> Result<(), MapError> {
        let alone = fetch.iter().find(|f| !data.iter().any(|d| d.holds(f.first, KERNEL)));
        let bad = |virt: VirtAddr| MapError::BadRange { virt, len: 1 << BLOCK_SHIFT };
        if let Some(alone) = alone {
            return Err(bad(alone.first));
        }
        let h = self.hashed.as_mut().filter(|h| h.data_blocks.is_empty());
        let Some(h) = h else { return Err(bad(VirtAddr(0))) };
        h.data_blocks.clone_from(&data);
        h.fetch_blocks = fetch;
        let mut runs = Runs::default();
        for block in &data {
            for offset in (0..=block.mask).step_by(1 << BLOCK_SHIFT) {
                let Some(m) = self.block_at(block.first.offset(offset)) else { continue };
                runs.add(run_of(&m.absent(), m.perm));
            }
        }
        self.changed(cpu, SpaceId::KERNEL, runs);
        Ok(())
    }

    /// What blocks make of an address: where loads and stores go, and whether fetches may, too.
    pub(super) fn block_at(&self, virt: VirtAddr) -> Option<Mapping> {
        let h = self.hashed.as_ref()?;
        let held = |blocks: &[Block]| blocks.iter().find(|b| b.holds(virt, KERNEL)).copied();
        let data = held(&h.data_blocks)?;
        let (kept, exec) = (Perm::READ | Perm::WRITE, Perm::EXEC);
        let fetch = held(&h.fetch_blocks).filter(|f| f.phys(virt) == data.phys(virt));
        let grants = data.grants() & kept | fetch.map_or(Perm::empty(), |f| f.grants() & exec);
        let part = virt.align_down(BLOCK_SHIFT);
        Some(Mapping {
            virt: part,
            phys: data.phys(part),
            shift: BLOCK_SHIFT,
            perm: Perm::PRESENT | Perm::GLOBAL | grants,
            raw: 0,
            attributes: Attributes::default(),
            denied: Perm::empty(),
        })
    }
}
