//! A run while it goes on: phases begin and end, the guest tells its switchovers, frames are counted.

use std::time::Instant;

use anyhow::{Context, Result};
use tandem_core::Status;
use tandem_core::status::{Switchover, Traffic};
use tandem_wire::reply::StatusReport;

use super::words;
use crate::command::progress;
use crate::probe::{FrameProbe, FrameReport};
use crate::timeline::{Carrier, CarrierChange, Frames, Phase, PhaseKind, Timeline, Verdict};

/// Frames that the switchover phases may lose: none is what is promised, and what a machine with room loses. An emulated
/// guest on a busy one can stand still for longer than its driver takes to stop; a bond without Tandem loses 80 and
/// more at 200 a second each way.
pub const MOST_LOST: u64 = 10;

/// What is known of the run so far.
pub(crate) struct Story {
    start: Instant,
    probe: FrameProbe,
    phases: Vec<(String, PhaseKind, u64, u64)>,
    open: Option<(String, PhaseKind, u64)>,
    carriers: Vec<CarrierChange>,
    last_switchover: u64,
    /// How many frames were carried in which phases.
    carried: Vec<(String, u64)>,
    /// Facts worth a line each.
    pub(crate) notes: Vec<String>,
}

impl Story {
    /// Begins with the VF carrying the traffic.
    pub(crate) fn new(probe: FrameProbe) -> Self {
        Self {
            start: Instant::now(),
            probe,
            phases: Vec::new(),
            open: None,
            carriers: vec![CarrierChange {
                at_ms: 0,
                carrier: Carrier::Vf,
            }],
            last_switchover: 0,
            carried: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Begins a phase; one that is open ends.
    pub(crate) fn begin(&mut self, name: &str, kind: PhaseKind) {
        self.end();
        progress(name);
        self.probe.mark(name);
        self.open = Some((name.to_owned(), kind, self.now_ms()));
    }

    /// So many frames were carried after the guest, in the phase that is open.
    pub(crate) fn carried(&mut self, count: u64) {
        let phase = self.current().map(str::to_owned);
        self.carried.extend(phase.map(|phase| (phase, count)));
    }

    /// The phase that is open.
    pub(crate) fn current(&self) -> Option<&str> {
        self.open.as_ref().map(|(name, ..)| name.as_str())
    }

    /// Ends the phase.
    pub(crate) fn end(&mut self) {
        if let Some((name, kind, start_ms)) = self.open.take() {
            self.phases.push((name, kind, start_ms, self.now_ms()));
        }
    }

    /// Takes the switchovers that the guest reports since the last time.
    pub(crate) fn see(&mut self, report: &StatusReport) -> Result<()> {
        let now_ms = self.now_ms();
        let bond = report
            .status
            .bonds
            .first()
            .context("the guest knows no bond")?;
        let known = self.last_switchover;
        let new = bond
            .switchovers
            .iter()
            .filter(|switchover| switchover.number > known);
        let carriers = new.clone().map(|switchover: &Switchover| CarrierChange {
            at_ms: now_ms.saturating_sub(report.now.since_ms(switchover.at)),
            carrier: match switchover.to {
                Traffic::Vf => Carrier::Vf,
                Traffic::Standby => Carrier::Standby,
                Traffic::None | Traffic::Other | Traffic::Unknown => Carrier::Nobody,
            },
        });
        // Those from before the run are part of the first look only.
        if known > 0 || !self.phases.is_empty() {
            self.carriers.extend(carriers);
        }
        self.last_switchover = bond.switchover_count;
        Ok(())
    }

    /// What the guest's kernel itself counted.
    pub(crate) fn note_switchovers(&mut self, status: &Status) {
        let switchovers = status.bonds.iter().flat_map(|bond| &bond.switchovers);
        self.notes.extend(switchovers.filter_map(words::switchover));
    }

    /// The whole story. `broken` is why the connection broke, if it did.
    pub(crate) fn tell(
        self,
        title: String,
        broken: Option<String>,
        tcp_stall_ms: u64,
    ) -> Result<Timeline> {
        let frames = self.probe.finish()?;
        let phases: Vec<_> = self
            .phases
            .into_iter()
            .map(|(name, kind, start_ms, end_ms)| {
                let carried = self.carried.iter().find(|(phase, _)| *phase == name);
                let carried = carried.map(|(_, count)| *count);
                Ok(Phase {
                    carried,
                    ..phase(&frames, name, kind, (start_ms, end_ms))?
                })
            })
            .collect::<Result<_>>()?;
        let lost = |kind| -> u64 {
            let phases = phases.iter().filter(|phase| phase.kind == kind);
            phases
                .map(|phase| phase.from_guest.lost + phase.to_guest.lost)
                .sum()
        };
        let verdict = verdict(
            broken.as_deref(),
            lost(PhaseKind::Switchover),
            lost(PhaseKind::Migration),
        );
        Ok(Timeline {
            title,
            phases,
            carriers: self.carriers,
            tcp_alive: broken.is_none(),
            tcp_stall_ms,
            notes: self.notes,
            verdict,
        })
    }
}

fn verdict(broken: Option<&str>, in_switchover: u64, in_migration: u64) -> Verdict {
    let lost = format!(
        "frames lost: {in_switchover} in the switchover phases, {in_migration} by the migration itself"
    );
    let text = match broken {
        Some(reason) => format!("the connection broke: {reason}; {lost}"),
        None if in_switchover > MOST_LOST => {
            format!(
                "the connection survived, but {lost}; {MOST_LOST} in the switchover are excused"
            )
        }
        None => format!("the connection survived; {lost}"),
    };
    Verdict {
        passed: broken.is_none() && in_switchover <= MOST_LOST,
        text,
    }
}

fn phase(
    frames: &FrameReport,
    name: String,
    kind: PhaseKind,
    span_ms: (u64, u64),
) -> Result<Phase> {
    let missing = || format!("the probe knows no phase {name}");
    let to_guest = frames.to_guest.phase(&name).with_context(missing)?;
    let from_guest = frames.to_client.phase(&name).with_context(missing)?;
    Ok(Phase {
        kind,
        start_ms: span_ms.0,
        end_ms: span_ms.1,
        from_guest: Frames {
            sent: from_guest.sent,
            lost: from_guest.lost,
        },
        to_guest: Frames {
            sent: to_guest.sent,
            lost: to_guest.lost,
        },
        carried: None,
        longest_gap_ms: from_guest.longest_gap_ms.max(to_guest.longest_gap_ms),
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_lost_in_a_switchover_are_a_failure_too() {
        let clean = verdict(None, 0, 44);
        assert!(clean.passed);
        assert_eq!(
            clean.text,
            "the connection survived; frames lost: 0 in the switchover phases, 44 by the migration itself"
        );
        assert!(verdict(None, MOST_LOST, 44).passed);
        let lossy = verdict(None, MOST_LOST + 1, 44);
        assert!(
            !lossy.passed && lossy.text.contains("but frames lost: 11"),
            "{lossy:?}"
        );
        let broken = verdict(Some("reset"), 0, 44);
        assert!(!broken.passed && broken.text.starts_with("the connection broke: reset"));
    }
}
