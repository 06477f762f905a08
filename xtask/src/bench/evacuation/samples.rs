//! What was measured of each case, and what follows from it.

use anyhow::{Context, Result};
use serde_json::{Value, json};
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

    /// Of each reported gap whether it is that of the probe's frames alone.
    pub(super) fn gaps_of_probe(&self) -> impl Iterator<Item = bool> {
        self.switchovers()
            .flat_map(MeasuredSwitchover::pairs_of_probe)
            .map(|(reported, probe)| agree(reported, probe, self.rate_hz))
    }

    pub(super) fn json(&self) -> Value {
        let phases = PHASES.map(Some).into_iter().chain([None]).map(|phase| {
            json!({
                "phase": phase.unwrap_or("all"),
                "lost": self.of_phase(phase, PhaseLoss::lost).map(Spread::json),
                "longest-gap-ms": self.of_phase(phase, |loss| loss.longest_gap_ms).map(Spread::json),
            })
        });
        json!({
            "case": self.case.key(),
            "rate-hz": self.rate_hz,
            "system": self.case.system.key(),
            "hardware": self.case.hardware(),
            "phases": phases.collect::<Vec<_>>(),
            "tcp-stall-ms": self.spread(|one| Some(one.tcp.stall_ms as f64)).map(Spread::json),
            "vf-ready-ms": self.spread(|one| one.vf_ready_ms).map(Spread::json),
            "evacuations": self.evacuations,
            "failures": self.failures,
        })
    }

    /// What [`Self::json`] gave.
    pub(super) fn of_json(value: &Value) -> Result<Self> {
        let key = value["case"].as_str().context("a system without a name")?;
        let case = Case::of_key(key).with_context(|| format!("no system is called {key}"))?;
        let rate_hz = value["rate-hz"].as_u64().context("no rate")?;
        Ok(Self {
            case,
            rate_hz: u32::try_from(rate_hz)?,
            evacuations: serde_json::from_value(value["evacuations"].clone())?,
            failures: serde_json::from_value(value["failures"].clone())?,
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
    use tandem_lab::evacuation::{System, TcpOutcome};

    use super::*;

    /// An evacuation that lost so many frames in failover, migration and failback.
    pub(in super::super) fn evacuation(lost: [u64; 3]) -> Evacuation {
        let phase = |name: &str, lost| PhaseLoss {
            name: name.to_owned(),
            sent: 1000,
            lost_to_guest: lost,
            lost_from_guest: 0,
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
                broken: None,
            },
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
    fn samples_are_written_and_read() {
        let one = samples(System::TandemWarned, &[[0, 40, 0], [0, 44, 3]]);
        let read = Samples::of_json(&one.json()).unwrap();
        assert_eq!((read.key(), read.evacuations), (one.key(), one.evacuations));
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
