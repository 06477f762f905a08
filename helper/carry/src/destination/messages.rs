//! What the source says. Another host's process said it: its frames are given to the guest as the network's are, and
//! it can neither fill this host's memory nor keep the tap closed for longer than the limits say.

use super::{Destination, Phase, Stream, Sync};
use crate::message::{CarryCause, Message, VERSIONS, Versions, agree};

impl Destination {
    pub(super) fn hear(&mut self, message: Message) {
        if self.stream == Stream::Over || self.phase == Phase::Ended {
            return;
        }
        match message {
            Message::Hello { versions } if self.stream == Stream::Greeting => self.greet(versions),
            _ if self.stream == Stream::Greeting => self.stream_over(CarryCause::Foreign),
            Message::Abort { .. } => self.aborted(),
            // Nothing else may follow.
            _ if self.source_done => self.stream_over(CarryCause::Foreign),
            Message::Hold => {
                self.began_ms.get_or_insert(self.now_ms);
            }
            Message::Stopped { ours } => {
                self.source_stopped = true;
                self.may_resume = ours;
                self.hold();
            }
            Message::Frame { number, frame } if number == self.last_number.wrapping_add(1) => {
                self.last_number = number;
                self.carried(number, frame);
            }
            Message::Left { number, frame }
                if number == self.last_number.wrapping_add(1) && self.may_be_left() =>
            {
                self.last_number = number;
                self.left(number, frame);
            }
            Message::HandOver if matches!(self.phase, Phase::Hold { .. }) => {
                self.handed_over = true;
            }
            Message::Sync { last } if last == self.last_number && self.handed_over => {
                if matches!(self.sync, Sync::Asked { .. }) {
                    self.read_dry();
                }
            }
            Message::Done { last } if last == self.last_number => self.source_done = true,
            _ => self.stream_over(CarryCause::Foreign),
        }
    }

    /// Before anything was given to the guest, after which nothing goes before that.
    const fn may_be_left(&self) -> bool {
        matches!(self.phase, Phase::Hold { .. }) && !self.handed_over
    }

    fn greet(&mut self, versions: Versions) {
        match agree(VERSIONS, versions) {
            Ok(_) => {
                self.stream = Stream::Agreed;
                // Known before there is a stop: the word of it may be lost with the stream.
                self.may_resume = true;
            }
            Err(_) => self.stream_over(CarryCause::NoCommonVersion),
        }
    }

    /// The guest stays at the source; unless it runs here, which the source can't know then.
    fn aborted(&mut self) {
        if self.runs_since_ms.is_some() {
            self.leave_what_may_be_given_back();
            return self.stream_over(CarryCause::OtherHalf);
        }
        self.cause.get_or_insert(CarryCause::OtherHalf);
        self.source_done = true;
        if matches!(self.phase, Phase::Closed | Phase::Hold { .. }) {
            self.open_at_once();
        }
    }

    /// Nothing more comes. Before the source has said that the guest stopped, it gives back what it held if the guest runs
    /// there: what has come of it must not be given here then, and waits until it is seen how the guest comes.
    pub(super) fn stream_over(&mut self, cause: CarryCause) {
        if self.stream == Stream::Over {
            return;
        }
        self.stream = Stream::Over;
        self.says.clear();
        if !self.source_done {
            self.cause.get_or_insert(cause);
        }
        if self.phase != Phase::Closed {
            return;
        }
        if self.seen_paused {
            self.hold();
        } else if self.first.is_empty() && self.giving.is_empty() {
            self.open_at_once();
        }
    }
}
