//! How long a bond was without frames in a switchover, from the counters in the kernel.

use crate::bond::history::traffic::{TrafficMemory, TrafficRecord};
use crate::model::fast_path::{Frames, PortFrames};
use crate::model::status::{Gap, Switchover};
use crate::model::types::{Ifindex, Time};

/// A port is quiet once nothing came for so long, in ms.
const QUIET_MS: u64 = 50;
/// Longest wait for that after the switchover, in ms: a network that goes on sending to
/// the old port doesn't hold up its release for ever.
const DRAIN_MAX_MS: u64 = 2_000;

impl TrafficMemory {
    /// The ports of the last switchover, old and new, if their counters are to be read
    /// now: what follows a switchover is over.
    pub(crate) fn to_measure(&self, now: Time) -> Option<[Ifindex; 2]> {
        let due = self.measuring && self.is_calm(now);
        let record = self.switchovers.last().filter(|_| due)?;
        Some([record.from, record.to])
    }

    /// The traffic moves, or frames may still come by its old way.
    pub(crate) fn is_switching_over(&self, now: Time) -> bool {
        let settling = self.settle_until.is_some_and(|end| now < end);
        self.switchover.is_some() || self.measuring || settling
    }

    /// Number of the switchover that is counted: the last one until it is measured, then
    /// the next one.
    pub(crate) fn period(&self, now: Time) -> u64 {
        if self.switchover.is_none() && self.is_switching_over(now) {
            self.count
        } else {
            self.count + 1
        }
    }

    /// Takes the counters that were asked for then. Gives the switchover that they told something new of.
    pub(crate) fn note_frames(
        &mut self,
        ports: &[PortFrames],
        asked_at: Time,
        now: Time,
    ) -> Option<Switchover> {
        let record = self.switchovers.last_mut().filter(|_| self.measuring)?;
        if record.overtook(asked_at) {
            return None;
        }
        let gap = record.gap(ports);
        let late = frames_of(ports, record.from).map(|frames| frames.late);
        let noisy = late.and_then(|late| late.last);
        let noisy = noisy.is_some_and(|last| now.since_ms(last) < QUIET_MS);
        if noisy && now.since_ms(record.switchover.at) < DRAIN_MAX_MS {
            self.settle_until = Some(now.plus_ms(QUIET_MS));
            return None;
        }
        self.measuring = false;
        record.switchover.gap = gap;
        gap.map(|_| record.switchover.clone())
    }

    /// The reading of the counters that was begun then has ended, whatever it brought.
    pub(crate) fn measured(&mut self, asked_at: Time, now: Time) {
        let last = self.switchovers.last();
        if !last.is_some_and(|record| record.overtook(asked_at)) && self.is_calm(now) {
            self.measuring = false;
        }
    }
}

impl TrafficRecord {
    /// Counters that were asked for then are of the switchover before.
    fn overtook(&self, asked_at: Time) -> bool {
        asked_at < self.switchover.at
    }

    fn gap(&self, ports: &[PortFrames]) -> Option<Gap> {
        let new = frames_of(ports, self.to)?;
        let old = frames_of(ports, self.from);
        let late = old.map(|old| old.late).unwrap_or_default();
        Some(Gap {
            // Frames reach the new port before the bond counts it as the active one.
            receive_us: self.gap_us(
                old.and_then(|old| old.all_received().last),
                new.all_received(),
            ),
            transmit_us: self.gap_us(self.last_sent(old), new.sent),
            late_frames: late.count,
            drain_us: late
                .last
                .map(|last| last.since_us(self.switched_at(late, new))),
        })
    }

    /// When the kernel moved the traffic, at the latest: the service sees it some ms later.
    fn switched_at(&self, late: Frames, new: &PortFrames) -> Time {
        let signs = [new.sent.first, late.first].into_iter().flatten();
        signs.fold(self.switchover.at, Time::min)
    }

    /// What was handed to a driver after it was told to stop went nowhere.
    fn last_sent(&self, old: Option<&PortFrames>) -> Option<Time> {
        let last = old.and_then(|old| old.sent.last)?;
        Some(self.stopped_at.map_or(last, |stopped| last.min(stopped)))
    }

    /// From the last frame on the old port, or else from the warning, after which there was
    /// none, or from the driver's stop, to the first one on the new port.
    fn gap_us(&self, last_on_old: Option<Time>, new: Frames) -> Option<u64> {
        let last = last_on_old.or(self.redirected_at).or(self.stopped_at)?;
        Some(new.first?.since_us(last))
    }
}

impl PortFrames {
    /// Late frames were delivered as well.
    fn all_received(&self) -> Frames {
        let Self { received, late, .. } = *self;
        Frames {
            count: received.count.saturating_add(late.count),
            first: received.first.into_iter().chain(late.first).min(),
            last: received.last.max(late.last),
        }
    }
}

fn frames_of(ports: &[PortFrames], port: Ifindex) -> Option<&PortFrames> {
    ports.iter().find(|frames| frames.port == port)
}
