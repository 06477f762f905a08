//! What was measured of each case, and what follows from it.

use serde_json::{Value, json};
use tandem_core::status::Switchover;
use tandem_lab::evacuation::{Case, Evacuation, MeasuredSwitchover, PHASES, PhaseLoss};

use super::super::spread::Spread;

/// All evacuations of one case.
#[derive(Debug)]
pub(super) struct Samples {
    pub(super) case: Case,
    /// Frames a second in each direction.
    pub(super) rate_hz: u32,
    pub(super) evacuations: Vec<Evacuation>,
    /// Why evacuations came to no end.
    pub(super) failures: Vec<String>,
}

impl Samples {
    pub(super) fn new(case: Case, rate_hz: u32) -> Self {
        Self {
            case,
            rate_hz,
            evacuations: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Evacuations so far, failed ones too.
    pub(super) fn rounds(&self) -> usize {
        self.evacuations.len() + self.failures.len()
    }

    /// Its name in files.
    pub(super) fn key(&self) -> String {
        format!("{}-{}", self.case.key(), self.rate_hz)
    }

    /// Its name for people.
    pub(super) fn name(&self) -> String {
        let (title, hardware) = (self.case.system.title(), self.case.hardware());
        format!("{title} ({hardware}, {}/s)", self.rate_hz)
    }

    /// Of all evacuations; nothing if one of them has no such figure.
    pub(super) fn spread(&self, figure: impl Fn(&Evacuation) -> Option<f64>) -> Option<Spread> {
        let values: Option<Vec<f64>> = self.evacuations.iter().map(figure).collect();
        Spread::of(values?)
    }

    /// Of a phase, or of the whole.
    pub(super) fn of_phase(
        &self,
        phase: Option<&str>,
        figure: impl Fn(&PhaseLoss) -> u64,
    ) -> Option<Spread> {
        self.spread(|evacuation| {
            let loss = match phase {
                Some(name) => evacuation.phase(name)?,
                None => &evacuation.total,
            };
            Some(figure(loss) as f64)
        })
    }

    /// Frames sent a second, to the guest and from it.
    pub(super) fn sent_per_s(&self) -> Option<(Spread, Spread)> {
        let way = |way: usize| self.spread(|one| Some(one.sent_per_s[way] as f64));
        way(0).zip(way(1))
    }

    /// Of the frames of this name that went beside.
    pub(super) fn of_others(
        &self,
        name: &str,
        figure: impl Fn(&PhaseLoss) -> u64,
    ) -> Option<Spread> {
        self.spread(|one| {
            let other = one.others.iter().find(|other| other.name == name)?;
            Some(figure(other) as f64)
        })
    }

    /// Evacuations with nothing lost, twice or out of order, whatever frames they were.
    pub(super) fn whole(&self) -> usize {
        let is_whole = |loss: &PhaseLoss| loss.lost() + loss.twice + loss.out_of_order() == 0;
        let whole =
            |one: &&Evacuation| std::iter::once(&one.total).chain(&one.others).all(is_whole);
        self.evacuations.iter().filter(whole).count()
    }

    /// Evacuations that lost nothing outside the migration, and kept the TCP connection.
    pub(super) fn without_loss(&self) -> usize {
        let whole = |one: &&Evacuation| one.loss_outside_migration() == 0;
        let whole = self.evacuations.iter().filter(whole);
        whole.filter(|one| one.tcp.broken.is_none()).count()
    }

    pub(super) fn switchovers(&self) -> impl Iterator<Item = &MeasuredSwitchover> {
        self.evacuations
            .iter()
            .flat_map(|evacuation| &evacuation.switchovers)
    }

    /// Of each reported gap whether it is the measured one.
    pub(super) fn gaps(&self) -> impl Iterator<Item = bool> {
        self.switchovers()
            .flat_map(MeasuredSwitchover::pairs)
            .map(|(reported, measured)| agree(reported, measured, self.rate_hz))
    }

    /// How far each reported gap is from the measured one, in ms.
    pub(super) fn gap_differences_ms(&self) -> Option<Spread> {
        let pairs = self.switchovers().flat_map(MeasuredSwitchover::pairs);
        Spread::of(pairs.map(|(reported, measured)| reported.abs_diff(measured) as f64 / 1e3))
    }

    /// A figure of the failovers as Tandem reports them, in ms.
    pub(super) fn reported_ms(
        &self,
        figure: impl Fn(&Switchover) -> Option<u64>,
    ) -> Option<Spread> {
        let failovers = self.switchovers().filter(|one| one.phase == PHASES[0]);
        let known = failovers.filter_map(|one| figure(&one.reported));
        Spread::of(known.map(|us| us as f64 / 1e3))
    }

    /// Of each reported gap whether it is that of the probe's frames alone.
    pub(super) fn gaps_of_probe(&self) -> impl Iterator<Item = bool> {
        self.switchovers()
            .flat_map(MeasuredSwitchover::pairs_of_probe)
            .map(|(reported, probe)| agree(reported, probe, self.rate_hz))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "case": self.case.key(),
            "rate-hz": self.rate_hz,
            "system": self.case.system.key(),
            "hardware": self.case.hardware(),
            "evacuations": self.evacuations,
            "failures": self.failures,
        })
    }
}

/// Whether a reported gap and a measured one are the same: within 20 % or two of the probe's frames.
pub(super) fn agree(reported_us: u64, measured_us: u64, rate_hz: u32) -> bool {
    let frames_us = 2_000_000 / u64::from(rate_hz.max(1));
    reported_us.abs_diff(measured_us) <= frames_us.max(measured_us / 5)
}

#[cfg(test)]
pub(super) mod tests {
    use tandem_core::Time;
    use tandem_core::status::{Gap, SwitchoverCause, Traffic};
    use tandem_lab::evacuation::{System, TcpOutcome};

    use super::*;

    /// An evacuation that lost so many frames in failover, migration and failback.
    pub(in super::super) fn evacuation(lost: [u64; 3]) -> Evacuation {
        let phase = |name: &str, lost| PhaseLoss {
            name: name.to_owned(),
            sent: 1000,
            lost_to_guest: lost,
            lost_from_guest: 0,
            twice: 0,
            late_to_guest: 0,
            late_from_guest: 0,
            longest_gap_ms: lost + 1,
        };
        Evacuation {
            phases: PHASES
                .iter()
                .zip(lost)
                .map(|(name, lost)| phase(name, lost))
                .collect(),
            total: phase("all", lost.iter().sum()),
            gap_at_rest_ms: Some(14),
            tcp: TcpOutcome {
                stall_ms: 200,
                sent_again: 0,
                broken: None,
            },
            others: Vec::new(),
            carried: None,
            downtime_ms: 100,
            vf_ready_ms: Some(12.6),
            switchovers: Vec::new(),
            sent_per_s: [1000, 990],
            losses_to_guest: Vec::new(),
            losses_from_guest: Vec::new(),
        }
    }

    /// Samples of a system on an igb over ACPI.
    pub(in super::super) fn samples(system: System, lost: &[[u64; 3]]) -> Samples {
        let cases = Case::all(
            &[system],
            &[tandem_lab::NicModel::E1000e],
            &[tandem_lab::HotPlug::Acpi],
        );
        let mut samples = Samples::new(cases[0], 1000);
        samples.evacuations = lost.iter().map(|lost| evacuation(*lost)).collect();
        samples
    }

    /// A switchover with these gaps of what was received.
    pub(in super::super) fn switchover(
        receive_us: Option<u64>,
        measured_receive_us: Option<u64>,
    ) -> MeasuredSwitchover {
        MeasuredSwitchover {
            phase: "failover".to_owned(),
            reported: Switchover {
                number: 2,
                at: Time(1),
                from: Traffic::Vf,
                to: Traffic::Standby,
                cause: SwitchoverCause::Warned,
                took_us: Some(2_500),
                lead_us: Some(43_100),
                warned_by: None,
                reaction_us: Some(1_500),
                gap: Some(Gap {
                    receive_us,
                    ..Gap::default()
                }),
            },
            measured_receive_us,
            measured_transmit_us: Some(1_000),
            probe_receive_us: measured_receive_us.map(|us| us + 1_000),
            probe_transmit_us: None,
        }
    }

    #[test]
    fn a_phase_that_one_evacuation_lacks_has_no_figure() {
        let mut samples = samples(System::TandemPlanned, &[[0, 40, 0], [0, 44, 3]]);
        let lost = |samples: &Samples, phase| samples.of_phase(phase, PhaseLoss::lost);
        assert_eq!(lost(&samples, Some("migration")).unwrap().median, 42.0);
        assert_eq!(lost(&samples, None).unwrap().max, 47.0);
        assert_eq!(samples.without_loss(), 1);
        samples.evacuations[0].phases.remove(1);
        assert_eq!(lost(&samples, Some("migration")), None);
    }

    #[test]
    fn gaps_agree_within_a_fifth_or_two_frames() {
        assert!(agree(0, 2_000, 1000));
        assert!(!agree(0, 2_001, 1000));
        assert!(agree(80_000, 100_000, 1000));
        assert!(!agree(79_000, 100_000, 1000));
        assert!(agree(10_000, 0, 200));
    }
}
