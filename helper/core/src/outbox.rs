//! What the shell has to fetch: things to do first, then things to say.

use alloc::collections::VecDeque;

use crate::model::action::{Action, ActionKind};
use crate::model::output::{Event, Output, Reply};
use crate::model::types::ActionId;

/// Upper bound of each queue. Only a shell that doesn't fetch reaches it; then
/// the oldest entry is lost.
const MAX_QUEUED: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    last_id: u64,
    to_do: VecDeque<Action>,
    replies: VecDeque<Reply>,
    events: VecDeque<Event>,
}

impl Outbox {
    /// Queues an action under a new identity.
    pub(crate) fn act(&mut self, kind: ActionKind) -> ActionId {
        self.last_id += 1;
        let id = ActionId(self.last_id);
        push(&mut self.to_do, Action { id, kind });
        id
    }

    pub(crate) fn reply(&mut self, replies: impl IntoIterator<Item = Reply>) {
        for reply in replies {
            push(&mut self.replies, reply);
        }
    }

    pub(crate) fn notify(&mut self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            push(&mut self.events, event);
        }
    }

    /// The next output, in the order of urgency.
    pub(crate) fn pop(&mut self) -> Option<Output> {
        let reply = |(command, result)| Output::Reply { command, result };
        (self.to_do.pop_front().map(Output::Act))
            .or_else(|| self.replies.pop_front().map(reply))
            .or_else(|| self.events.pop_front().map(Output::Notify))
    }
}

fn push<T>(queue: &mut VecDeque<T>, one: T) {
    if queue.len() >= MAX_QUEUED {
        queue.pop_front();
    }
    queue.push_back(one);
}
