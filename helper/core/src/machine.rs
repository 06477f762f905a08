//! The whole interface of the core: inputs go in, outputs and a status come out.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::bond::context::Context;
use crate::bond::history::attempts::DeviceMark;
use crate::bond::memory::{Executing, Memory};
use crate::bond::turn;
use crate::bond::view::BondView;
use crate::model::action::ActionKind;
use crate::model::fast_path::{FastPath, PortFrames};
use crate::model::input::{Command, Hold, Input, Outcome};
use crate::model::output::{CommandError, CommandErrorCode, Event, Output};
use crate::model::policy::{HostMay, Ownership, Policy};
use crate::model::source::Source;
use crate::model::status::{BondStatus, Status};
use crate::model::types::{ActionId, IfName, Ifindex, Time};
use crate::outbox::Outbox;
use crate::plan::effect;
use crate::report::bond::bond_status;
use crate::report::problems::general_problems;
use crate::report::{news, refusal};
use crate::step::{ACTION_TIMEOUT_MS, step};
use crate::world::World;
use crate::world::matching::{Assignment, assign};
use crate::world::readings::Readings;

/// Commands that may be open at once, of all bonds together.
pub const MAX_OPEN_COMMANDS: usize = 16;
/// Longest text about the configuration's files that is kept, in characters.
const MAX_REFUSAL_CHARS: usize = 1_000;

/// Decides. Holds no resource, so that it can be dropped and started at any time.
#[derive(Debug)]
pub struct Machine {
    world: World,
    policy: Policy,
    host_may: HostMay,
    /// One for each bond of the policy.
    bonds: Vec<Memory>,
    recalled: Vec<Hold>,
    /// Why the configuration's files are not in effect.
    files_refused: Option<String>,
    /// Whose NICs were given back to their network manager, and why.
    nics_given_back: Option<String>,
    readings: Readings,
    outbox: Outbox,
    status: Status,
    deadline: Option<Time>,
    now: Time,
}

impl Machine {
    /// A machine that knows nothing yet; its first actions ask for links and addressing.
    pub fn new(now: Time) -> Self {
        let mut machine = Self {
            world: World::default(),
            policy: Policy::default(),
            host_may: HostMay::default(),
            bonds: Vec::new(),
            recalled: Vec::new(),
            files_refused: None,
            nics_given_back: None,
            readings: Readings::default(),
            outbox: Outbox::default(),
            status: Status::default(),
            deadline: None,
            now,
        };
        machine.readings.request(Source::Links);
        machine.readings.request(Source::Addressing);
        machine.proceed();
        machine
    }

    /// Learns something at the moment `now`, and decides anew. A policy that
    /// [`Policy::validate`] refuses changes nothing; the shell validates it before.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        self.apply(input);
        self.proceed();
    }

    /// The next thing to do, to say or to answer; to be fetched after each
    /// [`Machine::handle`] until there is none.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outbox.pop()
    }

    /// When to hand in [`Input::Tick`] if nothing else comes before; always later
    /// than the last moment handed in.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadline
    }

    /// What is so and why.
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Promises to keep over a restart of the service, for [`Input::Recall`].
    pub fn holds(&self) -> Vec<Hold> {
        let bonds = self.policy.bonds.iter().zip(&self.bonds);
        let holds = bonds.map(|(policy, memory)| Hold {
            bond: policy.name.clone(),
            operator: memory.operator_hold,
            prepared: memory.prepared.first().copied(),
            also_prepared: memory.prepared.iter().skip(1).copied().collect(),
            draining: memory.draining && policy.ownership == Ownership::Adopt,
            rewritten: memory.rewritten.clone(),
        });
        holds.filter(|hold| !hold.is_nothing()).collect()
    }

    fn apply(&mut self, input: Input) {
        let now = self.now;
        match input {
            Input::Policy(policy) => self.set_policy(policy),
            Input::HostMay(what) => self.host_may = what,
            Input::FilesRefused(why) => {
                self.files_refused = why.map(|why| why.chars().take(MAX_REFUSAL_CHARS).collect());
            }
            Input::NicsGivenBack(why) => {
                self.nics_given_back = why.map(|why| why.chars().take(MAX_REFUSAL_CHARS).collect());
            }
            Input::Links(links) => {
                self.world.replace_links(now, links);
                self.readings.arrived(Source::Links);
            }
            Input::Link(link) => self.world.put_link(now, link),
            Input::LinkGone { ifindex } => self.world.remove_link(ifindex),
            Input::Addressings(all) => {
                self.world.replace_addressings(now, all);
                self.readings.arrived(Source::Addressing);
            }
            Input::Addressing(one) => self.world.put_addressing(one),
            Input::WayOut(is_there) => self.world.put_way_out(is_there),
            Input::UpperDevices { bond, fingerprint } => {
                self.world.put_upper_devices(bond, fingerprint);
            }
            Input::Removal(removal) => self.world.warn(now, removal),
            Input::FastPathsLoading => self.world.await_fast_paths(now),
            Input::FastPathSupported(supported) => self.world.support_fast_path(supported),
            Input::FastPathSet { bond, fast_path } => self.world.put_fast_path(bond, fast_path),
            Input::FastPathTested {
                bond,
                blocked,
                passed_over,
            } => {
                self.world.put_blocked(bond, blocked);
                self.world.put_passing_over(bond, passed_over);
            }
            Input::ChainsChanged { link } => {
                let port = self.world.link(link);
                let bond = port.and_then(|port| port.controller).unwrap_or(link);
                if let Some(index) = self.place_of(bond) {
                    self.bonds[index].path.look_anew(now);
                }
            }
            Input::FramesCounted { bond, ports } => self.measured(bond, &ports),
            Input::PortTraffic(found) => {
                for (policy, memory) in self.policy.bonds.iter().zip(&mut self.bonds) {
                    let health_ms = policy.timing.health_ms;
                    memory.path.note_traffic(found, health_ms, now);
                }
            }
            Input::PathAsked { bond, port, answer } => {
                if let Some(index) = self.place_of(bond) {
                    let policy = &self.policy.bonds[index];
                    let ended = self.bonds[index].note_path_answer(policy, port, answer, now);
                    self.outbox.reply(ended);
                }
            }
            Input::CarrierLost { ifindex, at } => {
                for memory in &mut self.bonds {
                    memory.traffic.note_carrier_lost(ifindex, at);
                }
            }
            Input::Reacted(reaction) => {
                if let Some(index) = self.place_of(reaction.bond) {
                    self.bonds[index].traffic.note_reaction(reaction, now);
                }
            }
            Input::Lost(source) => {
                self.world.count_lost(source);
                self.readings.request(source);
            }
            Input::SourceHealth {
                source,
                health,
                parts,
            } => self.world.put_health(source, health, parts),
            Input::Command(command) => self.command(command),
            Input::Recall(holds) => self.recall(holds),
            Input::ClockJump { .. } => self.clock_jumped(),
            Input::Done { action, outcome } => self.done(action, &outcome),
            Input::Tick => {}
        }
    }

    fn set_policy(&mut self, policy: Policy) {
        if policy.validate().is_err() {
            return;
        }
        let before = core::mem::replace(&mut self.policy, policy);
        let memories = core::mem::take(&mut self.bonds);
        let mut before: Vec<_> = before.bonds.into_iter().zip(memories).collect();
        for bond in &self.policy.bonds {
            let place = before.iter().position(|(old, _)| old.name == bond.name);
            let hold = self.recalled.iter().find(|hold| hold.bond == bond.name);
            let mut memory = Memory::default();
            match (place, hold) {
                (Some(place), _) => memory = before.swap_remove(place).1,
                (None, Some(hold)) => memory.recall(hold),
                (None, None) => {}
            }
            self.bonds.push(memory);
        }
        for (bond, mut memory) in before {
            let message = format!("bond {} was removed from the configuration", bond.name);
            let code = CommandErrorCode::UnknownBond;
            self.outbox
                .reply(memory.commands.end(|_| true, code, message));
            let busy = memory.in_flight.map(|busy| busy.kind);
            if let Some(ActionKind::SetFastPath { bond, .. }) = busy {
                // Nobody waits for its end any more.
                self.world.doubt_fast_path(bond);
            }
        }
    }

    fn recall(&mut self, mut holds: Vec<Hold>) {
        holds.truncate(Policy::MAX_BONDS);
        if !self.world.links_known() {
            for (policy, memory) in self.policy.bonds.iter().zip(&mut self.bonds) {
                if let Some(hold) = holds.iter().find(|hold| hold.bond == policy.name) {
                    memory.recall(hold);
                }
            }
            self.world
                .recall(holds.iter().flat_map(Hold::known_vfs).collect());
        }
        self.recalled = holds;
    }

    /// After a migration or a long pause much may have happened unseen, and the
    /// network has to learn where the guest is.
    fn clock_jumped(&mut self) {
        for source in [Source::Links, Source::Addressing, Source::Udev] {
            self.readings.request(source);
        }
        for (policy, memory) in self.policy.bonds.iter().zip(&mut self.bonds) {
            let count = policy.timing.announcements;
            memory.traffic.announce(count, self.now);
        }
    }

    fn command(&mut self, command: Command) {
        let Command { id, request, .. } = command;
        if self.bonds.iter().any(|memory| memory.commands.contains(id)) {
            return;
        }
        let open: usize = self
            .bonds
            .iter()
            .map(|memory| memory.commands.0.len())
            .sum();
        let bond = if command.by_host && !self.host_may.allows_commands() {
            Err(CommandError::not_allowed())
        } else if open < MAX_OPEN_COMMANDS {
            self.named_bond(request.bond())
        } else {
            let message = format!("{open} commands are open; wait for their answers");
            Err(CommandError::new(CommandErrorCode::Busy, message))
        };
        let replies = match bond {
            Ok(index) => {
                let policy = &self.policy.bonds[index];
                self.bonds[index].accept(policy, id, &request, self.now)
            }
            Err(error) => Vec::from([(id, Err(error))]),
        };
        self.outbox.reply(replies);
    }

    fn named_bond(&self, name: Option<&IfName>) -> Result<usize, CommandError> {
        let bonds = &self.policy.bonds;
        match name {
            Some(name) => bonds
                .iter()
                .position(|bond| bond.name == *name)
                .ok_or_else(|| {
                    let message = format!("there is no bond {name} in the configuration");
                    CommandError::new(CommandErrorCode::UnknownBond, message)
                }),
            None if bonds.len() == 1 => Ok(0),
            None if bonds.is_empty() => {
                let message = "no bond is configured";
                Err(CommandError::new(CommandErrorCode::UnknownBond, message))
            }
            None => {
                let message = format!("name one of the {} bonds", bonds.len());
                Err(CommandError::new(CommandErrorCode::BondNotNamed, message))
            }
        }
    }

    fn done(&mut self, id: ActionId, outcome: &Outcome) {
        if self.readings.done(id, outcome) {
            return;
        }
        let now = self.now;
        if (self.bonds.iter_mut()).any(|memory| memory.path_ended(id, now)) {
            return;
        }
        let flying = |memory: &Memory| memory.in_flight.as_ref().is_some_and(|one| one.id == id);
        if let Some(index) = self.bonds.iter().position(flying) {
            self.finish(index, outcome);
        }
    }

    /// The place in the policy of the bond with this index.
    fn place_of(&self, bond: Ifindex) -> Option<usize> {
        let name = &self.world.link(bond)?.name;
        let bonds = &self.policy.bonds;
        bonds.iter().position(|policy| policy.name == *name)
    }

    /// Takes what was counted in a switchover.
    fn measured(&mut self, bond: Ifindex, ports: &[PortFrames]) {
        let Some(index) = self.place_of(bond) else {
            return;
        };
        let memory = &mut self.bonds[index];
        let asked = |busy: &&Executing| matches!(busy.kind, ActionKind::ReadFrames { .. });
        let Some(busy) = memory.in_flight.as_ref().filter(asked) else {
            return;
        };
        let asked_at = busy.issued_at;
        let measured = memory.traffic.note_frames(ports, asked_at, self.now);
        let bond = &self.policy.bonds[index].name;
        self.outbox
            .notify(measured.map(|switchover| Event::SwitchoverMeasured {
                bond: bond.clone(),
                switchover,
            }));
    }

    /// Judges the action that bond `index` waited for.
    fn finish(&mut self, index: usize, outcome: &Outcome) {
        let now = self.now;
        let world = &self.world;
        let memory = &mut self.bonds[index];
        let Some(Executing {
            kind,
            text,
            issued_at,
            ..
        }) = memory.in_flight.take()
        else {
            return;
        };
        match kind {
            ActionKind::Announce { .. } => {
                let timing = &self.policy.bonds[index].timing;
                memory
                    .traffic
                    .announced(timing.announcement_interval_ms, now);
            }
            ActionKind::ReadFrames { .. } => memory.traffic.measured(issued_at, now),
            _ => {}
        }
        if *outcome == Outcome::Accepted && effect::is_seen(world, &kind) {
            memory.network.note_done(world, &kind, now);
            memory.succeeded(&kind, &text, now);
            return;
        }
        let repeated = memory.attempts.failures(&kind) > 0;
        let silent = *outcome == Outcome::Accepted && repeated;
        let failure = refusal::failure(world, &kind, outcome)
            .or_else(|| silent.then(|| refusal::no_effect(world, &kind)));
        let mark = DeviceMark::of_action(world, &kind);
        memory.attempts.failed(&kind, failure, mark, now);
        memory.doubt_free(&kind);
        if !matches!(outcome, Outcome::Failed { .. }) {
            // What was believed of the device may be wrong.
            self.readings.request(Source::Links);
            self.readings.request(Source::Addressing);
        }
        if let ActionKind::SetFastPath { bond, .. } = kind {
            self.world.doubt_fast_path(bond);
        }
    }

    /// Decides what is next, for each bond and each source.
    fn proceed(&mut self) {
        let now = self.now;
        let assignments = assign(&self.world, &self.policy);
        self.expire(&assignments);
        self.release_fast_paths();
        let mut events = Vec::new();
        let mut bonds = Vec::new();
        let mut deadlines = Vec::new();
        let mut may_be_freed_untold = false;
        for (index, memory) in self.bonds.iter_mut().enumerate() {
            let view = BondView::new(&self.world, &self.policy.bonds[index], index, &assignments);
            may_be_freed_untold |= view.may_be_freed_untold();
            let turn = turn(&view, memory, now);
            events.extend(turn.events);
            self.outbox.reply(turn.replies);
            if view.standby_is_unread() {
                self.readings.require(Source::Addressing);
            }
            let deadline = step(&view, &turn.choice, memory, now, |kind| {
                self.outbox.act(kind)
            });
            deadlines.extend(deadline.into_iter().chain(memory.network.deadline(now)));
            deadlines.extend(memory.watch_path(&view, now, |kind| self.outbox.act(kind)));
            let context = Context {
                view: &view,
                choice: &turn.choice,
                memory,
                now,
            };
            bonds.push(bond_status(&context, self.policy.origin, deadline));
        }
        for vf in self.bonds.iter().flat_map(|memory| &memory.rewritten) {
            self.world.settle(vf);
        }
        let outbox = &mut self.outbox;
        self.readings
            .repeat(Source::Links, may_be_freed_untold, now);
        self.readings
            .start(now, |source| outbox.act(ActionKind::Observe { source }));
        deadlines.extend(self.readings.deadline().filter(|at| *at > now));
        self.deadline = deadlines.into_iter().min();
        self.publish(bonds, events);
    }

    /// Ends what took too long and forgets what did not happen.
    fn expire(&mut self, assignments: &[Assignment]) {
        let now = self.now;
        for index in 0..self.bonds.len() {
            let late = |busy: &Executing| now >= busy.issued_at.plus_ms(ACTION_TIMEOUT_MS);
            self.bonds[index].expire_path(now);
            if self.bonds[index].in_flight.as_ref().is_some_and(late) {
                self.finish(index, &Outcome::TimedOut);
            }
        }
        for assignment in assignments {
            let policy = &self.policy.bonds[assignment.bond];
            let warning = self.world.warning(assignment.ifindex);
            if warning.is_some_and(|one| now >= one.expires_at(policy)) {
                self.world.forget_warning(assignment.ifindex);
            }
        }
    }

    /// Has the fast-path programs let go of bonds that are gone or were taken out of the policy. That
    /// can't fail, so that nothing waits for it.
    fn release_fast_paths(&mut self) {
        for bond in self.world.stray_fast_paths(&self.policy) {
            let fast_path = FastPath::default();
            self.world.put_fast_path(bond, fast_path.clone());
            self.outbox.act(ActionKind::SetFastPath { bond, fast_path });
        }
    }

    /// Makes the new status the present one and tells what is new about it.
    fn publish(&mut self, bonds: Vec<BondStatus>, mut events: Vec<Event>) {
        let status = Status {
            generation: self.status.generation,
            policy: self.policy.origin,
            host_may: self.host_may,
            problems: general_problems(
                self.files_refused.as_deref(),
                self.nics_given_back.as_deref(),
            ),
            bonds,
            sources: self.world.sources().cloned().collect(),
        };
        let before = core::mem::replace(&mut self.status, status);
        events.extend(news::in_general(&before.problems, &self.status.problems));
        for bond in &self.status.bonds {
            let old = before.bonds.iter().find(|old| old.name == bond.name);
            events.extend(news::of_bond(old, bond));
        }
        if news::differs(before, &self.status) {
            self.status.generation += 1;
        }
        self.outbox.notify(events);
    }
}
