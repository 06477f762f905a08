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
        "sent/s to, from",
        "rounds",
        "lost: failover",
        "migration",
        "failback",
        "in all",
        "gap ms: failover",
        "migration",
        "failback",
        "guest stopped ms",
        "TCP stall ms",
        "VF ready ms",
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
            sent(samples),
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
        row.push(cell(samples.spread(|one| Some(one.downtime_ms as f64))));
        row.push(cell(samples.spread(|one| Some(one.tcp.stall_ms as f64))));
        row.push(cell(samples.spread(|one| one.vf_ready_ms)));
        table.rows.push(row);
    }
    table
}

/// Medians of both ways.
fn sent(samples: &Samples) -> String {
    match samples.sent_per_s() {
        Some((to, from)) => format!("{:.0}, {:.0}", to.median, from.median),
        None => "–".to_owned(),
    }
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

    use super::super::samples::tests::samples;
    use super::*;

    #[test]
    fn the_table_has_all_figures_in_columns() {
        let mut all = vec![
            samples(System::Floor, &[[0, 40, 0]]),
            samples(
                System::UnmanagedBond,
                &[[12, 40, 3], [31, 44, 3], [10, 41, 3]],
            ),
        ];
        all[0].evacuations[0]
            .phases
            .retain(|phase| phase.name == "migration");
        all[0].evacuations[0].vf_ready_ms = None;
        all[1].failures.push("no VF".to_owned());
        let text = losses(&all).text();
        let lines: Vec<_> = text.lines().collect();
        let words = |line: &str| {
            line.split("  ")
                .map(str::trim)
                .filter(|word| !word.is_empty())
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(
            words(lines[1]),
            [
                "virtio alone: the floor",
                "no VF",
                "1000",
                "1000, 990",
                "1",
                "–",
                "40",
                "–",
                "40",
                "–",
                "41",
                "–",
                "100",
                "200",
                "–"
            ]
        );
        assert_eq!(
            words(lines[2])[4..9],
            [
                "3, 1 failed",
                "12 (10..31)",
                "41 (40..44)",
                "3",
                "55 (54..78)"
            ]
        );
        assert_eq!(words(lines[2])[14], "13");
    }
}
