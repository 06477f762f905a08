//! What each input changes, and what follows from the state after it.

use super::{Action, Input, Phase, Source, Stream, Sweep, Sync};
use crate::frame::Frame;
use crate::message::{CarryCause, Message};
use crate::queue::{Waiting, has_room};

impl Source {
    pub(super) fn learn(&mut self, input: Input) {
        match input {
            Input::Tick => {}
            Input::Message(message) => self.hear(message),
            Input::StreamEnded => {
                self.stream_over(CarryCause::StreamEnded);
                self.says.clear();
            }
            Input::DestinationDied => self.peer_died = true,
            Input::HoldWanted => {
                if self.can_hold() {
                    self.hold();
                }
            }
            Input::Drained => self.order_stop(),
            Input::StopRefused => {
                self.stop_unknown = false;
                if matches!(self.phase, Phase::Hold { .. } | Phase::Stopping { .. }) {
                    self.give_back(CarryCause::StopRefused);
                }
            }
            Input::GuestStopped => self.stopped(),
            Input::MigrationCompleted => self.completed(),
            Input::MigrationFailed => self.migration_failed(),
            Input::GuestRuns => {
                // Who would have ordered the stop is gone too.
                self.stop_unknown = false;
                let alone = self.stream == Stream::Over;
                if self.is_stopped() || matches!(self.phase, Phase::Stopping { .. } if alone) {
                    self.give_back(CarryCause::MigrationFailed);
                }
            }
            Input::Frame(frame) => self.frame(frame),
            Input::Left(frame) => self.left(frame),
            Input::Swept => {
                if self.sweep == Sweep::Sweeping {
                    self.sweep = Sweep::Done;
                }
            }
            Input::Dry => {
                if self.sync == Sync::Reading {
                    self.sync = Sync::Answered;
                    let last = self.last_number;
                    self.say(Message::Sync { last });
                }
            }
            Input::Passing => {
                if let Phase::Drain { passing, .. } = &mut self.phase {
                    *passing = true;
                }
            }
        }
    }

    /// Whatever is due now.
    pub(super) fn proceed(&mut self) {
        let now_ms = self.now_ms;
        let due = |since_ms: u64, ms: u64| now_ms >= since_ms.saturating_add(ms);
        match self.phase {
            Phase::Hold { since_ms } if due(since_ms, self.limits.drain_ms) => self.order_stop(),
            Phase::Stopping { since_ms } if due(since_ms, self.stop_limit_ms()) => {
                self.look_for_stop();
            }
            Phase::Stopped { since_ms } => {
                self.hand_over();
                self.answer();
                if self.has_no_destination() {
                    self.forward(since_ms);
                } else if due(since_ms, self.limits.forward_ms) {
                    self.too_late();
                } else if self.quiet_at_ms().is_some_and(|quiet| now_ms >= quiet) {
                    self.close();
                }
            }
            Phase::Closing { since_ms } => {
                if self.peer_done {
                    self.end();
                } else if now_ms >= self.closes_until_ms(since_ms) {
                    self.cause.get_or_insert(CarryCause::OtherHalf);
                    self.end();
                }
            }
            Phase::Drain { since_ms, passing } => {
                let all_given = passing && self.giving.is_empty() && !self.stop_unknown;
                if all_given || due(since_ms, self.limits.forward_ms) {
                    self.act(Action::Detach);
                    self.end();
                }
            }
            _ => {}
        }
    }

    fn hold(&mut self) {
        let since_ms = self.now_ms;
        self.phase = Phase::Hold { since_ms };
        self.act(Action::Hold);
        self.say(Message::Hold);
    }

    fn order_stop(&mut self) {
        if let Phase::Hold { since_ms } = self.phase {
            self.phase = Phase::Stopping { since_ms };
            self.stop_ordered = true;
            self.act(Action::StopGuest);
        }
    }

    /// It held for as long as it may: what is given back to a guest that stands still is lost, so it asks once.
    fn look_for_stop(&mut self) {
        if self.stop_asked {
            return self.give_back(CarryCause::HoldTooLong);
        }
        self.stop_asked = true;
        self.act(Action::AskGuest);
        let since_ms = self.now_ms;
        self.phase = Phase::Stopping { since_ms };
    }

    /// The stop is known of too late: what was given back waits in the tap's queue, of a guest that does not take it, and comes from
    /// there once more. The other half was told that the guest stays.
    fn stopped_after_all(&mut self) {
        if !self.stop_unknown {
            return;
        }
        self.stop_unknown = false;
        if !self.can_forward {
            return;
        }
        // Nothing more is sent, but for what is to be said.
        self.stream = Stream::Over;
        self.stream_over_ms = self.now_ms;
        for (after, _) in &mut self.says {
            *after = 0;
        }
        self.actions.retain(|action| *action != Action::Pass);
        self.act(Action::Hold);
        self.giving.move_to(&mut self.kept);
        self.may_be_swept = self.counts.given_back;
        self.phase = Phase::Stopped {
            since_ms: self.now_ms,
        };
        self.sweep = Sweep::Sweeping;
        self.act(Action::Sweep);
    }

    fn stopped(&mut self) {
        match self.phase {
            Phase::Drain { .. } => return self.stopped_after_all(),
            // Somebody else's stop, such as the hypervisor's own.
            Phase::Pass if self.can_hold() => self.hold(),
            Phase::Hold { .. } | Phase::Stopping { .. } => {}
            _ => return,
        }
        let since_ms = self.now_ms;
        self.phase = Phase::Stopped { since_ms };
        let ours = self.stop_ordered;
        // At once, as it is to be known whatever dies next.
        self.say_after(0, Message::Stopped { ours });
        self.sweep = Sweep::Sweeping;
        self.act(Action::Sweep);
    }

    fn completed(&mut self) {
        // The guest had to stop for that.
        self.stopped();
        match self.phase {
            Phase::Stopped { .. } => {
                if !self.committed {
                    self.committed = true;
                    self.committed_ms = self.now_ms;
                }
                self.release();
            }
            Phase::Pass => self.nothing_to_carry(CarryCause::OtherHalf),
            _ => {}
        }
    }

    /// It ends before anything was held.
    fn nothing_to_carry(&mut self, cause: CarryCause) {
        self.cause.get_or_insert(cause);
        self.say(Message::Abort { cause });
        self.act(Action::Detach);
        self.end();
    }

    fn migration_failed(&mut self) {
        match self.phase {
            Phase::Pass => self.nothing_to_carry(CarryCause::MigrationFailed),
            Phase::Drain { .. } if self.stop_unknown => {
                self.stop_unknown = false;
                self.act(Action::ResumeGuest);
            }
            Phase::Hold { .. } => self.give_back(CarryCause::MigrationFailed),
            // The stop may still come.
            Phase::Stopping { .. } => {
                self.act(Action::ResumeGuest);
                self.give_back(CarryCause::MigrationFailed);
            }
            // Frames are kept until the guest runs again.
            _ if self.stop_ordered && !self.committed => self.act(Action::ResumeGuest),
            _ => {}
        }
    }

    fn frame(&mut self, frame: Frame) {
        if self.is_own(&frame) {
            return;
        }
        match self.phase {
            // The guest is where the network brings it that itself.
            Phase::Closing { .. } | Phase::Ended if self.committed && frame.is_group() => {
                self.counts.left_to_the_network += 1;
            }
            Phase::Closing { .. } | Phase::Ended => self.counts.abandoned += 1,
            Phase::Pass | Phase::Drain { .. } => self.back(frame),
            Phase::Hold { .. } | Phase::Stopping { .. } if !self.keeps(&frame) => {
                self.give_back(CarryCause::TooMuch);
                self.back(frame);
            }
            _ if frame.is_group() && (self.sync == Sync::Answered || self.has_no_destination()) => {
                self.counts.left_to_the_network += 1;
            }
            _ if !self.keeps(&frame) => self.counts.over_limit += 1,
            _ => self.keep(frame),
        }
    }

    /// The guest had left it in the tap's queue: it goes before those that were held.
    fn left(&mut self, frame: Frame) {
        self.counts.swept += 1;
        if self.may_be_swept > 0 {
            // It was given back in vain.
            self.may_be_swept -= 1;
            self.counts.given_back -= 1;
            self.counts.held -= 1;
        }
        if self.is_own(&frame) {
            return;
        }
        match self.sweep {
            Sweep::Sweeping if self.is_stopped() && self.keeps(&frame) => {
                self.keep_at(self.swept, frame);
                self.swept += 1;
            }
            _ if matches!(self.phase, Phase::Pass | Phase::Drain { .. }) => self.back(frame),
            _ if self.phase == Phase::Ended => self.counts.abandoned += 1,
            _ => self.counts.over_limit += 1,
        }
    }

    /// Counts the frame; true if the guest itself has sent it.
    fn is_own(&mut self, frame: &Frame) -> bool {
        let is_own = self.own.contains(&frame.source());
        self.counts.held += 1;
        self.counts.own += u64::from(is_own);
        if is_own && self.may_be_elsewhere() {
            self.heard_ms.get_or_insert(self.now_ms);
        }
        is_own
    }

    /// It stands still here, or nobody is left who would tell that at once: the guest's announcements may be over when it is known.
    const fn may_be_elsewhere(&self) -> bool {
        let untold = matches!(self.phase, Phase::Stopping { .. }) && !self.is_alone;
        self.is_stopped() || self.stop_unknown || untold && matches!(self.stream, Stream::Over)
    }

    fn keeps(&self, frame: &Frame) -> bool {
        has_room(&self.limits, self.kept.len(), self.kept.bytes(), frame)
    }

    fn keep(&mut self, frame: Frame) {
        let last = self.kept.len();
        self.keep_at(last, frame);
    }

    /// Its number is its place.
    fn keep_at(&mut self, index: usize, frame: Frame) {
        self.last_frame_ms = self.now_ms;
        self.last_number += 1;
        self.kept.insert(index, 0, self.now_ms, frame);
        self.counts.most_bytes = self.counts.most_bytes.max(self.kept.bytes());
    }

    /// One more frame on its way back. What was kept before may fill its bound: as much again may follow.
    fn back(&mut self, frame: Frame) {
        let (frames, bytes) = (self.giving.len() / 2, self.giving.bytes() / 2);
        if has_room(&self.limits, frames, bytes, &frame) {
            self.giving.push(Waiting {
                number: 0,
                since_ms: self.now_ms,
                frame,
            });
        } else {
            self.counts.over_limit += 1;
        }
    }

    /// The destination may give what it has once the guest runs there, and all that was swept is before it.
    fn hand_over(&mut self) {
        if self.resumed_ms.is_some() && !self.hands_over && self.has_sent_swept() {
            self.hands_over = true;
            self.say_after(0, Message::HandOver);
        }
    }

    fn answer(&mut self) {
        if self
            .answer_due_ms()
            .is_some_and(|due_ms| self.now_ms >= due_ms)
        {
            self.sync = Sync::Reading;
            self.act(Action::ReadDry);
        }
    }

    /// The guest gets everything here, in order: what was held, then what comes until frames pass again.
    pub(super) fn give_back(&mut self, cause: CarryCause) {
        self.cause.get_or_insert(cause);
        self.say(Message::Abort { cause });
        self.end_sweep();
        self.kept.move_to(&mut self.giving);
        (self.swept, self.swept_sent, self.held_sent) = (0, 0, 0);
        self.act(Action::Pass);
        let is_known = matches!(cause, CarryCause::StopRefused | CarryCause::MigrationFailed);
        self.stop_unknown =
            matches!(self.phase, Phase::Stopping { .. }) && self.stop_ordered && !is_known;
        self.phase = Phase::Drain {
            since_ms: self.now_ms,
            passing: false,
        };
    }

    /// Nothing is to be read from the queue any more.
    fn end_sweep(&mut self) {
        self.actions.retain(|action| *action != Action::Sweep);
        self.sweep = Sweep::Done;
    }

    /// The time limit of everything is over, and the network not quiet.
    fn too_late(&mut self) {
        if self.committed {
            if self.resumed_ms.is_none() {
                self.cause.get_or_insert(CarryCause::NeverResumed);
            }
            self.close();
        } else {
            self.give_back(CarryCause::NeverResumed);
        }
    }

    fn close(&mut self) {
        self.end_sweep();
        self.act(Action::Detach);
        let last = self.last_number;
        self.say(Message::Done { last });
        self.phase = Phase::Closing {
            since_ms: self.now_ms,
        };
    }

    pub(super) fn end(&mut self) {
        self.end_sweep();
        if self.committed && !self.peer_gave_nothing {
            self.drop_sent();
        }
        self.forwards = false;
        self.counts.abandoned += self.kept.clear() + self.giving.clear();
        (self.swept, self.swept_sent, self.held_sent) = (0, 0, 0);
        self.phase = Phase::Ended;
    }
}
