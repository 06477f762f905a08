//! What has to hold after each run, and after each step of it.

use std::collections::BTreeMap;

use tandem_carry::{CarryCause, Destination, Received, Sent, Source, lost_between};

use crate::network::{DESTINATION, SOURCE};
use crate::plan::Fault;
use crate::tap::Mode;
use crate::world::World;

type Verdict = Result<(), String>;

fn hold(what: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if what { Ok(()) } else { Err(otherwise()) }
}

impl World {
    /// Every frame that a half got is accounted for, and no more are kept than may be.
    pub(crate) fn check_step(&self) -> Verdict {
        let limits = &self.plan.limits;
        if let Some(half) = &self.source {
            let c = half.counts();
            let became = c.carried
                + c.given_back
                + c.forwarded
                + c.own
                + c.left_to_the_network
                + c.over_limit;
            let known = became + c.abandoned + half.pending() as u64;
            hold(c.held == known, || format!("source: {c:?}"))?;
            hold(c.most_bytes <= limits.bytes, || format!("source: {c:?}"))?;
            hold(half.pending() <= 3 * limits.frames, || {
                format!("source keeps {}", half.pending())
            })?;
        }
        if let Some(half) = &self.destination {
            let c = half.counts();
            let became = c.injected + c.twins + c.late_groups + c.left_to_the_source + c.over_limit;
            let known = became + c.abandoned + half.pending() as u64;
            hold(c.carried + c.native == known, || {
                format!("destination: {c:?}")
            })?;
            hold(c.most_bytes <= 2 * limits.bytes, || {
                format!("destination: {c:?}")
            })?;
            hold(half.pending() <= limits.frames, || {
                format!("destination keeps {}", half.pending())
            })?;
        }
        Ok(())
    }

    /// Nothing holds frames any more.
    pub(crate) fn is_over(&self) -> bool {
        let source = self
            .source
            .as_ref()
            .is_none_or(|half| half.outcome().is_some());
        let destination = self
            .destination
            .as_ref()
            .is_none_or(|half| half.outcome().is_some());
        source && destination
    }

    /// The guest runs, and the network knows where.
    pub(crate) fn is_quiet(&self) -> bool {
        self.runs_at.is_some() && self.network.has_learnt()
    }

    pub(crate) fn check_end(&self, last: &[u64]) -> Verdict {
        hold(self.is_over(), || "a half goes on for ever".into())?;
        for (host, tap) in self.taps.iter().enumerate() {
            let open = tap.mode == Mode::Pass && tap.held.is_empty();
            hold(open, || format!("tap {host} is {:?}", tap.mode))?;
        }
        let never = self.plan.fault == Fault::NeverResumes;
        hold(self.runs_at.is_some() || never, || {
            "the guest runs nowhere".into()
        })?;
        if self.runs_at.is_some() {
            let got = last.iter().all(|id| self.delivered.contains(id));
            hold(got, || "the guest can't be reached".into())?;
        }
        // Another host could send the guest whatever it likes anyway.
        if self.plan.fault == Fault::Forged {
            return Ok(());
        }
        self.check_understanding()?;
        self.check_twice()?;
        self.check_order()?;
        self.check_losses()
    }

    /// No half says what it may not.
    fn check_understanding(&self) -> Verdict {
        let source = self.source.as_ref().and_then(Source::outcome);
        let destination = self.destination.as_ref().and_then(Destination::outcome);
        let causes = [
            source.and_then(|outcome| outcome.cause),
            destination.and_then(|outcome| outcome.cause),
        ];
        hold(!causes.contains(&Some(CarryCause::Foreign)), || {
            format!("the halves don't understand each other: {causes:?}")
        })
    }

    fn counts(&self) -> BTreeMap<u64, u32> {
        let mut counts = BTreeMap::new();
        for id in &self.delivered {
            *counts.entry(*id).or_default() += 1;
        }
        counts
    }

    fn check_twice(&self) -> Verdict {
        for (id, count) in self.counts() {
            let sent = self.network.sent.get(&id).copied().unwrap_or_default();
            let excused = self.excused.get(&id).copied().unwrap_or_default();
            hold(count <= sent + excused, || {
                format!("frame {id} was sent {sent} times, and came {count} times")
            })?;
        }
        Ok(())
    }

    fn check_order(&self) -> Verdict {
        // The source had no room for a frame, and the destination gives its copy among the native ones.
        if self.plan.fault == Fault::SmallLimit && self.plan.floods || self.swept_beside_guest {
            return Ok(());
        }
        // What goes to the network comes among native frames, and so does what came to the source late, or was carried until the
        // guest stopped without its half.
        let forwarded = self
            .source
            .as_ref()
            .map_or(0, |half| half.counts().forwarded);
        let late = self
            .destination
            .as_ref()
            .map_or(0, |half| half.counts().late);
        let without_half = self.plan.fault == Fault::SourceDies && self.died_beside_guest;
        // What came late to a half that died, or was forwarded by it, is known to nobody.
        let limits = &self.plan.limits;
        let [_, stall_ms] = self.plan.stream_stall_ms;
        let came_late = self.plan.way_ms[SOURCE] > limits.straggle_ms;
        let unknown = self.destination.is_none() && came_late
            || self.source.is_none() && stall_ms >= limits.settle_ms;
        if forwarded > 0 || late > 0 || without_half || unknown {
            return Ok(());
        }
        let mut before = 0;
        for id in self.delivered.iter().filter(|id| !self.is_group(**id)) {
            if self.excused.contains_key(id) {
                continue;
            }
            hold(*id >= before, || format!("frame {id} came after {before}"))?;
            before = *id;
        }
        Ok(())
    }

    fn is_group(&self, id: u64) -> bool {
        self.network.groups.contains(&id)
    }

    fn check_losses(&self) -> Verdict {
        let counts = self.counts();
        let missing_of = |(id, sent): (&u64, &u32)| {
            u64::from(sent.saturating_sub(counts.get(id).copied().unwrap_or_default()))
        };
        let sent = || self.network.sent.iter();
        let missing: u64 = sent().map(missing_of).sum();
        let to_guest: u64 = sent()
            .filter(|(id, _)| !self.is_group(**id))
            .map(missing_of)
            .sum();
        let between = lost_between(
            self.source.as_ref().map(|half| Sent {
                carried: half.counts().carried,
                confirmed: half.counts().confirmed,
            }),
            self.destination.as_ref().map(|half| Received {
                carried: half.counts().carried,
                left: half.counts().left_carried,
            }),
        );
        let source = self.source.as_ref().map(Source::counts).unwrap_or_default();
        let destination = self
            .destination
            .as_ref()
            .map(Destination::counts)
            .unwrap_or_default();
        let counted = between
            + source.over_limit
            + source.abandoned
            + destination.over_limit
            + destination.abandoned
            + destination.late_groups;
        let taken = u64::from(self.taken.is_some());
        let outside = self.lost_elsewhere
            + taken
            + self.taps[SOURCE].lost
            + self.taps[DESTINATION].lost
            + self.forwarded_in_vain
            + self.groups_without_a_destination()
            + self.left_in_queues();
        if self.source_has_all() {
            let in_vain = self.forwarded_in_vain + self.taps[DESTINATION].lost;
            return hold(to_guest <= in_vain + taken, || {
                format!("{to_guest} frames to the guest are lost; {source:?}; {destination:?}")
            });
        }
        if self.loses_none_to_the_guest() {
            return hold(to_guest <= taken + self.forwarded_in_vain, || {
                format!("{to_guest} frames to the guest are lost; {source:?}; {destination:?}")
            });
        }
        if self.loses_nothing() {
            // A guest that stands still before its queue is empty has read one that nobody gets back.
            let not_empty = self.plan.dozes_until_ms > 0;
            let own = if self.plan.fault == Fault::OwnStop || not_empty {
                taken
            } else {
                0
            };
            // Nor what is left in it, without a copy of the tap.
            let unswept = not_empty && self.plan.sweeps_ms.is_none();
            let own = own
                + if unswept {
                    self.taps[SOURCE].ring.len() as u64
                } else {
                    0
                };
            hold(missing <= own, || {
                format!("{missing} frames are lost; {source:?}; {destination:?}")
            })?;
            return hold(counted <= missing, || {
                format!(
                    "{missing} frames are lost, {counted} are counted; {source:?}; {destination:?}"
                )
            });
        }
        hold(missing <= counted + outside, || {
            format!(
                "{missing} frames are missing, {counted} + {outside} are counted; {source:?}; {destination:?}"
            )
        })
    }

    /// Nobody reads them any more. A source whose stop was known of too late has swept what it had given back, if it can.
    fn left_in_queues(&self) -> u64 {
        let sweeps = self.plan.fault == Fault::StopUnknown
            && self.source.is_some()
            && self.plan.sweeps_ms.is_some();
        let left = |host: usize| self.taps[host].ring.len() as u64;
        left(DESTINATION) + if sweeps { 0 } else { left(SOURCE) }
    }

    /// The destination died while the guest stood still, which the source knows: it gives everything to the network.
    fn source_has_all(&self) -> bool {
        self.plan.fault == Fault::DestinationDies
            && self.destination.is_none()
            && !self.died_beside_guest
            && self.plan.witness
            && self.plan.sweeps_ms.is_some()
            && self.hypervisor.arrived
            && self
                .source
                .as_ref()
                .is_some_and(|half| half.outcome().is_some())
    }

    /// Frames to a group that came to the source when nobody was there to carry them to: others have got them.
    fn groups_without_a_destination(&self) -> u64 {
        let [_, stall_ms] = self.plan.stream_stall_ms;
        let cut = matches!(
            self.plan.fault,
            Fault::DestinationDies | Fault::StreamCut | Fault::SourceDies | Fault::StopUnknown
        );
        let given_up = cut || stall_ms >= self.plan.limits.settle_ms;
        let half = self.source.as_ref().filter(|_| given_up);
        half.map_or(0, |half| half.counts().left_to_the_network)
    }

    /// Nor any frame but those to a group, which nobody gives to the network again: the stop is known late, or the stream takes
    /// nothing for longer than the destination waits, and the source's half has what is needed to forward.
    fn loses_none_to_the_guest(&self) -> bool {
        let [_, stall_ms] = self.plan.stream_stall_ms;
        let stalls = stall_ms >= self.plan.limits.settle_ms;
        let is_long = self.plan.device_ms + self.plan.learn_ms >= 100;
        let can = self.plan.sweeps_ms.is_some() && self.plan.witness;
        match self.plan.fault {
            Fault::None => can && stalls && !is_long,
            Fault::StopUnknown => can && !stalls && !is_long,
            _ => false,
        }
    }

    /// What may happen in a run without a loss.
    fn loses_nothing(&self) -> bool {
        // A stream that takes nothing for so long is given up.
        let [_, stall_ms] = self.plan.stream_stall_ms;
        if stall_ms >= self.plan.limits.settle_ms {
            return false;
        }
        // Nor is it all carried within the time that there is.
        let comes_ms = self.plan.device_ms + self.plan.learn_ms;
        if comes_ms >= 100 && self.plan.stream_every_ms > 1 {
            return false;
        }
        match self.plan.fault {
            Fault::None | Fault::MigrationFails => true,
            Fault::OwnStop => self.plan.sweeps_ms.is_some(),
            _ => false,
        }
    }
}
