//! What happens: calls arrive, migrations go on, processes are killed, guests reboot.

use tandem_host::evacuate::{Action, ActionId, Failure, FailureKind, Input, Phase, Reply, Side};
use tandem_host::hypervisor::EventKind;

use crate::channel::Request;
use crate::script::Carry;
use crate::stage::Stage;

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A call reaches its host or the guest; whether the caller hears of it.
    Effect {
        process: usize,
        action: Action,
        answer: bool,
    },
    Answer {
        process: usize,
        action: ActionId,
        reply: Reply,
    },
    /// A request reaches the guest.
    Asked(Request),
    Event {
        side: Side,
        kind: EventKind,
    },
    MigrationEnded {
        process: usize,
        result: Result<(), Failure>,
    },
    /// A carry is over.
    Carried {
        process: usize,
    },
    Released {
        device: usize,
        releases: u32,
    },
    Migration,
    Outage {
        side: Side,
        length_ms: u64,
    },
    Abort {
        process: usize,
    },
    Kill {
        process: usize,
        pause_ms: u64,
    },
    Recover,
    /// `serve` has seen a record without an owner.
    TakeUp,
    Reboot,
    ShutDown,
    Second,
}

impl Stage {
    pub(crate) fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Effect {
                process,
                action,
                answer,
            } => {
                let id = action.id;
                self.world.caller_lives = answer && self.processes[process].is_alive;
                let reply = self.effect(process, action.kind);
                self.flush();
                if answer {
                    self.answer(process, id, reply);
                }
            }
            Happening::Answer {
                process,
                action,
                reply,
            } => self.answer(process, action, reply),
            Happening::Asked(request) => self.asked(&request),
            Happening::Event { side, kind } => {
                for process in 0..self.processes.len() {
                    let kind = kind.clone();
                    self.hand(process, Input::Event { side, kind });
                }
            }
            Happening::MigrationEnded { process, result } => {
                self.hand(process, Input::MigrationEnded(result));
            }
            Happening::Carried { process } => {
                self.hand(process, Input::Carried(Box::default()));
            }
            Happening::Released { device, releases }
                if releases != self.world.devices[device].releases => {}
            Happening::Released { device, .. } => {
                self.note(|| format!("the guest releases device {device}"));
                self.world.released(device);
            }
            Happening::Migration => self.migration(),
            Happening::Outage { side, length_ms } => {
                self.note(|| format!("the {} is down for {length_ms} ms", side.as_str()));
                self.world.outage(side, self.now_ms + length_ms);
                let back_ms = self.now_ms + length_ms;
                self.at(
                    back_ms,
                    Happening::Event {
                        side,
                        kind: EventKind::Lost,
                    },
                );
            }
            Happening::Abort { process } => {
                self.hit("abort", process);
                self.hand(process, Input::Abort);
            }
            Happening::Kill { process, pause_ms } => self.kill(process, pause_ms),
            Happening::Recover => self.recover(),
            Happening::TakeUp => self.take_up(),
            Happening::Reboot => self.reboot(),
            Happening::ShutDown => {
                self.note(|| "the guest powers off".into());
                self.world.shut_down();
            }
            Happening::Second => self.begin(),
        }
        self.flush();
    }

    /// The end of an action is told, and now and then once more, long after.
    pub(crate) fn answer(&mut self, process: usize, action: ActionId, reply: Reply) {
        if self.rng.chance(self.world.script.repeats) {
            let at_ms = self.now_ms + self.rng.below(20_000);
            let reply = reply.clone();
            self.at(
                at_ms,
                Happening::Answer {
                    process,
                    action,
                    reply,
                },
            );
        }
        if let Reply::Status(status) = &reply
            && self.processes[process].machine.phase() == Phase::Verify
        {
            self.processes[process].said_in_use =
                Some(!status.is_empty() && status.values().all(|one| one.vf_active));
        }
        self.hand(process, Input::Done { action, reply });
    }

    fn hit(&mut self, what: &str, process: usize) {
        let one = &self.processes[process];
        if one.is_alive && one.outcome.is_none() {
            let text = format!("{what} in {}", one.phase.as_str());
            self.hits.push(text.clone());
            self.note(|| text);
        }
    }

    fn kill(&mut self, process: usize, pause_ms: u64) {
        self.hit("kill", process);
        let one = &mut self.processes[process];
        if !one.is_alive || one.outcome.is_some() {
            return;
        }
        one.is_alive = false;
        let is_its = |migration: &crate::world::Migration| migration.owner == process;
        if self.world.migration.as_ref().is_some_and(is_its)
            && !self.world.script.migration_survives
        {
            self.world
                .fail_migration(FailureKind::Cancelled, "its client has gone");
        }
        self.at(self.now_ms + pause_ms, Happening::Recover);
    }

    fn reboot(&mut self) {
        self.note(|| "the guest reboots".into());
        self.world.booting_until_ms = self.now_ms + self.rng.between(3_000, 30_000);
        self.world.has_bond = false;
        self.boots += 1;
        for device in 0..self.world.devices.len() {
            self.world.devices[device].prepared = false;
            if self.world.devices[device].unplugging && self.rng.chance(500) {
                self.world.released(device);
            }
        }
        if let Some(side) = self.world.runs_on() {
            self.world.events.push((side, EventKind::Reboot));
        }
    }

    fn migration(&mut self) {
        if let Some(again_ms) = self.world.progress(self.now_ms) {
            self.at(again_ms, Happening::Migration);
        }
    }

    /// Sends what the world has to tell, in the disorder of the script.
    fn flush(&mut self) {
        let disorder = self.world.script.event_disorder;
        for (side, kind) in std::mem::take(&mut self.world.events) {
            if self.rng.chance(disorder) {
                continue;
            }
            for _ in 0..=u32::from(self.rng.chance(disorder)) {
                let late = self.rng.chance(disorder);
                let delay_ms = if late {
                    self.rng.below(20_000)
                } else {
                    self.rng.below(20)
                };
                let kind = kind.clone();
                self.at(self.now_ms + delay_ms, Happening::Event { side, kind });
            }
        }
        for (process, result) in std::mem::take(&mut self.world.ended) {
            let delay_ms = self.rng.below(300);
            let result = result.clone();
            self.at(
                self.now_ms + delay_ms,
                Happening::MigrationEnded { process, result },
            );
            if let Carry::Ends(after_ms) = self.world.script.carry {
                self.at(self.now_ms + after_ms, Happening::Carried { process });
            }
        }
    }
}
