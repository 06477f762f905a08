//! What the shell has to fetch: things to do first, then things to say.

use alloc::collections::VecDeque;

use crate::action::{Action, ActionId, ActionKind};

/// Upper bound of each queue. Only a shell that doesn't fetch reaches it; then
/// the oldest entry is lost.
const MAX_QUEUED: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    last_id: u64,
    to_do: VecDeque<Action>,
    replies: VecDeque<Action>,
    events: VecDeque<Action>,
}

impl Outbox {
    /// Queues an action under a new identity.
    pub(crate) fn push(&mut self, kind: ActionKind) -> ActionId {
        let id = self.new_id();
        self.push_as(id, kind);
        id
    }

    /// Queues an action under an identity that was given out before.
    pub(crate) fn push_as(&mut self, id: ActionId, kind: ActionKind) {
        let queue = match kind {
            ActionKind::Reply { .. } => &mut self.replies,
            ActionKind::Notify(_) => &mut self.events,
            _ => &mut self.to_do,
        };
        if queue.len() >= MAX_QUEUED {
            queue.pop_front();
        }
        queue.push_back(Action { id, kind });
    }

    /// A new identity.
    pub(crate) fn new_id(&mut self) -> ActionId {
        self.last_id += 1;
        ActionId(self.last_id)
    }

    /// The next action, in the order of urgency.
    pub(crate) fn pop(&mut self) -> Option<Action> {
        self.to_do
            .pop_front()
            .or_else(|| self.replies.pop_front())
            .or_else(|| self.events.pop_front())
    }
}
