//! What each input changes, and what follows from the state after it.

use super::{Action, Destination, Input, Phase, Stream, Sync};
use crate::frame::Frame;
use crate::message::{CarryCause, Message};
use crate::queue::{Waiting, has_room};
use crate::twins::Twins;

/// As a number among the natives: maybe the copy of a carried one.
const MAYBE_TWIN: u64 = 1;

impl Destination {
    pub(super) fn learn(&mut self, input: Input) {
        match input {
            Input::Tick => {}
            Input::Message(message) => self.hear(message),
            Input::StreamEnded => {
                self.stream_over(CarryCause::StreamEnded);
                self.says.clear();
            }
            Input::SourceDied => self.source_died(),
            Input::GuestPaused => {
                self.seen_paused = true;
                self.arrived_ms.get_or_insert(self.now_ms);
                if self.stream == Stream::Over {
                    self.hold();
                }
                if self.may_resume && !self.failed {
                    self.act(Action::ResumeGuest);
                }
            }
            Input::MigrationFailed => {
                self.failed = true;
                self.actions.retain(|action| *action != Action::ResumeGuest);
            }
            Input::GuestRuns => {
                self.leave_to_the_source();
                self.hold();
                if self.runs_since_ms.is_none() {
                    self.runs_since_ms = Some(self.now_ms);
                    self.say(Message::Resumed);
                }
            }
            Input::Announced => {
                self.announced = true;
                self.arrived_ms.get_or_insert(self.now_ms);
                self.leave_to_the_source();
                self.hold();
            }
            Input::Native { frame, early } => self.native(frame, early),
            Input::Dry => {
                if self.sync == Sync::Reading {
                    self.release();
                }
            }
            Input::Opened => {
                if self.phase == Phase::Opening {
                    self.phase = Phase::Open;
                }
            }
        }
    }

    /// Whatever is due now.
    pub(super) fn proceed(&mut self) {
        match self.phase {
            Phase::Hold { since_ms } => self.wait(since_ms),
            Phase::Open => self.finish(),
            Phase::Closed | Phase::Opening | Phase::Ended => {}
        }
        if self.last_ms().is_some_and(|last| self.now_ms >= last) && self.phase != Phase::Ended {
            self.give_up(match self.runs_since_ms {
                Some(_) => CarryCause::OtherHalf,
                None => CarryCause::NeverResumed,
            });
        }
    }

    fn due(&self, since_ms: u64, ms: u64) -> bool {
        self.now_ms >= since_ms.saturating_add(ms)
    }

    /// Before it may open: waits for the guest, then for the first native frame, then for what comes before that.
    fn wait(&mut self, since_ms: u64) {
        let over = self.stream == Stream::Over || self.source_done;
        match (self.runs_since_ms, self.sync) {
            (None, _) if self.now_ms >= self.runs_until_ms(since_ms) => {
                if !self.source_done {
                    self.stream_over(CarryCause::NeverResumed);
                }
                self.read_dry();
            }
            // What it has it may give only if the source does not.
            (Some(runs_ms), _)
                if !self.has_all() && self.now_ms >= self.patient_until_ms(runs_ms) =>
            {
                let left = self.leave_what_may_be_given_back();
                self.stream_over(CarryCause::OtherHalf);
                if left {
                    // The last word, as the source can't tell otherwise whose they are.
                    let cause = CarryCause::NothingGiven;
                    self.says.push_back(Message::Abort { cause });
                }
                self.read_dry();
            }
            (Some(_), Sync::NotAsked | Sync::Asked { .. }) if over => self.read_dry(),
            (Some(runs_ms), Sync::NotAsked)
                // As long as carried frames come, the network has not learnt where the guest is.
                if self.native_came
                    || self.due(runs_ms.max(self.last_carried_ms), self.limits.settle_ms) =>
            {
                self.sync = Sync::Asked {
                    since_ms: self.now_ms,
                };
                self.say(Message::SyncRequest);
            }
            (_, Sync::Asked { since_ms }) if self.now_ms >= self.patient_until_ms(since_ms) => {
                self.cause.get_or_insert(CarryCause::OtherHalf);
                self.unanswered = true;
                self.read_dry();
            }
            _ => {}
        }
    }

    pub(super) fn read_dry(&mut self) {
        if matches!(self.sync, Sync::NotAsked | Sync::Asked { .. }) {
            self.sync = Sync::Reading;
            self.act(Action::ReadDry);
        }
    }

    /// The guest may get frames from the network here from now on.
    pub(super) fn hold(&mut self) {
        if self.phase == Phase::Closed {
            self.phase = Phase::Hold {
                since_ms: self.now_ms,
            };
            self.began_ms.get_or_insert(self.now_ms);
            self.act(Action::Hold);
        }
    }

    fn native(&mut self, frame: Frame, early: bool) {
        self.counts.native += 1;
        match self.phase {
            Phase::Ended => self.counts.abandoned += 1,
            Phase::Opening | Phase::Open => {
                self.give(0, frame);
            }
            Phase::Closed | Phase::Hold { .. } if self.has_room(&frame) => {
                let may_be_twin = early || frame.is_group();
                self.native_came |= !may_be_twin;
                self.natives.push(Waiting {
                    number: if may_be_twin { MAYBE_TWIN } else { 0 },
                    since_ms: self.now_ms,
                    frame,
                });
                self.measure();
            }
            Phase::Closed | Phase::Hold { .. } => self.counts.over_limit += 1,
        }
    }

    /// The carried frames stay the source's if it may have given them back: the stream had ended before anybody saw the guest
    /// stand still, and it comes without having been paused.
    fn leave_to_the_source(&mut self) {
        if self.phase == Phase::Closed && self.stream == Stream::Over && !self.seen_paused {
            self.leave_carried();
            self.twins.clear();
        }
    }

    /// The guest runs here, and the source has yet to say that it stood still there: that held for too long, perhaps, and has given
    /// back what it held before the guest left. True if it is left to the source.
    pub(super) fn leave_what_may_be_given_back(&mut self) -> bool {
        let leaves =
            matches!(self.phase, Phase::Hold { .. }) && !self.source_stopped && !self.has_all();
        if leaves {
            self.leave_carried();
        }
        leaves
    }

    fn leave_carried(&mut self) {
        let left = self.first.clear() + self.giving.clear();
        self.counts.left_to_the_source += left;
        self.counts.left_carried += left;
    }

    /// What it had sent is not given back there.
    fn source_died(&mut self) {
        if !self.source_done {
            self.hold();
        }
    }

    /// A frame that the guest had left in the source's queue: it goes before those that were held there.
    pub(super) fn left(&mut self, number: u64, frame: Frame) {
        self.counts.carried += 1;
        self.last_carried_ms = self.now_ms;
        if self.has_room(&frame) {
            self.remember(&frame);
            self.first.push(Waiting {
                number,
                since_ms: self.now_ms,
                frame,
            });
            self.measure();
        } else {
            self.counts.over_limit += 1;
        }
    }

    /// A frame from the source.
    pub(super) fn carried(&mut self, number: u64, frame: Frame) {
        self.began_ms.get_or_insert(self.now_ms);
        self.counts.carried += 1;
        self.last_carried_ms = self.now_ms;
        if self.phase == Phase::Ended {
            self.counts.abandoned += 1;
        } else if self.sync == Sync::Done && self.twins.take(&frame) {
            self.counts.twins += 1;
        } else if self.unanswered && self.sync == Sync::Done && frame.is_group() {
            self.counts.late_groups += 1;
        } else if self.give(number, frame.clone()) {
            if self.sync == Sync::Done {
                self.counts.late += 1;
            } else {
                self.remember(&frame);
            }
        }
    }

    /// False if there was no room for it.
    fn give(&mut self, number: u64, frame: Frame) -> bool {
        let has_room = self.has_room(&frame);
        if has_room {
            self.giving.push(Waiting {
                number,
                since_ms: self.now_ms,
                frame,
            });
            self.measure();
        } else {
            self.counts.over_limit += 1;
        }
        has_room
    }

    fn has_room(&self, frame: &Frame) -> bool {
        has_room(&self.limits, self.pending(), self.bytes(), frame)
    }

    fn bytes(&self) -> usize {
        self.first.bytes() + self.giving.bytes() + self.natives.bytes()
    }

    fn remember(&mut self, frame: &Frame) {
        if has_room(&self.limits, self.twins.len(), self.twins.bytes(), frame) {
            self.twins.add(frame);
        } else {
            self.forgot_some = true;
        }
    }

    fn measure(&mut self) {
        let bytes = self.bytes() + self.twins.bytes();
        self.counts.most_bytes = self.counts.most_bytes.max(bytes);
    }

    /// After the carried frames, the native ones that were not among them.
    fn release(&mut self) {
        self.sync = Sync::Done;
        // What came to both hosts before the stream ended, and did not come over it, the source gives: where that is dead, who
        // follows it finds a copy in the tap's queue.
        let source_gives = self.stream == Stream::Over && !self.source_done;
        let mut given = Twins::default();
        while let Some(waiting) = self.natives.pop() {
            let maybe_twin = waiting.number == MAYBE_TWIN;
            if maybe_twin && self.twins.take(&waiting.frame) {
                self.counts.twins += 1;
            } else if maybe_twin && self.forgot_some {
                // Most are twins, and none shall come twice.
                self.counts.over_limit += 1;
            } else if maybe_twin && source_gives && !waiting.frame.is_group() {
                self.counts.left_to_the_source += 1;
            } else {
                if maybe_twin && self.unanswered {
                    given.add(&waiting.frame);
                }
                self.giving.push(Waiting {
                    number: 0,
                    ..waiting
                });
            }
        }
        self.twins = given;
        self.phase = Phase::Opening;
        self.act(Action::Open);
    }

    /// Opens at once: the guest is at the source, which gives it what was carried. What the network has brought here is
    /// a copy of what it brought there, as nothing has told it of this place.
    pub(super) fn open_at_once(&mut self) {
        self.leave_carried();
        self.counts.left_to_the_source += self.natives.clear();
        self.twins.clear();
        self.sync = Sync::Done;
        self.phase = Phase::Opening;
        self.act(Action::Open);
        self.began_ms.get_or_insert(self.now_ms);
    }

    fn finish(&mut self) {
        let nothing_comes = self.stream == Stream::Over || self.source_done;
        if nothing_comes && self.first.is_empty() && self.giving.is_empty() {
            if let Some(number) = self.unacknowledged.take() {
                self.say(Message::Ack { number });
            }
            let last = self.last_number;
            self.say(Message::Done { last });
            self.end();
        }
    }

    fn give_up(&mut self, cause: CarryCause) {
        self.cause.get_or_insert(cause);
        self.say(Message::Abort { cause });
        self.end();
    }

    fn end(&mut self) {
        self.counts.abandoned += self.first.clear() + self.giving.clear() + self.natives.clear();
        self.twins.clear();
        self.phase = Phase::Ended;
        self.act(Action::Detach);
    }
}
