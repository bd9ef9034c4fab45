//! Code that is replaced while it may run: sites that are open, handlers of traps, tasks that stand
//! in code, locks that are held, what was maintained lately, addresses that were given back, lists
//! that name sites, rooms that code was given.
//!
//! A *site* is what a patcher says that it is about to replace
//! ([`textbed_event::View::PatchSite`]); it is open until the call that said so returns. Stores
//! reach it by frame, because a patcher writes through an alias. The protocol with a trap in the
//! first byte is recognised by its bytes and their order: while the first unit of a site
//! traps, whoever arrives there runs the trap and nothing else.
//!
//! Not modelled: sites of patchers that say nothing (their stores are judged as stores: see
//! [`torn`]), the emulation that a trap's handler does, breakpoints of a debugger.

pub(crate) mod behind_trap;
pub(crate) mod context;
pub(crate) mod gone;
pub(crate) mod handlers;
pub(crate) mod landing;
pub(crate) mod listed;
pub(crate) mod maintained;
pub(crate) mod open;
pub(crate) mod quiescence;
pub(crate) mod readonly;
pub(crate) mod rooms;
pub(crate) mod sites;
pub(crate) mod torn;
pub(crate) mod verify;

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;
use textbed_arch::{CpuId, PhysAddr, VirtAddr};
use textbed_event::{CallRef, Flags, NameId};

use crate::live::{Live, Now};
use crate::mark::Mark;
use crate::span::{Span, SpanMap};

/// What is known of patchers and their sites.
#[derive(Default, Debug)]
pub(crate) struct Patching {
    pub(crate) sites: open::Sites,
    /// Ranges of addresses that were given back.
    pub(crate) gone: SpanMap<gone::Gone>,
    /// Parts of areas that were handed out.
    pub(crate) rooms: rooms::Rooms,
    /// Sites that lists name.
    pub(crate) listed: listed::Lists,
    /// Ranges for which a handler of a trap was ever known, by first address.
    pub(crate) handlers: BTreeMap<u64, handlers::Handler>,
    pub(crate) tasks: FxHashMap<NameId, quiescence::Standing>,
    pub(crate) held: FxHashMap<CpuId, Vec<NameId>>,
    /// x86: traps that stand in front of code that ran.
    pub(crate) traps: behind_trap::Traps,
    pub(crate) mismatches: Vec<verify::Mismatch>,
    /// Places that were found as expected, with the outermost open call.
    pub(crate) matched: Vec<(u64, CallRef, CpuId)>,
    pub(crate) maintained: maintained::Log,
    pub(crate) pads: landing::Pads,
    /// CR0.WP by CPU, where it was written.
    pub(crate) write_protect: FxHashMap<CpuId, (bool, Mark)>,
}

impl Patching {
    /// Whether no store concerns any of it.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.sites.is_empty()
            && self.tasks.is_empty()
            && self.mismatches.is_empty()
            && self.traps.is_empty()
            && self.pads.is_idle()
    }
}

impl Live {
    /// Bytes were stored, by one store or as a pattern.
    pub(crate) fn patched(
        &mut self,
        now: Now<'_>,
        virt: VirtAddr,
        phys: PhysAddr,
        len: u64,
        bytes: &[u8],
    ) {
        self.stored_by_right(now, virt);
        let frames = now.phys(phys).and_then(|p| Span::of(p, len));
        self.stored_in_rooms(now, virt.0, frames, len);
        let Some(frames) = frames else { return };
        if self.pads_matter() {
            if bytes.len() as u64 == len {
                self.remember_bytes(frames, bytes);
            } else {
                self.forget_bytes(frames);
            }
        }
        let idle = self.patching.sites.is_empty()
            && self.patching.tasks.is_empty()
            && self.patching.mismatches.is_empty();
        if idle && (len > 16 || self.fetches.is_off() || self.is_plain_store(frames, bytes)) {
            return;
        }
        let changes = !now.event.flags.has(Flags::EQUAL_BYTES);
        let mark = self.mark(now);
        self.site_stored(&mark, frames, bytes);
        if changes {
            self.stored_after_mismatch(&mark, frames);
            self.replaced_under_tasks(&mark, frames);
            self.judge_store_shape(&mark, frames);
            self.stored_around_traps(now, frames, bytes);
        }
    }

    /// A fetch, for open sites.
    #[inline]
    pub(crate) fn run_in_site(&mut self, now: Now<'_>, virt: VirtAddr, phys: PhysAddr, len: u32) {
        if self.patching.sites.is_empty() {
            return;
        }
        if let Some(frames) = now.phys(phys).and_then(|p| Span::of(p, u64::from(len))) {
            self.site_run(now, virt.0, frames);
        }
    }
}
