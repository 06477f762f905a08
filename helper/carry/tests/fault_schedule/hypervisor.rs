//! What the hypervisors do with the guest.

use tandem_carry::{Message, destination, source};

use crate::network::{DESTINATION, SOURCE};
use crate::plan::Fault;
use crate::tap::Mode;
use crate::world::{Notice, World};

impl World {
    pub(crate) fn hypervise(&mut self) {
        let now_ms = self.now_ms;
        if self.hypervisor.failed {
            return self.after_failure();
        }
        if now_ms == self.plan.hold_at_ms {
            self.tell_source(source::Input::HoldWanted);
        }
        // Nobody orders the stop any more: the hypervisor's own convergence comes in the end.
        if now_ms == self.plan.hold_at_ms + 90 {
            self.hypervisor.stops_ms.get_or_insert(now_ms);
        }
        if self.hypervisor.stops_ms.is_some_and(|ms| ms <= now_ms) && self.runs_at == Some(SOURCE) {
            self.note(|_| "the guest stops".into());
            self.runs_at = None;
            self.hypervisor.completes_ms = Some(now_ms + self.plan.device_ms);
            let known_ms = now_ms + self.plan.notice_ms + self.plan.stop_known_ms;
            let stopped = Notice::Source(source::Input::GuestStopped);
            self.notices.push((known_ms, stopped));
            if self.source.is_none() && self.plan.witness && self.hypervisor.stop_was_ordered {
                self.notice(Notice::Destination(destination::Input::SourceDied));
            }
        }
        if self.hypervisor.completes_ms == Some(now_ms) {
            self.note(|_| "the migration is complete".into());
            self.hypervisor.completed = true;
            self.notice(Notice::Source(source::Input::MigrationCompleted));
            if !self.hypervisor.stop_was_ordered {
                self.hypervisor.runs_ms = Some(now_ms + 1);
            }
        }
        if self.hypervisor.completed && !self.hypervisor.arrived {
            self.arrive();
        }
    }

    fn arrive(&mut self) {
        let now_ms = self.now_ms;
        if self.plan.fault == Fault::NeverResumes {
            return;
        }
        match self.hypervisor.runs_ms {
            Some(ms) if ms <= now_ms => {
                self.note(|_| "the guest runs at the destination".into());
                self.hypervisor.arrived = true;
                self.runs_at = Some(DESTINATION);
                self.announced = true;
                // The program sees the guest's first frame before the network does.
                if self.taps[DESTINATION].mode == Mode::Closed {
                    self.taps[DESTINATION].mode = Mode::Hold;
                }
                self.network.announced(&self.plan, now_ms, DESTINATION);
                self.notice(Notice::Destination(destination::Input::Announced));
                self.notice(Notice::Destination(destination::Input::GuestRuns));
            }
            Some(_) => {}
            None if self.destination.is_none() => self.hypervisor.runs_ms = Some(now_ms + 30),
            None if now_ms.is_multiple_of(5) => {
                self.tell_destination(destination::Input::GuestPaused);
            }
            None => {}
        }
    }

    pub(crate) fn migration_fails(&mut self) {
        if self.hypervisor.completed {
            return;
        }
        self.note(|_| "the migration fails".into());
        self.hypervisor.failed = true;
        self.notice(Notice::Source(source::Input::MigrationFailed));
        self.notice(Notice::Destination(destination::Input::MigrationFailed));
        if !self.hypervisor.stop_was_ordered && self.runs_at.is_none() {
            self.hypervisor.runs_ms = Some(self.now_ms + 3);
        }
    }

    fn after_failure(&mut self) {
        // A stop that was ordered before may still come.
        let stops = self.hypervisor.stops_ms.take_if(|ms| *ms <= self.now_ms);
        if stops.is_some() && self.runs_at == Some(SOURCE) && self.hypervisor.stop_was_ordered {
            self.runs_at = None;
            self.hypervisor.runs_ms.get_or_insert(self.now_ms + 5);
            self.notice(Notice::Source(source::Input::GuestStopped));
        }
        if self.hypervisor.runs_ms.is_some_and(|ms| ms <= self.now_ms) && self.runs_at.is_none() {
            self.note(|_| "the guest runs at the source again".into());
            self.runs_at = Some(SOURCE);
            self.notice(Notice::Source(source::Input::GuestRuns));
        }
    }

    /// Another host's process says something that it may not say then, or not at all.
    pub(crate) fn forge(&mut self) {
        let last = self.rng.below(200);
        let messages = [
            Message::Hold,
            Message::Stopped { ours: true },
            Message::Resumed,
            Message::HandOver,
            Message::SyncRequest,
            Message::Sync { last },
            Message::Done { last },
            Message::Ack { number: last },
            Message::Abort {
                cause: tandem_carry::CarryCause::TooMuch,
            },
        ];
        let at = self.rng.below(messages.len() as u64);
        let message = &messages[usize::try_from(at).expect("few")];
        let to = usize::try_from(self.rng.below(2)).expect("one of two");
        self.note(|_| format!("forged, to {to}: {message:?}"));
        self.pipes[to].send(self.now_ms, message);
    }

    pub(crate) fn notice(&mut self, notice: Notice) {
        self.notices
            .push((self.now_ms + self.plan.notice_ms, notice));
    }
}
