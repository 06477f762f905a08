//! Two hosts, a guest that migrates between them, and the halves of its carry.

use std::collections::BTreeMap;

use tandem_carry::{Destination, Frame, Source, destination, source};

use crate::network::{DESTINATION, GUEST, Network, SOURCE, id_of};
use crate::pipe::Pipe;
use crate::plan::{Fault, Plan};
use crate::rng::Rng;
use crate::tap::{Mode, Tap};

/// What the hypervisors will do, and when, in ms.
#[derive(Debug, Default)]
pub(crate) struct Hypervisor {
    pub(crate) stops_ms: Option<u64>,
    pub(crate) completes_ms: Option<u64>,
    pub(crate) runs_ms: Option<u64>,
    pub(crate) completed: bool,
    pub(crate) failed: bool,
    /// It has run there.
    pub(crate) arrived: bool,
    pub(crate) stop_was_ordered: bool,
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) rng: Rng,
    pub(crate) now_ms: u64,
    pub(crate) source: Option<Source>,
    pub(crate) destination: Option<Destination>,
    pub(crate) taps: [Tap; 2],
    /// To the source, to the destination.
    pub(crate) pipes: [Pipe; 2],
    pub(crate) network: Network,
    pub(crate) hypervisor: Hypervisor,
    /// The host where the guest runs.
    pub(crate) runs_at: Option<usize>,
    pub(crate) announced: bool,
    /// What a half hears later.
    pub(crate) notices: Vec<(u64, Notice)>,
    pub(crate) drained_told: bool,
    /// What the guest has got, in order.
    pub(crate) delivered: Vec<u64>,
    /// Copies of flooded frames that came once the network had been told: no half can know.
    pub(crate) excused: BTreeMap<u64, u32>,
    /// Until when the source half sweeps its tap's queue.
    pub(crate) sweeps_until_ms: Option<u64>,
    /// The guest ran again meanwhile, which the half could not know.
    pub(crate) swept_beside_guest: bool,
    /// The one frame that the source's hypervisor itself reads after the stop.
    pub(crate) taken: Option<Frame>,
    /// Frames lost outside of the halves.
    pub(crate) lost_elsewhere: u64,
    /// Of those that the source gave to the network, that the network did not take to the guest.
    pub(crate) forwarded_in_vain: u64,
    /// The guest ran when a half died.
    pub(crate) died_beside_guest: bool,
    pub(crate) history: Option<Vec<String>>,
}

/// What a half is told of its hypervisor.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    Source(source::Input),
    Destination(destination::Input),
}

impl World {
    pub(crate) fn new(seed: u64, with_history: bool) -> Self {
        let mut rng = Rng::new(seed);
        let plan = Plan::new(&mut rng);
        let mut world = Self {
            source: Some(
                Source::new(plan.limits, &[GUEST]).with_forwarding(plan.sweeps_ms.is_some()),
            ),
            destination: Some(Destination::new(plan.limits)),
            taps: [Tap::new(Mode::Pass), Tap::new(Mode::Closed)],
            pipes: [Pipe::default(), Pipe::default()],
            network: Network::new(&plan),
            hypervisor: Hypervisor::default(),
            runs_at: Some(SOURCE),
            announced: false,
            notices: Vec::new(),
            drained_told: false,
            delivered: Vec::new(),
            excused: BTreeMap::new(),
            sweeps_until_ms: None,
            swept_beside_guest: false,
            taken: None,
            lost_elsewhere: 0,
            forwarded_in_vain: 0,
            died_beside_guest: false,
            history: with_history.then(Vec::new),
            now_ms: 0,
            rng,
            plan,
        };
        world.note(|world| format!("{:?}", world.plan));
        world
    }

    pub(crate) fn note(&mut self, what: impl FnOnce(&Self) -> String) {
        if self.history.is_some() {
            let line = format!("{} ms: {}", self.now_ms, what(self));
            self.history.get_or_insert_default().push(line);
        }
    }

    pub(crate) fn step(&mut self, sends: bool) {
        self.now_ms += 1;
        self.strike();
        self.hypervise();
        if sends {
            self.network.send(&self.plan, &mut self.rng, self.now_ms);
        }
        self.network.learn(self.now_ms);
        self.deliver();
        self.hear_stream();
        self.hear_notices();
        self.run_source();
        self.run_destination();
        self.guest_reads();
    }

    fn strike(&mut self) {
        if self.now_ms != self.plan.fault_ms {
            return;
        }
        match self.plan.fault {
            Fault::SourceDies => self.source_dies(),
            Fault::DestinationDies => self.destination_dies(),
            Fault::StreamCut => {
                self.note(|_| "the stream is cut".into());
                self.lost_elsewhere += self.pipes[SOURCE].cut() + self.pipes[DESTINATION].cut();
            }
            Fault::MigrationFails => self.migration_fails(),
            Fault::OwnStop => {
                let stops_ms = self.hypervisor.stops_ms.get_or_insert(self.now_ms);
                *stops_ms = self.now_ms.min(*stops_ms);
            }
            Fault::Forged => self.forge(),
            _ => {}
        }
    }

    fn source_dies(&mut self) {
        // One that has ended has told what it knew.
        let Some(half) = self.source.take_if(|half| half.outcome().is_none()) else {
            return;
        };
        self.note(|_| "the source half dies".into());
        self.lost_elsewhere += half.pending() as u64;
        let holds = self.taps[SOURCE].mode == Mode::Hold;
        self.taps[SOURCE].let_go();
        self.pipes[DESTINATION].close();
        self.pipes[SOURCE].cut();
        self.died_beside_guest = self.runs_at == Some(SOURCE);
        if !self.plan.witness || self.hypervisor.failed {
            return;
        }
        if self.runs_at.is_none() {
            self.notice(Notice::Destination(destination::Input::SourceDied));
            self.follow_up();
        } else if holds && self.died_beside_guest {
            // What it had sent is of use only if the guest stops now.
            self.hypervisor.stop_was_ordered = true;
            let stops_ms = self.now_ms + self.plan.stop_ms;
            self.hypervisor.stops_ms.get_or_insert(stops_ms);
        }
    }

    /// Another half takes what nobody reads from the tap's queue, and what comes later.
    fn follow_up(&mut self) {
        let half = Source::new(self.plan.limits, &[GUEST])
            .with_forwarding(self.plan.sweeps_ms.is_some())
            .without_destination();
        self.source = Some(half);
        self.sweeps_until_ms = None;
        self.notice(Notice::Source(source::Input::GuestStopped));
        if self.hypervisor.completed {
            self.notice(Notice::Source(source::Input::MigrationCompleted));
        }
    }

    fn destination_dies(&mut self) {
        let Some(half) = self.destination.take_if(|half| half.outcome().is_none()) else {
            return;
        };
        self.note(|_| "the destination half dies".into());
        self.lost_elsewhere += half.pending() as u64;
        self.taps[DESTINATION].let_go();
        self.pipes[SOURCE].close();
        self.lost_elsewhere += self.pipes[DESTINATION].cut();
        self.died_beside_guest = self.runs_at.is_some();
        if self.plan.witness {
            self.notice(Notice::Source(source::Input::DestinationDied));
        }
    }

    fn deliver(&mut self) {
        for one in self.network.arrived(self.now_ms) {
            let id = id_of(&one.frame);
            let early = !self.announced;
            if one.host == SOURCE {
                let in_hand = self.source.as_ref().map_or(0, Source::pending);
                if self.taps[SOURCE].arrive(one.frame, false, in_hand) {
                    self.tell_source(source::Input::Passing);
                }
            } else {
                // Nor does a tap that is open for want of a carry, before the guest has come.
                let open = early && self.taps[DESTINATION].mode == Mode::Pass;
                if open || (one.flooded && !early) {
                    *self.excused.entry(id).or_default() += 1;
                }
                let in_hand = self.destination.as_ref().map_or(0, Destination::pending);
                if self.taps[DESTINATION].arrive(one.frame, early, in_hand) {
                    self.tell_destination(destination::Input::Opened);
                }
            }
        }
    }

    pub(crate) fn tell_source(&mut self, input: source::Input) {
        if let Some(half) = &mut self.source {
            half.handle(self.now_ms, input.clone());
            if !matches!(input, source::Input::Tick | source::Input::Frame(_)) {
                self.note(|_| format!("source: {input:?}"));
            }
        }
    }

    pub(crate) fn tell_destination(&mut self, input: destination::Input) {
        if let Some(half) = &mut self.destination {
            half.handle(self.now_ms, input.clone());
            let frequent = matches!(
                input,
                destination::Input::Tick | destination::Input::Native { .. }
            );
            if !frequent {
                self.note(|_| format!("destination: {input:?}"));
            }
        }
    }

    fn hear_notices(&mut self) {
        let now_ms = self.now_ms;
        let (now, later) = std::mem::take(&mut self.notices)
            .into_iter()
            .partition(|(due, _)| *due <= now_ms);
        self.notices = later;
        let now: Vec<(u64, Notice)> = now;
        for (_, notice) in now {
            match notice {
                Notice::Source(input) => self.tell_source(input),
                Notice::Destination(input) => self.tell_destination(input),
            }
        }
    }

    fn guest_reads(&mut self) {
        let Some(host) = self.runs_at else {
            if self.taken.is_none() && !self.hypervisor.arrived {
                self.taken = self.taps[SOURCE].ring.pop_front();
            }
            return;
        };
        if host == SOURCE {
            self.delivered.extend(self.taken.take().as_ref().map(id_of));
        }
        // Some at a time, so that the queue is not always empty.
        let most = if self.now_ms < self.plan.dozes_until_ms {
            1
        } else {
            12
        };
        let count = self.rng.between(1, most);
        for _ in 0..count {
            let Some(frame) = self.taps[host].ring.pop_front() else {
                break;
            };
            self.delivered.push(id_of(&frame));
        }
    }
}
