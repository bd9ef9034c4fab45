//! Lists that name sites: does the memory still hold what the list was made for?
//!
//! A list of sites (the jump table of a static key, the sites of a static call) says from when on
//! it names a place, and when it is gone through because of that. If the memory was given back in
//! between, what the patcher takes for its site is nobody's, or, once it was handed out again,
//! somebody else's, whatever bytes lie there. From: the messages of Linux commits 9e667624c291 and
//! f263a81451c1. Not modelled: lists that lose a place without saying so: one that is not gone
//! through for it is not judged.

use std::collections::BTreeMap;

use crate::live::{Live, Now};
use crate::rules::RuleId;

/// Places that are remembered; past it new ones are not judged.
const MAX_LISTED: usize = 1 << 16;

/// When a list got a place, by address.
#[derive(Default, Debug)]
pub(crate) struct Lists(BTreeMap<u64, Entry>);

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The event.
    since: u64,
    /// That its memory is gone was said.
    told: bool,
}

impl Lists {
    /// Whether it was said of a listed place that its memory is gone.
    pub(crate) fn is_told(&self, virt: u64) -> bool {
        self.0.get(&virt).is_some_and(|entry| entry.told)
    }
}

impl Live {
    /// A list names a site from here on, or is about to replace it.
    pub(crate) fn listed_site(&mut self, now: Now<'_>, virt: u64, begins: bool) {
        let lists = &mut self.patching.listed.0;
        if begins {
            if lists.len() < MAX_LISTED || lists.contains_key(&virt) {
                lists.insert(virt, Entry { since: now.seq(), told: false });
            }
            return;
        }
        let Some(entry) = lists.get_mut(&virt) else { return };
        self.occasions.looked(RuleId::PatchMetadata);
        let Some((_, gone)) = self.patching.gone.get(virt) else { return };
        if gone.at.seq < entry.since {
            return;
        }
        entry.told = true;
        let (freed, reused) = (gone.at, gone.reused);
        let what = if reused {
            "whose memory was given back and handed out again since it got there"
        } else {
            "whose memory was given back"
        };
        let mark = self.mark(now);
        self.site_is_gone(&mark, &freed, what);
    }
}
