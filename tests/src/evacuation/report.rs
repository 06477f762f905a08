//! What one evacuation cost.

use serde::Serialize;
use tandem_core::status::{Handoff, Traffic};

use crate::probe::{FrameReport, Loss};

/// What an evacuation cost those who talk with the guest.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Evacuation {
    /// The phases of [`super::PHASES`], in order; those that a system does not have are absent.
    pub phases: Vec<PhaseLoss>,
    /// Over the whole probe, also before and after the phases.
    pub total: PhaseLoss,
    /// The open TCP connection.
    pub tcp: TcpOutcome,
    /// How long the guest stood still by QEMU's count, in ms.
    pub downtime_ms: u64,
    /// From the VF's registration in the guest until it could carry the traffic, in ms.
    pub vf_ready_ms: Option<f64>,
    /// What Tandem itself reports.
    pub handovers: Vec<Handover>,
    /// Where on their way to the guest frames were lost.
    pub losses_to_guest: Vec<Loss>,
    /// Where on their way from the guest frames were lost.
    pub losses_from_guest: Vec<Loss>,
}

impl Evacuation {
    /// Frames lost while the VF left and came.
    pub fn hand_over_loss(&self) -> u64 {
        let phases = [super::PHASES[0], super::PHASES[2]];
        let phases = phases.iter().filter_map(|name| self.phase(name));
        phases.map(PhaseLoss::lost).sum()
    }

    /// The phase of this name.
    pub fn phase(&self, name: &str) -> Option<&PhaseLoss> {
        self.phases.iter().find(|phase| phase.name == name)
    }
}

/// What was lost while one thing was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct PhaseLoss {
    /// Its name.
    pub name: String,
    /// Frames sent, both ways.
    pub sent: u64,
    /// Frames lost on their way to the guest.
    pub lost_to_guest: u64,
    /// Frames lost on their way from the guest.
    pub lost_from_guest: u64,
    /// The longest time between the sendings of two frames that arrived with none between them that did, of
    /// the worse direction, in ms.
    pub longest_gap_ms: u64,
}

impl PhaseLoss {
    /// Frames lost both ways.
    pub fn lost(&self) -> u64 {
        self.lost_to_guest + self.lost_from_guest
    }

    /// The phase of that name, or the whole.
    pub(super) fn of(frames: &FrameReport, name: &str) -> Option<Self> {
        let to_guest = frames.to_guest.phase(name)?;
        let from_guest = frames.to_client.phase(name)?;
        Some(Self::add(name, to_guest, from_guest))
    }

    pub(super) fn total(frames: &FrameReport) -> Self {
        Self::add("all", &frames.to_guest.total, &frames.to_client.total)
    }

    fn add(name: &str, to_guest: &crate::probe::Count, from_guest: &crate::probe::Count) -> Self {
        Self {
            name: name.to_owned(),
            sent: to_guest.sent + from_guest.sent,
            lost_to_guest: to_guest.lost,
            lost_from_guest: from_guest.lost,
            longest_gap_ms: to_guest.longest_gap_ms.max(from_guest.longest_gap_ms),
        }
    }
}

/// How the TCP connection fared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct TcpOutcome {
    /// The longest time either end waited for a record, in ms.
    pub stall_ms: u64,
    /// Why it broke, if it did.
    pub broken: Option<String>,
}

/// A handoff as Tandem reports it, beside what the probe saw of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Handover {
    /// `failover` or `failback`.
    pub phase: &'static str,
    /// The report.
    pub reported: Handoff,
    /// The pause of the probe's frames to the guest that is nearest to the reported one, of those within 100 ms of
    /// the handoff, by the guest's clock, in µs.
    pub probe_receive_us: Option<u64>,
    /// The same for frames from the guest, in µs.
    pub probe_transmit_us: Option<u64>,
}

/// Pauses of the probe are looked for so long before and after the moment the service saw the handoff, in µs:
/// the rest of the network learns of it, and the service sees it, that much earlier or later.
const AROUND_US: u64 = 100_000;

impl Handover {
    pub(super) fn new(reported: Handoff, frames: &FrameReport) -> Self {
        let at_us = reported.at.0;
        let window = (at_us.saturating_sub(AROUND_US), at_us + AROUND_US);
        let gap = reported.gap.unwrap_or_default();
        let times = &frames.guest_times;
        Self {
            phase: match reported.to {
                Traffic::Vf => "failback",
                Traffic::Standby | Traffic::None | Traffic::Other => "failover",
            },
            probe_receive_us: gap
                .receive_us
                .and_then(|gap_us| nearest_pause_us(&times.received_us, window, gap_us)),
            probe_transmit_us: gap
                .transmit_us
                .and_then(|gap_us| nearest_pause_us(&times.sent_and_arrived_us, window, gap_us)),
            reported,
        }
    }

    /// Reported and probed pauses, of both directions where both are known, in µs.
    pub fn pairs(&self) -> Vec<(u64, u64)> {
        let gap = self.reported.gap.unwrap_or_default();
        let pairs = [
            (gap.receive_us, self.probe_receive_us),
            (gap.transmit_us, self.probe_transmit_us),
        ];
        pairs
            .into_iter()
            .filter_map(|(reported, probe)| Some((reported?, probe?)))
            .collect()
    }
}

/// The time between two neighbours, touching the window, that is nearest to what was reported: a probe does not
/// know which port a frame took, but the last one on the old port and the first on the new one are neighbours.
/// `times` are in order.
fn nearest_pause_us(times: &[u64], (from_us, to_us): (u64, u64), reported_us: u64) -> Option<u64> {
    times
        .windows(2)
        .filter(|pair| pair[1] >= from_us && pair[0] <= to_us)
        .map(|pair| pair[1].saturating_sub(pair[0]))
        .min_by_key(|pause_us| pause_us.abs_diff(reported_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_of_a_handoff_is_the_nearest_in_its_window() {
        let times = [0, 10, 20, 100, 110, 300];
        let nearest = |window, reported_us| nearest_pause_us(&times, window, reported_us);
        assert_eq!(nearest((0, 110), 70), Some(80));
        assert_eq!(nearest((0, 110), 0), Some(10));
        assert_eq!(nearest((30, 90), 10), Some(80));
        assert_eq!(nearest((120, 130), 10), Some(190));
        assert_eq!(nearest((400, 500), 10), None);
        assert_eq!(nearest_pause_us(&[], (0, 500), 10), None);
    }
}
