//! What one evacuation cost.

use serde::{Deserialize, Serialize};
use tandem_core::status::{Switchover, Traffic};

use crate::probe::{FrameReport, Loss, Pauses};

/// What an evacuation cost those who talk with the guest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Evacuation {
    /// The phases of [`super::PHASES`], in order; those that a system does not have are absent.
    pub phases: Vec<PhaseLoss>,
    /// Over the whole probe, also before and after the phases.
    pub total: PhaseLoss,
    /// The longest gap of the probe before the phases, when nothing happens, in ms.
    #[serde(default)]
    pub gap_at_rest_ms: Option<u64>,
    /// The open TCP connection.
    pub tcp: TcpOutcome,
    /// The same over IPv6, and as broadcasts to the guest, if they were sent.
    #[serde(default)]
    pub others: Vec<PhaseLoss>,
    /// What `tandem-host` says of the frames that it carried.
    #[serde(default)]
    pub carried: Option<Carried>,
    /// How long the guest stood still by QEMU's count, or by the carry's, in ms.
    pub downtime_ms: u64,
    /// From the VF's registration in the guest until it could carry the traffic, in ms.
    pub vf_ready_ms: Option<f64>,
    /// What Tandem itself reports.
    pub switchovers: Vec<MeasuredSwitchover>,
    /// Frames a second that were sent to the guest and from it, over the whole probe by the host's clock: a busy
    /// machine sends fewer than it should.
    pub sent_per_s: [u64; 2],
    /// Where on their way to the guest frames were lost.
    pub losses_to_guest: Vec<Loss>,
    /// Where on their way from the guest frames were lost.
    pub losses_from_guest: Vec<Loss>,
}

impl Evacuation {
    /// Frames lost while the VF left and came, before that and after it: all but the migration's.
    pub fn loss_outside_migration(&self) -> u64 {
        let migration = self.phase(super::PHASES[1]).map_or(0, PhaseLoss::lost);
        self.total.lost().saturating_sub(migration)
    }

    /// The phase of this name.
    pub fn phase(&self, name: &str) -> Option<&PhaseLoss> {
        self.phases.iter().find(|phase| phase.name == name)
    }
}

/// What was lost while one thing was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Arrivals beyond the first of the same frame, both ways.
    #[serde(default)]
    pub twice: u64,
    /// Frames that arrived in the guest after one that was sent later.
    #[serde(default)]
    pub late_to_guest: u64,
    /// The same of those from the guest.
    #[serde(default)]
    pub late_from_guest: u64,
    /// The longest time between the sendings of two frames that arrived with none between them that did, of
    /// the worse direction, in ms.
    pub longest_gap_ms: u64,
}

/// What `tandem-host` says of the frames that it carried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Carried {
    /// That were held, on both hosts.
    pub held: u64,
    /// That went to the other host.
    pub carried: u64,
    /// That were lost, as far as it knows.
    pub lost: u64,
    /// Out of order, as far as it knows.
    pub late: u64,
    /// The longest that one of them waited, in ms.
    pub latest_ms: u64,
    /// The most memory for them on one host, in bytes.
    pub most_bytes: u64,
    /// The stop was the carry's own.
    pub stop_was_ours: bool,
}

impl PhaseLoss {
    /// Frames lost both ways.
    pub fn lost(&self) -> u64 {
        self.lost_to_guest + self.lost_from_guest
    }

    /// Frames out of order, both ways.
    pub fn out_of_order(&self) -> u64 {
        self.late_to_guest + self.late_from_guest
    }

    /// The phase of that name, or the whole.
    pub(super) fn of(frames: &FrameReport, name: &str) -> Option<Self> {
        let to_guest = frames.to_guest.phase(name)?;
        let from_guest = frames.to_client.phase(name)?;
        Some(Self::add(name, to_guest, from_guest))
    }

    pub(super) fn total(frames: &FrameReport) -> Self {
        Self::whole("all", frames)
    }

    /// Over the whole probe.
    pub(super) fn whole(name: &str, frames: &FrameReport) -> Self {
        Self::add(name, &frames.to_guest.total, &frames.to_client.total)
    }

    fn add(name: &str, to_guest: &crate::probe::Count, from_guest: &crate::probe::Count) -> Self {
        Self {
            name: name.to_owned(),
            sent: to_guest.sent + from_guest.sent,
            lost_to_guest: to_guest.lost,
            lost_from_guest: from_guest.lost,
            twice: to_guest.duplicated + from_guest.duplicated,
            late_to_guest: to_guest.reordered,
            late_from_guest: from_guest.reordered,
            longest_gap_ms: to_guest.longest_gap_ms.max(from_guest.longest_gap_ms),
        }
    }
}

/// How the TCP connection fared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TcpOutcome {
    /// The longest time either end waited for a record, in ms.
    pub stall_ms: u64,
    /// Segments that either end's kernel sent again.
    #[serde(default)]
    pub sent_again: u64,
    /// Why it broke, if it did.
    pub broken: Option<String>,
}

/// A switchover as Tandem reports it, beside what a capture in the guest says of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MeasuredSwitchover {
    /// `failover` or `failback`.
    pub phase: String,
    /// The report.
    pub reported: Switchover,
    /// The gap that it reports, by the capture: of all unicast frames that the guest received, in µs; nothing if a
    /// phase had more than one switchover.
    pub measured_receive_us: Option<u64>,
    /// The same for those that it sent.
    pub measured_transmit_us: Option<u64>,
    /// The gap of the probe's frames alone, of those that the guest received, in µs.
    pub probe_receive_us: Option<u64>,
    /// The same for those that it sent.
    pub probe_transmit_us: Option<u64>,
}

impl MeasuredSwitchover {
    /// All switchovers of an evacuation beside the pauses measured in failover and failback.
    pub(super) fn all(reported: Vec<Switchover>, [failover, failback]: [Pauses; 2]) -> Vec<Self> {
        let is_back = |switchover: &Switchover| switchover.to == Traffic::Vf;
        let back = reported.iter().filter(|one| is_back(one)).count();
        let away = reported.len() - back;
        let one = |switchover: Switchover| {
            let (phase, count, pauses) = match is_back(&switchover) {
                true => (super::PHASES[2], back, failback),
                false => (super::PHASES[0], away, failover),
            };
            let pauses = match count {
                1 => pauses,
                _ => Pauses::default(),
            };
            Self {
                phase: phase.to_owned(),
                reported: switchover,
                measured_receive_us: pauses.all.receive_us,
                measured_transmit_us: pauses.all.transmit_us,
                probe_receive_us: pauses.probe.receive_us,
                probe_transmit_us: pauses.probe.transmit_us,
            }
        };
        reported.into_iter().map(one).collect()
    }

    /// Reported and measured gaps, of both directions where both are known, in µs.
    pub fn pairs(&self) -> Vec<(u64, u64)> {
        let known = self.gaps().into_iter();
        known
            .filter_map(|(reported, measured)| Some((reported?, measured?)))
            .collect()
    }

    /// Reported gaps that nothing was measured beside.
    pub fn unmeasured(&self) -> usize {
        let gaps = self.gaps().into_iter();
        gaps.filter(|(reported, measured)| reported.is_some() && measured.is_none())
            .count()
    }

    /// Gaps that were measured and not reported.
    pub fn unreported(&self) -> usize {
        let gaps = self.gaps().into_iter();
        gaps.filter(|(reported, measured)| reported.is_none() && measured.is_some())
            .count()
    }

    /// Reported gaps beside those of the probe's frames alone, in µs.
    pub fn pairs_of_probe(&self) -> Vec<(u64, u64)> {
        let gap = self.reported.gap.unwrap_or_default();
        let gaps = [
            gap.receive_us.zip(self.probe_receive_us),
            gap.transmit_us.zip(self.probe_transmit_us),
        ];
        gaps.into_iter().flatten().collect()
    }

    fn gaps(&self) -> [(Option<u64>, Option<u64>); 2] {
        let gap = self.reported.gap.unwrap_or_default();
        [
            (gap.receive_us, self.measured_receive_us),
            (gap.transmit_us, self.measured_transmit_us),
        ]
    }
}

#[cfg(test)]
mod tests {
    use tandem_core::Time;
    use tandem_core::status::SwitchoverCause;

    use super::*;
    use crate::probe::Pause;

    fn switchover(to: Traffic) -> Switchover {
        Switchover {
            number: 1,
            at: Time(1),
            from: Traffic::Other,
            to,
            cause: SwitchoverCause::Planned,
            took_us: None,
            lead_us: None,
            warned_by: None,
            reaction_us: None,
            gap: None,
        }
    }

    #[test]
    fn a_phase_with_two_switchovers_has_no_pause_of_its_own() {
        let pauses = |us| Pauses {
            all: Pause {
                receive_us: Some(us),
                transmit_us: None,
            },
            probe: Pause::default(),
        };
        let of = |to: &[Traffic]| {
            let reported = to.iter().copied().map(switchover).collect();
            let all = MeasuredSwitchover::all(reported, [pauses(1), pauses(2)]);
            all.into_iter()
                .map(|one| (one.phase, one.measured_receive_us))
                .collect::<Vec<_>>()
        };
        let named = |name: &str, us| (name.to_owned(), us);
        assert_eq!(
            of(&[Traffic::Standby, Traffic::Vf]),
            [named("failover", Some(1)), named("failback", Some(2))]
        );
        assert_eq!(
            of(&[Traffic::Standby, Traffic::Vf, Traffic::Vf]),
            [
                named("failover", Some(1)),
                named("failback", None),
                named("failback", None)
            ]
        );
    }
}
