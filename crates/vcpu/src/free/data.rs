//! The data that may be used freely: private copies of pages that the CPU has to itself
//! ([`textbed_machine::Machine::alone`]).
//!
//! A window shows one frame, at each address at which it was asked for. What the engine stored to
//! it is found by comparison with what the machine has, in units of eight bytes.

use std::collections::BTreeMap;

use textbed_arch::{CpuId, Pfn, VirtAddr};
use textbed_machine::{Machine, MachineError};

use crate::engine::PAGE;

/// Physical address of the windows inside the engine.
pub(super) const DATA_BASE: u64 = 0;
/// How many there are.
pub(super) const DATA_PAGES: usize = 64;

const BYTES: usize = PAGE as usize;
/// What is compared and stored.
const UNIT: usize = 8;

struct Window {
    frame: Pfn,
    stamp: u64,
    /// The last virtual page that it was asked for at, for stores.
    virt: u64,
    /// The engine may have stored to it.
    written: bool,
    /// What the machine has.
    machine: Box<[u8; BYTES]>,
}

/// A page that an access of the engine may use.
#[derive(Clone, Copy)]
struct Grant {
    window: usize,
    write: bool,
}

/// A store that the machine was not told of.
pub(super) struct Store {
    pub(super) virt: u64,
    pub(super) bytes: Vec<u8>,
}

/// Every window.
#[derive(Default)]
pub(super) struct Data {
    windows: Vec<Window>,
    grants: BTreeMap<u64, Grant>,
    /// As [`Machine::uses_changed`] was when the stamps were looked at.
    looked_at: u64,
}

/// Physical address of a window inside the engine.
pub(super) fn window_at(window: usize) -> u64 {
    DATA_BASE + window as u64 * PAGE
}

/// Bytes that a window is to show.
pub(super) struct Show {
    pub(super) window: usize,
    pub(super) bytes: Box<[u8; BYTES]>,
}

impl Data {
    /// Where an access of the engine to a page goes; `None`: the machine has to make it.
    pub(super) fn access(&mut self, virt: u64, write: bool) -> Option<(u64, bool)> {
        let grant = *self.grants.get(&(virt / PAGE))?;
        if write && !grant.write {
            return None;
        }
        let window = self.windows.get_mut(grant.window)?;
        if write {
            window.written = true;
            window.virt = virt / PAGE;
        }
        Some((window_at(grant.window), write))
    }

    /// Whether an access of the engine to a page is granted.
    pub(super) fn grants(&self, virt: u64, write: bool) -> bool {
        self.grants.get(&(virt / PAGE)).is_some_and(|g| g.write || !write)
    }

    /// Whether there is room for another frame.
    pub(super) fn is_full(&self) -> bool {
        self.windows.len() >= DATA_PAGES
    }

    /// Asks for a page. What a new window has to show, if there is one.
    pub(super) fn ask(
        &mut self,
        m: &mut Machine,
        cpu: CpuId,
        virt: u64,
        write: bool,
    ) -> Result<Option<Show>, MachineError> {
        let Some(found) = m.alone(cpu, VirtAddr(virt), write) else { return Ok(None) };
        let number = virt / PAGE;
        let known = self.windows.iter().position(|w| w.frame == found.frame);
        let write = write || self.grants(virt, true);
        if let Some(window) = known {
            self.grants.insert(number, Grant { window, write });
            return Ok(None);
        }
        if self.is_full() {
            return Ok(None);
        }
        let mut bytes = Box::new([0; BYTES]);
        m.read_phys(found.frame.addr(), &mut bytes[..])?;
        let window = self.windows.len();
        self.windows.push(Window {
            frame: found.frame,
            stamp: found.stamp,
            virt: number,
            written: false,
            machine: bytes.clone(),
        });
        self.grants.insert(number, Grant { window, write });
        Ok(Some(Show { window, bytes }))
    }

    /// Windows that the engine may have stored to.
    pub(super) fn written(&self) -> Vec<usize> {
        (0..self.windows.len()).filter(|n| self.windows[*n].written).collect()
    }

    /// What the machine has of a window.
    pub(super) fn of_machine(&self, window: usize) -> Option<&[u8; BYTES]> {
        self.windows.get(window).map(|w| &*w.machine)
    }

    /// What a window with these bytes has that the machine has not, which the machine is told now.
    pub(super) fn stores(&mut self, window: usize, now: &[u8; BYTES]) -> Vec<Store> {
        let Some(w) = self.windows.get_mut(window) else { return Vec::new() };
        let mut out: Vec<Store> = Vec::new();
        let mut behind = usize::MAX;
        let units = now.chunks_exact(UNIT).zip(w.machine.chunks_exact(UNIT)).enumerate();
        for (n, (new, old)) in units.filter(|(_, (new, old))| new != old) {
            let _ = old;
            match out.last_mut() {
                Some(last) if behind == n => last.bytes.extend_from_slice(new),
                _ => {
                    out.push(Store { virt: w.virt * PAGE + (n * UNIT) as u64, bytes: new.to_vec() })
                }
            }
            behind = n + 1;
        }
        w.machine.copy_from_slice(now);
        out
    }

    /// The machine was told all that was stored.
    pub(super) fn told(&mut self, m: &Machine, cpu: CpuId) {
        for w in &mut self.windows {
            if let Some(stamp) = m.alone_stamp(cpu, w.frame).filter(|_| w.written) {
                w.stamp = stamp;
            }
        }
        self.looked_at = m.uses_changed();
    }

    /// The engine's translations for stores were dropped: the next store says so.
    pub(super) fn unwritten(&mut self) {
        self.windows.iter_mut().for_each(|w| w.written = false);
    }

    /// Looks whether the CPU still has its pages to itself and as they were. What windows have to
    /// show now; `None`: all of them have to go.
    pub(super) fn check(
        &mut self,
        m: &Machine,
        cpu: CpuId,
    ) -> Result<Option<Vec<Show>>, MachineError> {
        if m.uses_changed() == self.looked_at {
            return Ok(Some(Vec::new()));
        }
        let mut shows = Vec::new();
        for (window, w) in self.windows.iter_mut().enumerate() {
            let Some(stamp) = m.alone_stamp(cpu, w.frame) else { return Ok(None) };
            if stamp != w.stamp {
                w.stamp = stamp;
                m.read_phys(w.frame.addr(), &mut w.machine[..])?;
                shows.push(Show { window, bytes: w.machine.clone() });
            }
        }
        self.looked_at = m.uses_changed();
        Ok(Some(shows))
    }

    /// No page is granted any more.
    pub(super) fn forget(&mut self) {
        self.windows.clear();
        self.grants.clear();
        // Counts of another machine may be the same.
        self.looked_at = u64::MAX;
    }

    /// Whether any page is granted.
    pub(super) fn is_empty(&self) -> bool {
        self.grants.is_empty()
    }
}
