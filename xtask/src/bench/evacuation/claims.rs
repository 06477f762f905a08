//! What the project says of itself, held against the figures of this run.

use tandem_lab::evacuation::{Cost, PhaseLoss, System};

use super::samples::{Samples, agree};

/// Tandem may lose so much more in all than a migration by itself.
const MOST_OF_THE_FLOOR: f64 = 1.1;
/// Tandem's part of networkd's CPU time for a link that is none of its business.
const MOST_OF_NETWORKD: f64 = 0.1;

/// One claim and whether it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) text: String,
    pub(super) holds: bool,
}

impl Claim {
    /// In a line.
    pub(super) fn line(&self) -> String {
        let mark = if self.holds { "ok    " } else { "MISSED" };
        format!("{mark}  {}", self.text)
    }
}

/// All claims that this run can tell something of.
pub(super) fn all(samples: &[Samples], costs: &[(System, Cost)], rate_hz: u32) -> Vec<Claim> {
    let mut claims = Vec::new();
    for one in samples {
        claims.extend(nothing_lost(one));
        claims.extend(not_over_the_floor(one, samples));
        claims.extend(gaps_are_true(one, rate_hz));
    }
    claims.extend(unrelated_links(costs));
    claims
}

fn name(samples: &Samples) -> String {
    format!(
        "{} ({})",
        samples.case.system.title(),
        samples.case.hardware()
    )
}

fn nothing_lost(samples: &Samples) -> Option<Claim> {
    if !matches!(
        samples.case.system,
        System::TandemPlanned | System::TandemWarned
    ) {
        return None;
    }
    let (clean, all) = (
        samples.without_loss(),
        samples.evacuations.len() + samples.failures.len(),
    );
    (all > 0).then(|| Claim {
        text: format!(
            "{}: nothing lost in failover and failback in {clean} of {all} rounds",
            name(samples)
        ),
        holds: clean == all,
    })
}

fn not_over_the_floor(samples: &Samples, all: &[Samples]) -> Option<Claim> {
    if samples.case.system != System::TandemPlanned {
        return None;
    }
    // With the time that the guest stood still: what a migration loses hangs on that, and varies by itself.
    let total = |samples: &Samples| {
        let lost = samples.of_phase(None, PhaseLoss::lost)?.median;
        let stopped_ms = samples.spread(|one| Some(one.downtime_ms as f64))?.median;
        Some((lost, stopped_ms))
    };
    let floor = all.iter().find(|one| one.case.system == System::Floor)?;
    let ((own, own_ms), (floor, floor_ms)) = (total(samples)?, total(floor)?);
    Some(Claim {
        text: format!(
            "{}: lost in all {own:.0} (guest stopped {own_ms:.0} ms), the floor {floor:.0} ({floor_ms:.0} ms): at most \
             {MOST_OF_THE_FLOOR} times that",
            name(samples)
        ),
        holds: own <= floor * MOST_OF_THE_FLOOR,
    })
}

fn gaps_are_true(samples: &Samples, rate_hz: u32) -> Option<Claim> {
    let pairs: Vec<_> = samples
        .handovers()
        .flat_map(tandem_lab::evacuation::Handover::pairs)
        .collect();
    if pairs.is_empty() {
        return None;
    }
    let agreeing = pairs
        .iter()
        .filter(|(reported, probe)| agree(*reported, *probe, rate_hz))
        .count();
    Some(Claim {
        text: format!(
            "{}: {agreeing} of {} reported gaps have their like among the probe's pauses, within 20 % or 2 frames",
            name(samples),
            pairs.len()
        ),
        holds: agreeing == pairs.len(),
    })
}

fn unrelated_links(costs: &[(System, Cost)]) -> Option<Claim> {
    let of = |wanted: fn(System) -> bool| {
        let found = costs.iter().find(|(system, _)| wanted(*system));
        found.map(|(_, cost)| cost.cpu_ms_per_link())
    };
    let own = of(System::is_tandem)?;
    let networkd = of(|system| system == System::Networkd)?;
    Some(Claim {
        text: format!(
            "CPU for an unrelated link: {own:.3} ms, systemd-networkd {networkd:.3} ms: at most a tenth"
        ),
        holds: own <= networkd * MOST_OF_NETWORKD,
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::tests::samples;
    use super::*;

    fn cost(links_cpu_ms: f64) -> Cost {
        Cost {
            resident_kib: 9000,
            wake_ups_per_minute: 0.0,
            pairs: 500,
            links_cpu_ms,
            program_bytes: 5 << 20,
            installed_kib: None,
        }
    }

    #[test]
    fn a_frame_lost_in_a_hand_over_is_a_claim_missed() {
        let floor = samples(System::Floor, &[]);
        let unmeasured = samples(System::TandemPlanned, &[]);
        assert_eq!(all(&[floor, unmeasured], &[], 1000), []);
        let mut clean = samples(System::TandemWarned, &[[0, 40, 0], [0, 44, 0]]);
        let held = |samples: &Samples| nothing_lost(samples).unwrap().holds;
        assert!(held(&clean));
        assert!(!held(&samples(
            System::TandemWarned,
            &[[0, 40, 0], [0, 44, 1]]
        )));
        clean.failures.push("no VF".to_owned());
        assert!(!held(&clean));
        assert_eq!(
            nothing_lost(&samples(System::UnmanagedBond, &[[9, 9, 9]])),
            None
        );
    }

    #[test]
    fn a_tenth_over_the_floor_is_allowed() {
        let floor = samples(System::Floor, &[[0, 100, 0]]);
        let all = [
            floor,
            samples(System::TandemPlanned, &[[0, 110, 0]]),
            samples(System::TandemPlanned, &[[0, 111, 0]]),
        ];
        let holds = |index: usize| not_over_the_floor(&all[index], &all).map(|claim| claim.holds);
        assert_eq!(
            [holds(0), holds(1), holds(2)],
            [None, Some(true), Some(false)]
        );
    }

    #[test]
    fn links_may_cost_a_tenth_of_networkds() {
        let held = |own| {
            let costs = [
                (System::TandemWarned, cost(own)),
                (System::Networkd, cost(500.0)),
            ];
            unrelated_links(&costs).unwrap().holds
        };
        assert!(held(50.0) && !held(50.1));
        assert_eq!(unrelated_links(&[(System::Networkd, cost(1.0))]), None);
    }
}
