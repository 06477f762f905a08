//! What the project says of itself, held against the figures of this run.

use tandem_lab::evacuation::{Evacuation, MeasuredSwitchover, PHASES, PhaseLoss, System};

use super::super::report::Claim;
use super::super::spread::Spread;
use super::samples::Samples;

/// Tandem may lose so much more in all than a migration by itself, in the mean of the rounds: what one migration loses
/// varies by a fifth, and of 24 rounds each the medians of two like systems are one time in eight more than a tenth apart,
/// the means one time in 26.
const MOST_OF_THE_FLOOR: f64 = 1.1;
/// What the kernel programs alone may lose of what a bond without Tandem loses.
const MOST_OF_THE_BOND: f64 = 0.1;
/// So many of the reported gaps are to agree with those captured. Between the stamp of Tandem's program and that of the
/// capture an emulated processor may stand still for some ms.
const AGREEING: f64 = 0.95;
/// So much of the rate that a row says is to be sent each way.
const LEAST_OF_THE_RATE: f64 = 0.9;

/// All claims that this run can tell something of.
pub(super) fn all(samples: &[Samples]) -> Vec<Claim> {
    let mut claims = Vec::new();
    for one in samples {
        claims.extend(nothing_lost(one, samples));
        claims.extend(kernel_alone(one, samples));
        claims.extend(not_over_the_floor(one, samples));
        claims.extend(carried(one, samples));
        claims.extend(carried_and_told(one));
        claims.extend(no_slower_than_the_floor(one, samples));
        claims.extend(gaps_are_true(one));
        claims.extend(at_its_rate(one));
    }
    claims
}

/// The bond without Tandem, on the same hardware, at the same rate, in the same run.
fn bond_beside<'all>(samples: &Samples, all: &'all [Samples]) -> Option<&'all Samples> {
    all.iter().find(|one| {
        one.case.system == System::UnmanagedBond
            && one.case.vf == samples.case.vf
            && one.rate_hz == samples.rate_hz
    })
}

/// A migration by itself, at the same rate, in the same run.
fn floor_beside<'all>(samples: &Samples, all: &'all [Samples]) -> Option<&'all Samples> {
    all.iter()
        .find(|one| one.case.system == System::Floor && one.rate_hz == samples.rate_hz)
}

/// Its service and its programs were there all the time.
fn is_whole_tandem(samples: &Samples) -> bool {
    matches!(
        samples.case.system,
        System::TandemPlanned | System::TandemCarried | System::TandemWarned
    )
}

fn failover_loss(samples: &Samples) -> Option<Spread> {
    samples.of_phase(Some(PHASES[0]), PhaseLoss::lost)
}

fn nothing_lost(samples: &Samples, all: &[Samples]) -> Option<Claim> {
    if !is_whole_tandem(samples) {
        return None;
    }
    let (clean, rounds) = (samples.without_loss(), samples.rounds());
    let lost = samples.spread(|one| Some(one.loss_outside_migration() as f64));
    let bond = bond_beside(samples, all)
        .and_then(|bond| bond.spread(|one| Some(one.loss_outside_migration() as f64)));
    let told = |what: &str, spread: Option<Spread>| {
        spread.map_or(String::new(), |spread| format!("; {what} {spread}"))
    };
    let lost = if clean == rounds { None } else { lost };
    (rounds > 0).then(|| Claim {
        text: format!(
            "{}: nothing lost but by the migration in {clean} of {rounds} rounds{}{}",
            samples.name(),
            told("lost", lost),
            told("a bond by a script lost", bond)
        ),
        holds: clean == rounds,
    })
}

fn kernel_alone(samples: &Samples, all: &[Samples]) -> Option<Claim> {
    if samples.case.system != System::TandemKernelAlone {
        return None;
    }
    let own = failover_loss(samples)?;
    let bond = failover_loss(bond_beside(samples, all)?)?;
    let clean = samples
        .evacuations
        .iter()
        .filter(|one| one.phase(PHASES[0]).is_some_and(|loss| loss.lost() == 0))
        .count();
    Some(Claim {
        text: format!(
            "{}: lost in the failover {own}, nothing in {clean} of {} rounds, a bond by a script {bond}: at most a tenth",
            samples.name(),
            samples.rounds(),
        ),
        holds: samples.failures.is_empty() && own.median <= bond.median * MOST_OF_THE_BOND,
    })
}

/// Frames lost in all for each ms that the guests stood still.
fn lost_per_ms(samples: &Samples) -> f64 {
    let sum =
        |figure: fn(&Evacuation) -> u64| samples.evacuations.iter().map(figure).sum::<u64>() as f64;
    sum(|one| one.total.lost()) / sum(|one| one.downtime_ms).max(1.0)
}

/// Frames lost in all, of an evacuation.
fn mean_lost(samples: &Samples) -> f64 {
    let lost: u64 = samples.evacuations.iter().map(|one| one.total.lost()).sum();
    lost as f64 / samples.evacuations.len().max(1) as f64
}

/// What is lost beyond the frames that were sent to the guest while QEMU counted it as stopped.
fn lost_beyond_the_stop(samples: &Samples) -> Option<Spread> {
    let rate = f64::from(samples.rate_hz) / 1e3;
    samples.spread(|one| Some((one.total.lost() as f64 - one.downtime_ms as f64 * rate).round()))
}

fn not_over_the_floor(samples: &Samples, all: &[Samples]) -> Option<Claim> {
    if samples.case.system != System::TandemPlanned {
        return None;
    }
    // With the time that the guest stood still: what a migration loses hangs on that, and varies by itself.
    let total = |samples: &Samples| samples.of_phase(None, PhaseLoss::lost);
    let in_words = |samples: &Samples| {
        let stopped_ms = samples.spread(|one| Some(one.downtime_ms as f64))?;
        Some(format!(
            "{:.1} in the mean of {} rounds (median {}; guest stopped {stopped_ms} ms; {:.2} a ms, {} beyond the stop)",
            mean_lost(samples),
            samples.evacuations.len(),
            total(samples)?,
            lost_per_ms(samples),
            lost_beyond_the_stop(samples)?
        ))
    };
    let floor = floor_beside(samples, all)?;
    Some(Claim {
        text: format!(
            "{}: lost in all {}, the floor {}: at most {MOST_OF_THE_FLOOR} times that",
            samples.name(),
            in_words(samples)?,
            in_words(floor)?
        ),
        holds: mean_lost(samples) <= mean_lost(floor) * MOST_OF_THE_FLOOR,
    })
}

/// With its frames carried, the migration loses nothing either.
fn carried(samples: &Samples, all: &[Samples]) -> Option<Claim> {
    if !samples.case.system.is_carried() {
        return None;
    }
    let (rounds, whole) = (samples.rounds(), samples.whole());
    let own = samples.of_phase(None, PhaseLoss::lost)?;
    let twice = samples.of_phase(None, |loss| loss.twice)?;
    let out_of_order = samples.of_phase(None, |loss| loss.out_of_order())?;
    let floor = floor_beside(samples, all);
    let floor = floor.and_then(|floor| floor.of_phase(None, PhaseLoss::lost));
    let beside = floor.map_or(String::new(), |floor| format!("; the floor lost {floor}"));
    Some(Claim {
        text: format!(
            "{}: nothing lost, twice or out of order in {whole} of {rounds} rounds (lost {own}, twice {twice}, out of order \
             {out_of_order}){beside}",
            samples.name()
        ),
        holds: whole == rounds,
    })
}

/// What `tandem-host` reports as lost is what the probes miss.
fn carried_and_told(samples: &Samples) -> Option<Claim> {
    let missed = |one: &Evacuation| {
        let others = one.others.iter();
        one.total.lost_to_guest + others.map(|other| other.lost_to_guest).sum::<u64>()
    };
    let told = samples.evacuations.iter();
    let told = told.filter_map(|one| Some((missed(one), one.carried.as_ref()?.lost)));
    let told: Vec<_> = told.collect();
    let true_of = told.iter().filter(|(missed, told)| missed == told).count();
    (!told.is_empty()).then(|| Claim {
        text: format!(
            "{}: as many frames as the probes miss are reported as lost in {true_of} of {} rounds",
            samples.name(),
            told.len()
        ),
        holds: true_of == told.len(),
    })
}

/// What an open connection and the guest's own frames wait for is no longer than without a carry.
fn no_slower_than_the_floor(samples: &Samples, all: &[Samples]) -> Option<Claim> {
    if !samples.case.system.is_carried() {
        return None;
    }
    let floor = floor_beside(samples, all)?;
    let figures = |samples: &Samples| {
        let sent_again = samples.spread(|one| Some(one.tcp.sent_again as f64))?;
        let stall_ms = samples.spread(|one| Some(one.tcp.stall_ms as f64))?;
        let gap_ms = samples.of_phase(Some(PHASES[1]), |loss| loss.longest_gap_ms)?;
        Some([sent_again, stall_ms, gap_ms])
    };
    let ([sent_again, stall_ms, gap_ms], beside) = (figures(samples)?, figures(floor)?);
    Some(Claim {
        text: format!(
            "{}: TCP sent {sent_again} segments again, stalled for {stall_ms} ms, and the longest gap was {gap_ms} ms; the floor: \
             {}, {} and {} ms",
            samples.name(),
            beside[0],
            beside[1],
            beside[2]
        ),
        holds: [sent_again, stall_ms, gap_ms]
            .iter()
            .zip(&beside)
            .all(|(own, floor)| own.median <= floor.median),
    })
}

fn gaps_are_true(samples: &Samples) -> Option<Claim> {
    let count =
        |figure: fn(&MeasuredSwitchover) -> usize| samples.switchovers().map(figure).sum::<usize>();
    let (unmeasured, unreported) = (
        count(MeasuredSwitchover::unmeasured),
        count(MeasuredSwitchover::unreported),
    );
    let reported = samples.gaps().count();
    let agreeing = samples.gaps().filter(|agree| *agree).count();
    let of_probe = samples.gaps_of_probe().filter(|agree| *agree).count();
    // A service that stood still meanwhile may never know, and one without eBPF never does.
    let owed = if is_whole_tandem(samples) {
        unreported
    } else {
        0
    };
    let all = reported + owed;
    let told = |count: usize, what: &str| match count {
        0 => String::new(),
        more => format!("; {more} more {what}"),
    };
    let apart = samples.gap_differences_ms().map_or(String::new(), |ms| {
        format!("; reported and captured differ by {ms} ms")
    });
    (all + unmeasured > 0).then(|| Claim {
        text: format!(
            "{}: {agreeing} of {all} gaps are reported as captured beside them, within 20 % or 2 frames: at least {:.0} % \
             (of the probe's numbered frames alone: {of_probe}){apart}{}{}",
            samples.name(),
            AGREEING * 100.0,
            told(unreported, "were captured and not reported"),
            told(unmeasured, "had none beside them"),
        ),
        // Where two switchovers followed each other, the capture's last and first frames are neither's alone.
        holds: all > 0 && agreeing as f64 >= all as f64 * AGREEING,
    })
}

/// Tandem's rounds count at the rate that they are said to be of.
fn at_its_rate(samples: &Samples) -> Option<Claim> {
    if !samples.case.system.is_tandem() {
        return None;
    }
    let (to, from) = samples.sent_per_s()?;
    let least = f64::from(samples.rate_hz) * LEAST_OF_THE_RATE;
    Some(Claim {
        text: format!(
            "{}: {to} frames a second were sent to the guest and {from} from it: at least {:.0} %",
            samples.name(),
            LEAST_OF_THE_RATE * 100.0
        ),
        holds: to.median.min(from.median) >= least,
    })
}

#[cfg(test)]
mod tests {
    use super::super::samples::tests::{samples, switchover};
    use super::*;

    #[test]
    fn a_frame_lost_in_a_switchover_is_a_claim_missed() {
        let floor = samples(System::Floor, &[]);
        let unmeasured = samples(System::TandemPlanned, &[]);
        assert_eq!(all(&[floor, unmeasured]), []);
        let mut clean = samples(System::TandemWarned, &[[0, 40, 0], [0, 44, 0]]);
        let claim = |samples: &Samples| nothing_lost(samples, &[]).unwrap();
        assert!(claim(&clean).holds);
        let lossy = claim(&samples(System::TandemWarned, &[[0, 40, 0], [0, 44, 1]]));
        assert!(
            !lossy.holds && lossy.text.ends_with("1 of 2 rounds; lost 0.5 (0..1)"),
            "{}",
            lossy.text
        );
        clean.failures.push("no VF".to_owned());
        assert!(!claim(&clean).holds);
        let bond = samples(System::UnmanagedBond, &[[9, 9, 9]]);
        assert_eq!(nothing_lost(&bond, &[]), None);
        let beside = nothing_lost(&samples(System::TandemWarned, &[[0, 40, 0]]), &[bond]).unwrap();
        assert!(
            beside.text.ends_with("; a bond by a script lost 18"),
            "{}",
            beside.text
        );
    }

    #[test]
    fn what_is_carried_is_lost_nowhere() {
        let floor = samples(System::Floor, &[[0, 12, 0]]);
        let claim = |losses: &[[u64; 3]]| {
            let one = samples(System::FloorCarried, losses);
            carried(&one, std::slice::from_ref(&floor)).unwrap()
        };
        let (whole, lossy) = (claim(&[[0, 0, 0]]), claim(&[[0, 0, 0], [0, 1, 0]]));
        assert!(
            whole.holds && whole.text.contains("the floor lost"),
            "{}",
            whole.text
        );
        assert!(!lossy.holds, "{}", lossy.text);
        assert!(carried(&floor, &[]).is_none());
    }

    #[test]
    fn the_kernel_alone_may_lose_a_tenth_of_a_bonds_loss() {
        let bond = samples(System::UnmanagedBond, &[[100, 40, 3]]);
        let claim = |lost| {
            let alone = samples(
                System::TandemKernelAlone,
                &[[lost, 40, 50], [0, 40, 0], [lost, 40, 0]],
            );
            kernel_alone(&alone, std::slice::from_ref(&bond)).unwrap()
        };
        assert!(
            claim(10).holds,
            "what the failback loses is no matter of the kernel alone"
        );
        assert!(claim(10).text.contains("nothing in 1 of 3 rounds"));
        assert!(!claim(11).holds);
    }

    #[test]
    fn a_tenth_over_the_floor_is_allowed() {
        let floor = samples(System::Floor, &[[0, 100, 0]]);
        let all = [
            floor,
            samples(System::TandemPlanned, &[[0, 110, 0]]),
            samples(System::TandemPlanned, &[[0, 111, 0]]),
        ];
        let claim = |index: usize| not_over_the_floor(&all[index], &all);
        let holds = |index| claim(index).map(|claim| claim.holds);
        assert_eq!(
            [holds(0), holds(1), holds(2)],
            [None, Some(true), Some(false)]
        );
        let text = claim(1).unwrap().text;
        assert!(
            text.contains(
                "lost in all 110.0 in the mean of 1 rounds (median 110; guest stopped 100 ms; 1.10 a ms, 10 beyond the stop)"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_reported_gap_has_to_be_the_captured_one() {
        let claim = |measured_us: &[Option<u64>]| {
            let mut one = samples(System::TandemWarned, &[[0, 40, 0]]);
            let switchovers = measured_us.iter().map(|us| MeasuredSwitchover {
                measured_transmit_us: None,
                ..switchover(Some(9_000), *us)
            });
            one.evacuations[0].switchovers = switchovers.collect();
            gaps_are_true(&one)
        };
        assert_eq!(claim(&[]), None);
        let mut held = claim(&[Some(11_000), None]).unwrap();
        assert!(held.holds && held.text.contains("1 of 1 gaps"));
        assert!(held.text.ends_with("; 1 more had none beside them"));
        held = claim(&[Some(11_000), Some(12_000)]).unwrap();
        assert!(!held.holds && held.text.contains("1 of 2 gaps"));
        let nearly_all: Vec<_> = (0..20)
            .map(|index| Some(if index == 7 { 90_000 } else { 9_000 }))
            .collect();
        assert!(claim(&nearly_all).unwrap().holds);
        assert!(!claim(&[None]).unwrap().holds);
    }

    #[test]
    fn a_gap_that_nobody_reports_does_not_agree() {
        let mut one = samples(System::TandemPlanned, &[[0, 40, 0]]);
        one.evacuations[0].switchovers = vec![switchover(Some(9_000), Some(9_000))];
        let held = gaps_are_true(&one).unwrap();
        assert!(
            !held.holds && held.text.contains("1 of 2 gaps"),
            "{}",
            held.text
        );
        assert!(
            held.text
                .ends_with("; 1 more were captured and not reported")
        );
    }

    #[test]
    fn a_starved_probe_is_a_claim_missed() {
        let mut one = samples(System::TandemPlanned, &[[0, 40, 0]]);
        assert!(at_its_rate(&one).unwrap().holds);
        one.evacuations[0].sent_per_s = [1000, 899];
        let starved = at_its_rate(&one).unwrap();
        assert!(
            !starved.holds && starved.text.contains("899 from it"),
            "{}",
            starved.text
        );
        let floor = samples(System::Floor, &[[0, 40, 0]]);
        assert_eq!(at_its_rate(&floor), None);
    }

    #[test]
    fn a_broken_connection_is_a_loss() {
        let mut one = samples(System::TandemPlanned, &[[0, 40, 0]]);
        assert!(nothing_lost(&one, &[]).unwrap().holds);
        one.evacuations[0].tcp.broken = Some("reset".to_owned());
        assert!(!nothing_lost(&one, &[]).unwrap().holds);
    }
}
