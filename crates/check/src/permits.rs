//! What excuses a writable alias of code: windows that a patcher or the platform declared.
//!
//! A permit is about frames, from its opening to its closing. Not modelled: who may use it.

use textbed_event::WindowPurpose;

use crate::finding::WindowStatus;
use crate::span::Span;

/// An authorised temporary alias, or a mapping that the platform never protects.
#[derive(Clone, Copy, Debug)]
struct Permit {
    id: u32,
    purpose: WindowPurpose,
    frames: Span,
    opened: u64,
}

/// Permits kept at once.
const MAX_PERMITS: usize = 4096;

/// The permits that are open.
#[derive(Default, Debug)]
pub(crate) struct Authorised {
    open: Vec<Permit>,
}

impl Authorised {
    pub(crate) fn open(&mut self, id: u32, purpose: WindowPurpose, frames: Span, opened: u64) {
        if self.open.len() < MAX_PERMITS {
            self.open.push(Permit { id, purpose, frames, opened });
        }
    }

    /// Closes a permit; its frames come back.
    pub(crate) fn close(&mut self, id: u32) -> Option<Span> {
        let at = self.open.iter().rposition(|p| p.id == id)?;
        Some(self.open.remove(at).frames)
    }

    /// What a write grant on `frames` is, if its mapping was made at event `made_at`.
    pub(crate) fn status(&self, frames: Span, made_at: u64, oldest: bool) -> WindowStatus {
        let mut status = WindowStatus::Violation;
        for permit in self.open.iter().filter(|p| p.frames.meet(frames).is_some()) {
            if permit.purpose == WindowPurpose::Platform {
                if oldest {
                    return WindowStatus::Platform;
                }
            } else if made_at >= permit.opened {
                status = WindowStatus::Protocol;
            }
        }
        status
    }
}
