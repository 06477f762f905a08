//! What is done for each half, as the process around it does.

use tandem_carry::{Destination, Source, destination, source};

use crate::network::{DESTINATION, SOURCE};
use crate::pipe::Out;
use crate::plan::Fault;
use crate::tap::Mode;
use crate::world::{Notice, World};

impl World {
    pub(crate) fn hear_stream(&mut self) {
        for out in self.pipes[SOURCE].receive(self.now_ms) {
            self.tell_source(match out {
                Out::Message(message) => source::Input::Message(message),
                Out::End => source::Input::StreamEnded,
            });
        }
        for out in self.pipes[DESTINATION].receive(self.now_ms) {
            self.tell_destination(match out {
                Out::Message(message) => destination::Input::Message(message),
                Out::End => destination::Input::StreamEnded,
            });
        }
    }

    pub(crate) fn run_source(&mut self) {
        if self.source.is_none() {
            return;
        }
        // Read late now and then.
        if self.rng.chance(800) {
            self.read_source();
        }
        let drains = self.taps[SOURCE].mode == Mode::Hold && !self.drained_told;
        if drains && self.taps[SOURCE].ring.is_empty() {
            self.drained_told = true;
            self.tell_source(source::Input::Drained);
        }
        if self
            .source
            .as_ref()
            .and_then(Source::next_deadline)
            .is_some_and(|ms| ms <= self.now_ms)
        {
            self.tell_source(source::Input::Tick);
        }
        self.act_at_source();
        self.sweep();
        let in_hand = self.source.as_ref().map_or(0, Source::pending);
        if self.taps[SOURCE].opens(in_hand) {
            self.tell_source(source::Input::Passing);
            self.act_at_source();
        }
        for _ in 0..self.stream_takes() {
            let Some(message) = self.source.as_mut().and_then(Source::next_message) else {
                break;
            };
            let due_ms = self.now_ms + self.plan.stream_ms;
            self.pipes[DESTINATION].send(due_ms, &message);
        }
        if self.source.as_ref().is_some_and(Source::is_off_stream) {
            self.pipes[DESTINATION].close();
        }
    }

    /// How many messages go now.
    const fn stream_takes(&self) -> u64 {
        let [from_ms, for_ms] = self.plan.stream_stall_ms;
        let stalls = from_ms <= self.now_ms && self.now_ms < from_ms + for_ms;
        if self.now_ms.is_multiple_of(self.plan.stream_every_ms) && !stalls {
            self.plan.stream_takes
        } else {
            0
        }
    }

    fn sweep(&mut self) {
        let Some(until_ms) = self.sweeps_until_ms else {
            return;
        };
        if self.plan.sweeps_ms.is_some() {
            while let Some(frame) = self.taps[SOURCE].ring.pop_front() {
                self.swept_beside_guest |= self.runs_at == Some(SOURCE);
                self.tell_source(source::Input::Left(frame));
            }
        }
        if self.now_ms >= until_ms {
            self.end_sweep();
        }
    }

    fn end_sweep(&mut self) {
        if self.sweeps_until_ms.take().is_some() {
            self.tell_source(source::Input::Swept);
        }
    }

    fn read_source(&mut self) {
        while let Some((frame, _)) = self.taps[SOURCE].held.pop_front() {
            self.tell_source(source::Input::Frame(frame));
        }
    }

    fn act_at_source(&mut self) {
        let mut given = 0;
        while let Some(half) = &mut self.source {
            let takes = given < self.plan.tap_takes && self.taps[SOURCE].has_room();
            let action = if takes {
                half.next_action()
            } else {
                half.next_order()
            };
            let Some(action) = action else {
                return;
            };
            match action {
                source::Action::Inject(frame) => {
                    given += 1;
                    self.taps[SOURCE].inject(frame);
                }
                source::Action::Forward(frame) => {
                    given += 1;
                    self.forwarded_in_vain +=
                        u64::from(!self.network.forward(&self.plan, self.now_ms, frame));
                }
                action => {
                    self.note(|_| format!("source wants {action:?}"));
                    self.do_at_source(&action);
                }
            }
        }
    }

    fn do_at_source(&mut self, action: &source::Action) {
        match action {
            source::Action::Hold => self.taps[SOURCE].mode = Mode::Hold,
            source::Action::Pass => {
                self.end_sweep();
                self.taps[SOURCE].mode = Mode::Drain;
            }
            source::Action::StopGuest if self.plan.fault == Fault::StopRefused => {
                self.tell_source(source::Input::StopRefused);
            }
            source::Action::StopGuest if self.plan.witness && self.destination.is_none() => {
                self.tell_source(source::Input::StopRefused);
            }
            source::Action::StopGuest => {
                self.hypervisor.stop_was_ordered = true;
                let stops_ms = self.now_ms + self.plan.stop_ms;
                self.hypervisor.stops_ms.get_or_insert(stops_ms);
            }
            source::Action::AskGuest => {
                let stands_still = self.runs_at.is_none();
                if self.plan.answers {
                    self.notice(Notice::Source(if stands_still {
                        source::Input::GuestStopped
                    } else {
                        source::Input::StopRefused
                    }));
                }
            }
            source::Action::Sweep => {
                self.sweeps_until_ms = Some(self.now_ms + self.plan.sweeps_ms.unwrap_or(0));
            }
            source::Action::ResumeGuest => {
                self.end_sweep();
                self.hypervisor.runs_ms.get_or_insert(self.now_ms + 3);
            }
            source::Action::ReadDry => {
                self.read_source();
                self.tell_source(source::Input::Dry);
            }
            source::Action::Detach => self.taps[SOURCE].let_go(),
            source::Action::Inject(_) | source::Action::Forward(_) => {
                unreachable!("told apart before")
            }
        }
    }

    pub(crate) fn run_destination(&mut self) {
        if self.destination.is_none() {
            return;
        }
        if self.rng.chance(800) {
            self.read_destination();
        }
        let deadline = self
            .destination
            .as_ref()
            .and_then(Destination::next_deadline);
        if deadline.is_some_and(|ms| ms <= self.now_ms) {
            self.tell_destination(destination::Input::Tick);
        }
        self.act_at_destination();
        let in_hand = self.destination.as_ref().map_or(0, Destination::pending);
        if self.taps[DESTINATION].opens(in_hand) {
            self.tell_destination(destination::Input::Opened);
            self.act_at_destination();
        }
        for _ in 0..self.stream_takes() {
            let Some(message) = self
                .destination
                .as_mut()
                .and_then(Destination::next_message)
            else {
                break;
            };
            let due_ms = self.now_ms + self.plan.stream_ms;
            self.pipes[SOURCE].send(due_ms, &message);
        }
        if self
            .destination
            .as_ref()
            .is_some_and(Destination::is_off_stream)
        {
            self.pipes[SOURCE].close();
        }
    }

    fn read_destination(&mut self) {
        while let Some((frame, early)) = self.taps[DESTINATION].held.pop_front() {
            self.tell_destination(destination::Input::Native { frame, early });
        }
    }

    fn act_at_destination(&mut self) {
        let mut given = 0;
        while given < self.plan.tap_takes && self.taps[DESTINATION].has_room() {
            let Some(action) = self.destination.as_mut().and_then(Destination::next_action) else {
                return;
            };
            match action {
                destination::Action::Inject(frame) => {
                    given += 1;
                    self.taps[DESTINATION].inject(frame);
                }
                action => {
                    self.note(|_| format!("destination wants {action:?}"));
                    self.do_at_destination(&action);
                }
            }
        }
    }

    fn do_at_destination(&mut self, action: &destination::Action) {
        match action {
            destination::Action::Hold => self.taps[DESTINATION].mode = Mode::Hold,
            destination::Action::Open => self.taps[DESTINATION].mode = Mode::Drain,
            destination::Action::ResumeGuest => {
                self.hypervisor.runs_ms.get_or_insert(self.now_ms + 2);
            }
            destination::Action::ReadDry => {
                self.read_destination();
                self.tell_destination(destination::Input::Dry);
            }
            destination::Action::Detach => self.taps[DESTINATION].let_go(),
            destination::Action::Inject(_) => unreachable!("told apart before"),
        }
    }
}
