//! Losses and gaps as a table.

use tandem_lab::evacuation::{Carried, OtherFrames, PHASES, PhaseLoss};

use super::super::spread::Spread;
use super::super::table::Table;
use super::samples::Samples;

/// Losses and gaps of all cases.
pub(super) fn losses(all: &[Samples]) -> Table {
    let mut table = begun(&[
        "gap ms: failover",
        "migration",
        "failback",
        "TCP stall ms",
        "VF ready ms",
        "lead ms",
        "reaction ms",
        "reported: in ms",
        "out ms",
    ]);
    for samples in all {
        let mut row = row(samples);
        let gaps = PHASES.map(|phase| samples.of_phase(Some(phase), |loss| loss.longest_gap_ms));
        let rest = [
            samples.spread(|one| Some(one.tcp.stall_ms as f64)),
            samples.spread(|one| one.vf_ready_ms),
            samples.reported_ms(|one| one.lead_us),
            samples.reported_ms(|one| one.reaction_us),
            samples.reported_ms(|one| one.gap?.receive_us),
            samples.reported_ms(|one| one.gap?.transmit_us),
        ];
        row.extend(gaps.into_iter().chain(rest).map(cell));
        table.rows.push(row);
    }
    table
}

/// What became of the frames where they were carried, and where they were not.
pub(super) fn carried(all: &[Samples]) -> Table {
    let mut table = begun(&[
        "twice",
        "out of order",
        "IPv6: lost",
        "twice",
        "broadcasts: lost",
        "twice",
        "gap ms",
        "TCP stall ms",
        "TCP again",
        "pause ms",
        "latest ms",
        "carried",
    ]);
    let [v6, broadcast] = OtherFrames::ALL.map(|one| one.name);
    for samples in all {
        let mut row = row(samples);
        let others = [v6, broadcast].into_iter().flat_map(|name| {
            [
                samples.of_others(name, |one| one.lost_to_guest),
                samples.of_others(name, |one| one.twice),
            ]
        });
        let carried = |figure: fn(&Carried) -> u64| {
            samples.spread(|one| Some(figure(one.carried.as_ref()?) as f64))
        };
        let rest = [
            samples.of_phase(Some(PHASES[1]), |loss| loss.longest_gap_ms),
            samples.spread(|one| Some(one.tcp.stall_ms as f64)),
            samples.spread(|one| Some(one.tcp.sent_again as f64)),
            samples.spread(|one| Some(one.downtime_ms as f64)),
            carried(|carried| carried.latest_ms),
            carried(|carried| carried.carried),
        ];
        let wrong = [
            samples.of_phase(None, |loss| loss.twice),
            samples.of_phase(None, |loss| loss.out_of_order()),
        ];
        row.extend(wrong.into_iter().chain(others).chain(rest).map(cell));
        table.rows.push(row);
    }
    table
}

/// No row yet; each begins as [`row`] does, and these columns follow.
fn begun(rest: &[&str]) -> Table {
    let first = [
        "system",
        "VF, hot-plug",
        "frames/s",
        "rounds",
        "lost: failover",
        "migration",
        "failback",
        "in all",
    ];
    Table::new(&[&first[..], rest].concat())
}

/// Which case it is, and what was lost.
fn row(samples: &Samples) -> Vec<String> {
    let phases = PHASES.map(Some).into_iter().chain([None]);
    let lost = phases.map(|phase| cell(samples.of_phase(phase, PhaseLoss::lost)));
    let mut row = vec![
        samples.case.system.title().to_owned(),
        samples.case.hardware(),
        samples.rate_hz.to_string(),
        rounds(samples),
    ];
    row.extend(lost);
    row
}

fn cell(spread: Option<Spread>) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| spread.to_string())
}

fn rounds(samples: &Samples) -> String {
    let done = samples.evacuations.len();
    match samples.failures.len() {
        0 => done.to_string(),
        failed => format!("{done}, {failed} failed"),
    }
}

#[cfg(test)]
mod tests {
    use tandem_lab::evacuation::System;

    use super::super::samples::tests::{samples, switchover};
    use super::*;

    #[test]
    fn what_is_carried_has_columns_of_its_own() {
        let mut one = samples(System::FloorCarried, &[[0, 0, 0]]);
        let evacuation = &mut one.evacuations[0];
        evacuation.phases.remove(2);
        evacuation.others = OtherFrames::ALL
            .map(|other| PhaseLoss {
                name: other.name.to_owned(),
                lost_to_guest: 2,
                twice: 3,
                ..PhaseLoss::default()
            })
            .to_vec();
        evacuation.carried = Some(Carried {
            carried: 80,
            latest_ms: 150,
            ..Carried::default()
        });
        let table = carried(&[one]);
        assert_eq!(
            table.rows[0].join("|"),
            "virtio alone, carried|no VF|1000|1|0|0|–|0|0|0|2|3|2|3|1|200|0|100|150|80"
        );
        assert_eq!(table.rows[0].len(), table.head.len());
    }

    #[test]
    fn the_table_has_all_figures_in_columns() {
        let mut floor = samples(System::Floor, &[[0, 40, 0]]);
        floor.evacuations[0]
            .phases
            .retain(|phase| phase.name == "migration");
        floor.evacuations[0].vf_ready_ms = None;
        let mut tandem = samples(
            System::TandemWarned,
            &[[12, 40, 3], [31, 44, 3], [10, 41, 3]],
        );
        tandem.failures.push("no VF".to_owned());
        for (one, us) in tandem.evacuations.iter_mut().zip([5_000, 6_000, 9_000]) {
            one.switchovers.push(switchover(Some(us), None));
        }
        let rows = losses(&[floor, tandem]).rows;
        assert_eq!(
            rows[0].join("|"),
            "virtio alone: the floor|no VF|1000|1|–|40|–|40|–|41|–|200|–|–|–|–|–"
        );
        assert_eq!(
            rows[1][3..8].join("|"),
            "3, 1 failed|12 (10..31)|41 (40..44)|3|55 (54..78)"
        );
        assert_eq!(rows[1][12..].join("|"), "13|43|1.5|6 (5..9)|–");
    }
}
