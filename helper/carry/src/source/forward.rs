//! Without a destination, once the guest won't run here again: its frames go to the network when the guest was heard from
//! elsewhere, as the network leads there then.
//!
//! Never what the destination may have given: what was sent is its own, unless its process is dead and had no leave to give it. Nor
//! what goes to a group, as all others have got that.

use super::{Action, Phase, Source, Stream, Sweep};
use crate::message::CarryCause;

impl Source {
    /// The guest is gone for good, and the stream too.
    pub(super) fn has_no_destination(&self) -> bool {
        matches!(self.phase, Phase::Stopped { .. }) && self.committed && self.stream == Stream::Over
    }

    /// When the next step is due, in ms.
    pub(super) fn forward_due_ms(&self) -> u64 {
        let limits = &self.limits;
        let since_ms = self.committed_ms.max(self.stream_over_ms);
        match self.heard_ms {
            _ if !self.can_forward => 0,
            None => since_ms.saturating_add(limits.resume_ms),
            Some(heard_ms) => {
                let last_ms = heard_ms.max(self.last_frame_ms);
                if self.forwards {
                    last_ms.saturating_add(limits.quiet_ms)
                } else {
                    // As long as frames come, the network has not learnt. And the other half's death may be told a little
                    // after the stream's end.
                    let settled_ms = last_ms.max(self.stream_over_ms);
                    settled_ms.saturating_add(limits.straggle_ms)
                }
            }
        }
    }

    pub(super) fn forward(&mut self, stopped_ms: u64) {
        if self.now_ms >= stopped_ms.saturating_add(self.limits.forward_ms) {
            self.act(Action::Detach);
            return self.end();
        }
        if self.now_ms < self.forward_due_ms() {
            return;
        }
        let begins = self.can_forward && self.heard_ms.is_some() && !self.forwards;
        if begins && self.sweep == Sweep::Done {
            self.forwards = true;
            if self.peer_gave_nothing || (self.peer_died && !self.handed_over) {
                (self.swept, self.swept_sent, self.held_sent) = (0, 0, 0);
            } else {
                self.drop_sent();
                self.swept = 0;
            }
        } else if !begins && (!self.forwards || self.kept.is_empty()) {
            if self.can_forward && !self.forwards {
                // What else went wrong matters less.
                self.cause = Some(CarryCause::NeverResumed);
            }
            self.act(Action::Detach);
            self.end();
        }
    }

    pub(super) fn next_forwarded(&mut self) -> Option<Action> {
        while let Some(waiting) = self.kept.pop() {
            if !waiting.frame.is_group() {
                self.counts.forwarded += 1;
                return Some(Action::Forward(waiting.frame));
            }
            self.counts.left_to_the_network += 1;
        }
        self.proceed();
        // It may have ended.
        self.actions.pop_front()
    }
}
