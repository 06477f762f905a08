//! Who carried the traffic, why it moves, and how the network learns of it.

use alloc::vec::Vec;

use crate::model::fast_path::Reaction;
use crate::model::removal::RemovalStage;
use crate::model::status::{BondStatus, Switchover, SwitchoverCause, Traffic};
use crate::model::types::{Ifindex, Time};

/// A carrier that fails this shortly before its device vanishes failed because of that, in ms.
const SAME_STORY_MS: u64 = 2_000;

/// History and timers of a bond's traffic.
#[derive(Debug, Default)]
pub(crate) struct TrafficMemory {
    pub(crate) seen: Seen,
    /// The port that carries the traffic, or did before it failed.
    pub(crate) last: Option<Carrier>,
    /// The move that is under way.
    pub(crate) switchover: Option<PendingSwitchover>,
    pub(crate) announcements_left: u8,
    announce_at: Time,
    pub(crate) settle_until: Option<Time>,
    pub(crate) switchovers: Vec<TrafficRecord>,
    pub(crate) count: u64,
    /// The counters of the last switchover are still to be read.
    pub(crate) measuring: bool,
    /// What the fast path did for a switchover that is not seen yet.
    reaction: Option<(Reaction, Time)>,
    /// The port that lost its carrier last, and when.
    carrier_lost: Option<(Ifindex, Time)>,
}

/// What was last seen of the bond.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Nothing yet.
    #[default]
    Never,
    /// That there is no such bond.
    Absent,
    /// This bond with this active port.
    Bond(Ifindex, Option<Ifindex>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Carrier {
    pub(crate) port: Ifindex,
    pub(crate) traffic: Traffic,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingSwitchover {
    pub(crate) target: Ifindex,
    pub(crate) cause: SwitchoverCause,
    pub(crate) decided_at: Time,
    pub(crate) requested: bool,
}

#[derive(Debug)]
pub(crate) struct TrafficRecord {
    /// The port that carried the traffic before.
    pub(crate) from: Ifindex,
    /// The port that carries it now.
    pub(crate) to: Ifindex,
    /// When the old port's driver began to stop, or it lost its carrier: what is sent after that goes nowhere.
    pub(crate) stopped_at: Option<Time>,
    /// When the kernel began to send through the new port, though the old one was active.
    pub(crate) redirected_at: Option<Time>,
    pub(crate) switchover: Switchover,
}

/// A VF that is gone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GoneVf {
    pub(crate) ifindex: Ifindex,
    pub(crate) warned_by: Option<RemovalStage>,
    pub(crate) lead_us: Option<u64>,
    pub(crate) stopped_at: Option<Time>,
}

impl TrafficMemory {
    /// Nothing has carried this bond's traffic since the service started.
    pub(crate) fn never_carried(&self) -> bool {
        self.last.is_none()
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

    /// There is no such bond: nothing is under way, and the next one starts anew.
    pub(crate) fn bond_is_absent(&mut self) {
        self.seen = Seen::Absent;
        self.last = None;
        self.switchover = None;
        self.announcements_left = 0;
        self.settle_until = None;
        self.measuring = false;
    }

    /// Nothing is left to be said or awaited of the last move.
    pub(crate) fn is_settled(&self, now: Time) -> bool {
        !self.measuring && self.is_calm(now)
    }

    /// The traffic stays where it is, was announced, and late frames had their time.
    pub(crate) fn is_calm(&self, now: Time) -> bool {
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
    pub(crate) fn failed_at(&self, port: Ifindex, now: Time) -> Option<Time> {
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

    /// The fast path acted before the machine could.
    pub(crate) fn note_reaction(&mut self, reaction: Reaction, now: Time) {
        let last = self.switchovers.last_mut();
        let seen = last.filter(|record| {
            record.switchover.from == Traffic::Vf
                && now.since_ms(record.switchover.at) < SAME_STORY_MS
        });
        match seen {
            Some(record) => record.switchover.reaction_us = reaction.requested_us,
            None => self.reaction = Some((reaction, now)),
        }
    }

    /// What the fast path did for a switchover away from a VF that is seen just now.
    pub(crate) fn take_reaction(&mut self, now: Time) -> Option<Reaction> {
        let (reaction, at) = self.reaction.take()?;
        (now.since_ms(at) < SAME_STORY_MS).then_some(reaction)
    }

    fn last_from(&mut self, port: Ifindex) -> Option<&mut TrafficRecord> {
        let last = self.switchovers.last_mut();
        last.filter(|record| record.from == port)
    }

    pub(crate) fn push(&mut self, record: TrafficRecord) {
        if self.switchovers.len() >= BondStatus::MAX_SWITCHOVERS {
            self.switchovers.remove(0);
        }
        self.switchovers.push(record);
    }
}
