//! Who carried the traffic, why it moves, and how the network learns of it.

use alloc::vec::Vec;

use crate::fast_path::Reaction;
use crate::goal::goal;
use crate::input::RemovalStage;
use crate::memory::Memory;
use crate::memory::vfs::GoneVf;
use crate::status::{BondStatus, Event, Switchover, SwitchoverCause, Traffic};
use crate::types::{Ifindex, Time};
use crate::view::BondView;

/// A carrier that fails this shortly before its device vanishes failed because of that, in ms.
pub(super) const SAME_STORY_MS: u64 = 2_000;

/// History and timers of a bond's traffic.
#[derive(Debug, Default)]
pub(crate) struct TrafficMemory {
    seen: Seen,
    /// The last port that carried traffic.
    last: Option<Carrier>,
    /// The move that is under way.
    pub(crate) switchover: Option<PendingSwitchover>,
    announcements_left: u8,
    announce_at: Time,
    pub(super) settle_until: Option<Time>,
    pub(super) switchovers: Vec<Record>,
    count: u64,
    /// The counters of the last switchover are still to be read.
    pub(super) measuring: bool,
    /// What the fast path did for a switchover that is not seen yet.
    pub(super) reaction: Option<(Reaction, Time)>,
    /// The port that lost its carrier last, and when.
    carrier_lost: Option<(Ifindex, Time)>,
}

/// What was last seen of the bond.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Nothing yet.
    #[default]
    Never,
    /// That there is no such bond.
    Absent,
    /// This bond with this active port.
    Bond(Ifindex, Option<Ifindex>),
}

#[derive(Debug, Clone, Copy)]
struct Carrier {
    port: Ifindex,
    traffic: Traffic,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingSwitchover {
    pub(crate) target: Ifindex,
    pub(crate) cause: SwitchoverCause,
    decided_at: Time,
    requested: bool,
}

#[derive(Debug)]
pub(super) struct Record {
    /// The port that carried the traffic before.
    pub(super) from: Ifindex,
    /// The port that carries it now.
    pub(super) to: Ifindex,
    /// When the old port's driver began to stop, or it lost its carrier: what is sent after that goes nowhere.
    pub(super) stopped_at: Option<Time>,
    /// When the kernel began to send through the new port, though the old one was active.
    pub(super) redirected_at: Option<Time>,
    pub(super) switchover: Switchover,
}

impl TrafficMemory {
    /// Nothing has carried this bond's traffic since the service started.
    pub(crate) fn never_carried(&self) -> bool {
        self.last.is_none()
    }

    /// The port that carries the traffic, or did before it failed.
    pub(crate) fn last_port(&self) -> Option<Ifindex> {
        self.last.map(|carrier| carrier.port)
    }

    /// Who carries the traffic, as last seen.
    pub(crate) fn last_traffic(&self) -> Traffic {
        match self.seen {
            Seen::Bond(_, Some(_)) => self.last.map_or(Traffic::None, |last| last.traffic),
            Seen::Never | Seen::Absent | Seen::Bond(_, None) => Traffic::None,
        }
    }

    /// The last switchovers, oldest first.
    pub(crate) fn switchovers(&self) -> Vec<Switchover> {
        self.switchovers
            .iter()
            .map(|one| one.switchover.clone())
            .collect()
    }

    /// Switchovers since the service started.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// Tells the network again `count` times, from now on.
    pub(crate) fn announce(&mut self, count: u8, now: Time) {
        self.announcements_left = count;
        self.announce_at = now;
    }

    /// An announcement is due.
    pub(crate) fn announce_due(&self, now: Time) -> bool {
        self.announcements_left > 0 && now >= self.announce_at
    }

    /// One announcement was sent or failed; either way its turn is over.
    pub(crate) fn announced(&mut self, interval_ms: u64, now: Time) {
        self.announcements_left = self.announcements_left.saturating_sub(1);
        self.announce_at = now.plus_ms(interval_ms);
    }

    /// Nothing is left to be said or awaited of the last move.
    pub(crate) fn is_settled(&self, now: Time) -> bool {
        !self.measuring && self.is_calm(now)
    }

    /// The traffic stays where it is, was announced, and late frames had their time.
    pub(super) fn is_calm(&self, now: Time) -> bool {
        self.switchover.is_none()
            && self.announcements_left == 0
            && self.settle_until.is_none_or(|end| now >= end)
    }

    /// The port that the traffic has just left: frames may still arrive there.
    pub(crate) fn just_left(&self, now: Time) -> Option<Ifindex> {
        let recent = self.settle_until.is_some_and(|end| now < end);
        let last = self.switchovers.last().filter(|_| recent)?;
        Some(last.from)
    }

    /// The executor was asked to move the traffic to that port.
    pub(crate) fn requested(&mut self, port: Ifindex) {
        if let Some(switchover) = self.switchover.as_mut().filter(|one| one.target == port) {
            switchover.requested = true;
        }
    }

    /// Timers that run.
    pub(crate) fn deadlines(&self) -> Vec<Time> {
        let announce = (self.announcements_left > 0).then_some(self.announce_at);
        announce.into_iter().chain(self.settle_until).collect()
    }

    /// A link lost its carrier: the switchover away from it may have been seen already.
    pub(crate) fn note_carrier_lost(&mut self, port: Ifindex, at: Time) {
        self.carrier_lost = Some((port, at));
        if let Some(record) = self.last_from(port) {
            let failed = record.switchover.cause == SwitchoverCause::Carrier;
            let same_story = record.switchover.at.since_ms(at) < SAME_STORY_MS
                && at.since_ms(record.switchover.at) < SAME_STORY_MS;
            if failed && same_story {
                record.stopped_at.get_or_insert(at);
            }
        }
    }

    /// When a port that failed just now lost its carrier.
    fn failed_at(&self, port: Ifindex, now: Time) -> Option<Time> {
        let (_, at) = self.carrier_lost.filter(|(lost, _)| *lost == port)?;
        (now.since_ms(at) < SAME_STORY_MS).then_some(at)
    }

    /// It is known when a VF's driver began to stop, and how long that was after the warning.
    pub(crate) fn note_stop(&mut self, vf: Ifindex, stopped_at: Time, lead_us: u64) {
        if let Some(record) = self.last_from(vf) {
            let known = record.stopped_at.unwrap_or(stopped_at);
            record.stopped_at = Some(known.min(stopped_at));
            record.switchover.lead_us = Some(lead_us);
        }
    }

    /// A VF is gone: the switchover away from it may have to be told differently.
    pub(crate) fn note_gone(&mut self, gone: &GoneVf, now: Time) {
        let Some(record) = self.last_from(gone.ifindex) else {
            return;
        };
        let switchover = &mut record.switchover;
        switchover.warned_by = switchover.warned_by.or(gone.warned_by);
        switchover.lead_us = gone.lead_us.or(switchover.lead_us);
        let recent = now.since_ms(switchover.at) < SAME_STORY_MS;
        let guessed = switchover.cause == SwitchoverCause::Operator && switchover.took_us.is_none();
        if recent && (guessed || switchover.cause == SwitchoverCause::Carrier) {
            switchover.cause = match gone.warned_by {
                Some(_) => SwitchoverCause::Warned,
                None => SwitchoverCause::Abrupt,
            };
        }
    }

    pub(super) fn last_from(&mut self, port: Ifindex) -> Option<&mut Record> {
        let last = self.switchovers.last_mut();
        last.filter(|record| record.from == port)
    }

    fn push(&mut self, record: Record) {
        if self.switchovers.len() >= BondStatus::MAX_SWITCHOVERS {
            self.switchovers.remove(0);
        }
        self.switchovers.push(record);
    }
}

impl Memory {
    /// Compares who carries the traffic with who did and who should.
    pub(super) fn note_traffic(&mut self, view: &BondView<'_>, now: Time, events: &mut Vec<Event>) {
        let before = self.traffic.seen;
        let Some(bond) = view.bond() else {
            if view.world.links_known() {
                self.traffic.seen = Seen::Absent;
                self.traffic.last = None;
                self.traffic.switchover = None;
                self.traffic.announcements_left = 0;
                self.traffic.settle_until = None;
                self.traffic.measuring = false;
            }
            return;
        };
        let active = bond.facts.active;
        self.traffic.seen = Seen::Bond(bond.ifindex(), active);
        if before != self.traffic.seen
            && let Some(port) = active
        {
            // What was there when the service started is no news to the network.
            if before != Seen::Never {
                events.extend(self.note_move(view, port, now));
                let timing = &view.policy.timing;
                self.traffic.announce(timing.announcements, now);
                self.traffic.settle_until = Some(now.plus_ms(timing.settle_ms));
            }
            let traffic = view.traffic_of(active);
            self.traffic.last = Some(Carrier { port, traffic });
        }
        if active.is_none() {
            // There is nothing to announce through; the next active port starts anew.
            self.traffic.announcements_left = 0;
        }
        self.note_goal(view, now);
    }

    fn note_goal(&mut self, view: &BondView<'_>, now: Time) {
        let wanted = goal(view, self, now).filter(|goal| view.active() != Some(goal.port));
        let same = |switchover: &PendingSwitchover, port| switchover.target == port;
        self.traffic.switchover = wanted.map(|goal| {
            let before = self.traffic.switchover.filter(|one| same(one, goal.port));
            before.unwrap_or(PendingSwitchover {
                target: goal.port,
                cause: goal.cause,
                decided_at: now,
                requested: false,
            })
        });
    }

    fn note_move(&mut self, view: &BondView<'_>, to: Ifindex, now: Time) -> Option<Event> {
        let from = self.traffic.last.filter(|last| last.port != to)?;
        let decided = self
            .traffic
            .switchover
            .filter(|switchover| switchover.target == to);
        let traffic = view.traffic_of(Some(to));
        let cause = decided.map_or_else(
            || self.guess_cause(view, from.port, traffic),
            |switchover| switchover.cause,
        );
        if decided.is_none() {
            // The kernel or somebody else knows something that was not told.
            self.vfs.doubt(from.port, now);
        }
        let gone = self.vfs.gone(from.port);
        let warning = view.port(from.port).and_then(|port| port.warning);
        let reaction = self.traffic.take_reaction(now);
        let reaction = reaction.filter(|_| from.traffic == Traffic::Vf);
        self.traffic.count += 1;
        let failed_at = self.traffic.failed_at(from.port, now);
        let switchover = Switchover {
            number: self.traffic.count,
            at: now,
            from: from.traffic,
            to: traffic,
            cause,
            took_us: decided
                .filter(|switchover| switchover.requested)
                .map(|switchover| now.since_us(switchover.decided_at)),
            lead_us: gone.and_then(|gone| gone.lead_us),
            warned_by: gone
                .and_then(|gone| gone.warned_by)
                .or(warning.map(|warning| warning.first)),
            reaction_us: reaction.and_then(|reaction| reaction.requested_us),
            gap: None,
        };
        let fast_path = view
            .bond()
            .and_then(|bond| view.world.fast_path(bond.ifindex()));
        self.traffic.measuring = fast_path.is_some_and(|fast_path| fast_path.ports.contains(&to));
        let armed_vf = fast_path.and_then(|fast_path| fast_path.armed_vf.as_ref());
        let redirected = armed_vf.is_some_and(|one| one.vf == from.port && one.standby == to);
        self.traffic.push(Record {
            from: from.port,
            to,
            stopped_at: gone
                .and_then(|gone| gone.stopped_at)
                .or(warning.and_then(|warning| warning.stopping_at))
                .or(failed_at.filter(|_| cause == SwitchoverCause::Carrier)),
            redirected_at: warning
                .filter(|warning| redirected && warning.first > RemovalStage::ButtonCancelled)
                .map(|warning| warning.first_at),
            switchover: switchover.clone(),
        });
        Some(Event::SwitchedOver {
            bond: view.policy.name.clone(),
            switchover,
        })
    }

    /// Why the kernel moved the traffic, or should have.
    pub(crate) fn guess_cause(
        &self,
        view: &BondView<'_>,
        from: Ifindex,
        to: Traffic,
    ) -> SwitchoverCause {
        let port = view.port(from);
        let failed = port.is_none_or(|port| !port.usable);
        if to == Traffic::Vf && !failed {
            return SwitchoverCause::Arrival;
        }
        match (port, self.vfs.gone(from)) {
            (Some(port), _) if self.is_prepared(port) => SwitchoverCause::Planned,
            (Some(port), _) if port.warning.is_some() => SwitchoverCause::Warned,
            // A device that goes is closed first.
            (Some(port), _) if !port.enslaved || !port.link.admin_up => SwitchoverCause::Abrupt,
            (Some(_), _) if failed => SwitchoverCause::Carrier,
            (Some(_), _) => SwitchoverCause::Operator,
            (None, Some(gone)) if gone.warned_by.is_some() => SwitchoverCause::Warned,
            // The policy no longer knows it.
            (None, _) if view.world.link(from).is_some() => SwitchoverCause::Operator,
            (None, _) => SwitchoverCause::Abrupt,
        }
    }
}
