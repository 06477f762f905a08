//! Who carried the traffic, why it moves, and how the network learns of it.

use alloc::vec::Vec;

use crate::goal::goal;
use crate::input::RemovalStage;
use crate::memory::Memory;
use crate::memory::vfs::GoneVf;
use crate::path::Reaction;
use crate::status::{BondStatus, Event, Handoff, HandoffCause, Traffic};
use crate::types::{Ifindex, Time};
use crate::view::View;

/// A carrier that fails this shortly before its device vanishes failed because of that, in ms.
pub(super) const SAME_STORY_MS: u64 = 2_000;

/// History and timers of a bond's traffic.
#[derive(Debug, Default)]
pub(crate) struct TrafficMemory {
    seen: Seen,
    /// The last port that carried traffic.
    last: Option<Carrier>,
    /// The move that is under way.
    pub(crate) switch: Option<Switch>,
    announcements_left: u8,
    announce_at: Time,
    pub(super) settle_until: Option<Time>,
    pub(super) handoffs: Vec<Record>,
    count: u64,
    /// The counters of the last handoff are still to be read.
    pub(super) measuring: bool,
    /// What the shortest way did for a handoff that is not seen yet.
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
pub(crate) struct Switch {
    pub(crate) target: Ifindex,
    pub(crate) cause: HandoffCause,
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
    pub(super) rescued_at: Option<Time>,
    pub(super) handoff: Handoff,
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

    /// The last handoffs, oldest first.
    pub(crate) fn handoffs(&self) -> Vec<Handoff> {
        self.handoffs
            .iter()
            .map(|one| one.handoff.clone())
            .collect()
    }

    /// Handoffs since the service started.
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
        self.switch.is_none()
            && self.announcements_left == 0
            && self.settle_until.is_none_or(|end| now >= end)
    }

    /// The port that the traffic has just left: frames may still arrive there.
    pub(crate) fn just_left(&self, now: Time) -> Option<Ifindex> {
        let recent = self.settle_until.is_some_and(|end| now < end);
        let last = self.handoffs.last().filter(|_| recent)?;
        Some(last.from)
    }

    /// The executor was asked to move the traffic to that port.
    pub(crate) fn requested(&mut self, port: Ifindex) {
        if let Some(switch) = self.switch.as_mut().filter(|one| one.target == port) {
            switch.requested = true;
        }
    }

    /// Timers that run.
    pub(crate) fn deadlines(&self) -> Vec<Time> {
        let announce = (self.announcements_left > 0).then_some(self.announce_at);
        announce.into_iter().chain(self.settle_until).collect()
    }

    /// A link lost its carrier: the handoff away from it may have been seen already.
    pub(crate) fn note_carrier_lost(&mut self, port: Ifindex, at: Time) {
        self.carrier_lost = Some((port, at));
        if let Some(record) = self.last_from(port) {
            let failed = record.handoff.cause == HandoffCause::Carrier;
            let same_story = record.handoff.at.since_ms(at) < SAME_STORY_MS
                && at.since_ms(record.handoff.at) < SAME_STORY_MS;
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
            record.handoff.lead_us = Some(lead_us);
        }
    }

    /// A VF is gone: the handoff away from it may have to be told differently.
    pub(crate) fn note_gone(&mut self, gone: &GoneVf, now: Time) {
        let Some(record) = self.last_from(gone.ifindex) else {
            return;
        };
        let handoff = &mut record.handoff;
        handoff.warned_by = handoff.warned_by.or(gone.warned_by);
        handoff.lead_us = gone.lead_us.or(handoff.lead_us);
        let recent = now.since_ms(handoff.at) < SAME_STORY_MS;
        let guessed = handoff.cause == HandoffCause::Operator && handoff.switch_us.is_none();
        if recent && (guessed || handoff.cause == HandoffCause::Carrier) {
            handoff.cause = match gone.warned_by {
                Some(_) => HandoffCause::Warned,
                None => HandoffCause::Abrupt,
            };
        }
    }

    pub(super) fn last_from(&mut self, port: Ifindex) -> Option<&mut Record> {
        let last = self.handoffs.last_mut();
        last.filter(|record| record.from == port)
    }

    fn push(&mut self, record: Record) {
        if self.handoffs.len() >= BondStatus::MAX_HANDOFFS {
            self.handoffs.remove(0);
        }
        self.handoffs.push(record);
    }
}

impl Memory {
    /// Compares who carries the traffic with who did and who should.
    pub(super) fn note_traffic(&mut self, view: &View<'_>, now: Time, events: &mut Vec<Event>) {
        let before = self.traffic.seen;
        let Some(bond) = view.bond() else {
            if view.world.links_known() {
                self.traffic.seen = Seen::Absent;
                self.traffic.last = None;
                self.traffic.switch = None;
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

    fn note_goal(&mut self, view: &View<'_>, now: Time) {
        let wanted = goal(view, self, now).filter(|goal| view.active() != Some(goal.port));
        let same = |switch: &Switch, port| switch.target == port;
        self.traffic.switch = wanted.map(|goal| {
            let before = self.traffic.switch.filter(|one| same(one, goal.port));
            before.unwrap_or(Switch {
                target: goal.port,
                cause: goal.cause,
                decided_at: now,
                requested: false,
            })
        });
    }

    fn note_move(&mut self, view: &View<'_>, to: Ifindex, now: Time) -> Option<Event> {
        let from = self.traffic.last.filter(|last| last.port != to)?;
        let decided = self.traffic.switch.filter(|switch| switch.target == to);
        let traffic = view.traffic_of(Some(to));
        let cause = decided.map_or_else(
            || self.guess_cause(view, from.port, traffic),
            |switch| switch.cause,
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
        let handoff = Handoff {
            number: self.traffic.count,
            at: now,
            from: from.traffic,
            to: traffic,
            cause,
            switch_us: decided
                .filter(|switch| switch.requested)
                .map(|switch| now.since_us(switch.decided_at)),
            lead_us: gone.and_then(|gone| gone.lead_us),
            warned_by: gone
                .and_then(|gone| gone.warned_by)
                .or(warning.map(|warning| warning.first)),
            reaction_us: reaction.and_then(|reaction| reaction.requested_us),
            gap: None,
        };
        let path = view.bond().and_then(|bond| view.world.path(bond.ifindex()));
        self.traffic.measuring = path.is_some_and(|watch| watch.ports.contains(&to));
        let rescue = path.and_then(|watch| watch.rescue.as_ref());
        let rescued = rescue.is_some_and(|one| one.vf == from.port && one.standby == to);
        self.traffic.push(Record {
            from: from.port,
            to,
            stopped_at: gone
                .and_then(|gone| gone.stopped_at)
                .or(warning.and_then(|warning| warning.stopping_at))
                .or(failed_at.filter(|_| cause == HandoffCause::Carrier)),
            rescued_at: warning
                .filter(|warning| rescued && warning.first > RemovalStage::ButtonCancelled)
                .map(|warning| warning.first_at),
            handoff: handoff.clone(),
        });
        Some(Event::HandedOver {
            bond: view.policy.name.clone(),
            handoff,
        })
    }

    /// Why the kernel moved the traffic, or should have.
    pub(crate) fn guess_cause(&self, view: &View<'_>, from: Ifindex, to: Traffic) -> HandoffCause {
        let port = view.port(from);
        let failed = port.is_none_or(|port| !port.usable);
        if to == Traffic::Vf && !failed {
            return HandoffCause::Arrival;
        }
        match (port, self.vfs.gone(from)) {
            (Some(port), _) if self.is_prepared(port) => HandoffCause::Planned,
            (Some(port), _) if port.warning.is_some() => HandoffCause::Warned,
            // A device that goes is closed first.
            (Some(port), _) if !port.enslaved || !port.link.admin_up => HandoffCause::Abrupt,
            (Some(_), _) if failed => HandoffCause::Carrier,
            (Some(_), _) => HandoffCause::Operator,
            (None, Some(gone)) if gone.warned_by.is_some() => HandoffCause::Warned,
            // The policy no longer knows it.
            (None, _) if view.world.link(from).is_some() => HandoffCause::Operator,
            (None, _) => HandoffCause::Abrupt,
        }
    }
}
