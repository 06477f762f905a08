//! The results as lines of a terminal and as rows of a page: the same cells.

use tandem_lab::evacuation::{PHASES, PhaseLoss};

use super::samples::Samples;

/// A table: what stands above the columns, and the rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|cell| (*cell).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Columns as wide as their widest cell; the first two to the left, numbers to the right.
    pub(super) fn text(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| {
            let cells = all().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<_> = (0..self.head.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).enumerate();
            let cells: Vec<_> = cells
                .map(|(column, (cell, width))| match column {
                    0 | 1 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                })
                .collect();
            format!("{}\n", cells.join("  ").trim_end())
        };
        all().map(line).collect()
    }

    /// The same in Markdown.
    pub(super) fn markdown(&self) -> String {
        let line = |row: &[String]| format!("| {} |\n", row.join(" | "));
        let rule: Vec<_> = (0..self.head.len())
            .map(|column| if column < 2 { "---" } else { "--:" }.to_owned())
            .collect();
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!("{}{}{rows}", line(&self.head), line(&rule))
    }
}

/// Losses and gaps of all cases.
pub(super) fn losses(all: &[Samples]) -> Table {
    let mut table = Table::new(&[
        "system",
        "VF, hot-plug",
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
        let cell = |spread: Option<super::spread::Spread>| match spread {
            Some(spread) => spread.to_string(),
            None => "–".to_owned(),
        };
        let mut row = vec![
            samples.case.system.title().to_owned(),
            samples.case.hardware(),
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
            words(lines[2])[2..7],
            [
                "3, 1 failed",
                "12 (10..31)",
                "41 (40..44)",
                "3",
                "55 (54..78)"
            ]
        );
        assert_eq!(words(lines[2])[12], "13");
    }

    #[test]
    fn markdown_has_a_rule() {
        let mut table = Table::new(&["a", "b", "c"]);
        table.rows.push(["x", "y", "1"].map(str::to_owned).to_vec());
        assert_eq!(
            table.markdown(),
            "| a | b | c |\n| --- | --- | --: |\n| x | y | 1 |\n"
        );
        assert_eq!(table.text(), "a  b  c\nx  y  1\n");
    }
}
