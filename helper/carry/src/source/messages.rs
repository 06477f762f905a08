//! What the destination says. Another host's process said it: it moves nothing that this host's own look has to show.

use super::{Action, Phase, Source, Stream, Sync};
use crate::message::{CarryCause, Message, VERSIONS, Versions, agree};

const NOTHING_GIVEN: Message = Message::Abort {
    cause: CarryCause::NothingGiven,
};

impl Source {
    pub(super) fn hear(&mut self, message: Message) {
        if message == NOTHING_GIVEN {
            self.nothing_was_given();
        }
        if self.stream == Stream::Over {
            return;
        }
        match message {
            Message::Hello { versions } if self.stream == Stream::Greeting => self.greet(versions),
            _ if self.stream == Stream::Greeting => self.stream_over(CarryCause::Foreign),
            Message::Resumed => {
                self.resumed_ms.get_or_insert(self.now_ms);
            }
            Message::SyncRequest if self.sync == Sync::NotAsked => {
                self.sync = Sync::Straggling {
                    until_ms: self.now_ms.saturating_add(self.limits.straggle_ms),
                };
            }
            Message::Ack { number } if number <= self.last_number => {
                self.counts.confirmed = self.counts.confirmed.max(number);
            }
            Message::Done { .. } if self.has_said_its_last() => self.peer_done = true,
            Message::Abort { .. } => self.stream_over(CarryCause::OtherHalf),
            _ => self.stream_over(CarryCause::Foreign),
        }
    }

    /// The destination has left all that was sent. What is kept here still goes to the network in its place; what is not, as
    /// [`Message::HandOver`] crossed that word, is lost.
    const fn nothing_was_given(&mut self) {
        self.peer_gave_nothing = true;
        self.counts.abandoned += self.counts.carried;
        self.counts.carried = 0;
    }

    fn greet(&mut self, versions: Versions) {
        match agree(VERSIONS, versions) {
            Ok(_) => self.stream = Stream::Agreed,
            Err(_) => self.stream_over(CarryCause::NoCommonVersion),
        }
    }

    /// [`Message::Done`] or [`Message::Abort`].
    const fn has_said_its_last(&self) -> bool {
        matches!(
            self.phase,
            Phase::Closing { .. } | Phase::Drain { .. } | Phase::Ended
        )
    }

    /// Nothing more can be sent. What that means depends on whether the guest can still get its frames here.
    pub(super) fn stream_over(&mut self, cause: CarryCause) {
        if self.stream == Stream::Over {
            return;
        }
        self.stream = Stream::Over;
        self.stream_over_ms = self.now_ms;
        self.says.clear();
        match self.phase {
            Phase::Pass => {
                self.cause.get_or_insert(cause);
                self.act(Action::Detach);
                self.end();
            }
            Phase::Hold { .. } => self.give_back(cause),
            // Whether the guest stands still by now, the hypervisor tells.
            Phase::Stopping { .. } | Phase::Stopped { .. } => {
                self.cause.get_or_insert(cause);
            }
            Phase::Closing { .. } => {
                if !self.peer_done {
                    self.cause.get_or_insert(cause);
                }
                self.end();
            }
            Phase::Drain { .. } | Phase::Ended => {}
        }
    }
}
