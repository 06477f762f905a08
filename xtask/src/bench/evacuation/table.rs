//! Losses and gaps as a table.

use tandem_lab::evacuation::{PHASES, PhaseLoss};

use super::super::spread::Spread;
use super::super::table::Table;
use super::samples::Samples;

/// Losses and gaps of all cases.
pub(super) fn losses(all: &[Samples]) -> Table {
    let mut table = Table::new(&[
        "system",
        "VF, hot-plug",
        "frames/s",
        "rounds",
        "lost: failover",
        "migration",
        "failback",
        "in all",
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
    let phases = PHASES.map(Some);
    for samples in all {
        let cell = |spread: Option<Spread>| match spread {
            Some(spread) => spread.to_string(),
            None => "–".to_owned(),
        };
        let mut row = vec![
            samples.case.system.title().to_owned(),
            samples.case.hardware(),
            samples.rate_hz.to_string(),
            rounds(samples),
        ];
        row.extend(
            phases
                .into_iter()
                .chain([None])
                .map(|phase| cell(samples.of_phase(phase, PhaseLoss::lost))),
        );
        row.extend(
            phases
                .into_iter()
                .map(|phase| cell(samples.of_phase(phase, |loss| loss.longest_gap_ms))),
        );
        row.push(cell(samples.spread(|one| Some(one.tcp.stall_ms as f64))));
        row.push(cell(samples.spread(|one| one.vf_ready_ms)));
        row.push(cell(samples.reported_ms(|one| one.lead_us)));
        row.push(cell(samples.reported_ms(|one| one.reaction_us)));
        row.push(cell(samples.reported_ms(|one| one.gap?.receive_us)));
        row.push(cell(samples.reported_ms(|one| one.gap?.transmit_us)));
        table.rows.push(row);
    }
    table
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
