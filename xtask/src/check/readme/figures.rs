//! README.md's table of results has the figures of the results' pages.

/// Where the figures come from.
pub(super) const RESULTS: [&str; 2] = ["tests/results/carried.md", "tests/results/evacuation.md"];
/// Rows of README.md's table.
const ROWS: usize = 5;
/// Frames a second of the rows that README.md shows.
const RATE: &str = "1000";
/// Columns of the results' pages: system, NIC and hot-plug, rate.
const SYSTEM: [usize; 3] = [0, 1, 2];
/// Their columns of lost frames: failover, migration, failback, in all.
const LOST: [usize; 4] = [4, 5, 6, 7];

/// A line for each row of README.md whose figures the results' pages do not have.
pub(super) fn others(readme: &str, results: &str) -> Vec<String> {
    let rows = shown(readme);
    if rows.len() != ROWS {
        return vec![format!(
            "README.md: {} rows of results, not {ROWS}",
            rows.len()
        )];
    }
    let known: Vec<Vec<String>> = results.lines().filter_map(measured).collect();
    let unknown = rows.iter().filter(|row| !known.contains(row));
    unknown
        .map(|row| {
            format!(
                "README.md: the row `{}` is not in {}",
                row.join(" | "),
                RESULTS.join(" or ")
            )
        })
        .collect()
}

/// Rows of README.md's table: system, then four figures.
fn shown(readme: &str) -> Vec<Vec<String>> {
    let mut lines = readme
        .lines()
        .skip_while(|line| !line.starts_with("| system |"));
    let rows = lines.by_ref().skip(2);
    rows.map_while(cells).collect()
}

/// A row of the results' pages as README.md shows it: medians only.
fn measured(line: &str) -> Option<Vec<String>> {
    let cells = cells(line)?;
    let [system, nic, rate] = SYSTEM.map(|at| cells.get(at).cloned().unwrap_or_default());
    if rate != RATE || cells.len() <= LOST[3] {
        return None;
    }
    let name = match nic.as_str() {
        "no VF" => system,
        nic => format!("{system} ({nic})"),
    };
    let median = |at: usize| cells[at].split(" (").next().unwrap_or("").to_owned();
    Some([vec![name], LOST.map(median).to_vec()].concat())
}

/// The cells of a table's row, without emphasis.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells = inner.split('|');
    Some(cells.map(|cell| cell.trim().replace("**", "")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESULT: &str = "| virtio: the floor | no VF | 1000 | 24 | – | 20 (13..25) | – | 20 (13..25) | x |\n\
        | a bond | igb, ACPI | 1000 | 5 | 878 (1..2) | 27 (1..3) | 6 | 905 (8..9) | x |\n";

    #[test]
    fn a_figure_that_was_not_measured_is_found() {
        let table = |last: &str| {
            let row = "| virtio: the floor | – | 20 | – | 20 |\n";
            format!(
                "| system | a | b | c | d |\n|---|--:|--:|--:|--:|\n{row}{row}{row}{row}{last}\n"
            )
        };
        let sound = table("| **a bond** (igb, ACPI) | 878 | 27 | 6 | 905 |");
        assert_eq!(others(&sound, RESULT), Vec::<String>::new());
        let wrong = table("| **a bond** (igb, ACPI) | 878 | 27 | 6 | 5 |");
        let found = others(&wrong, RESULT);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("27 | 6 | 5"), "{found:?}");
        assert_eq!(others("no table", RESULT).len(), 1);
    }
}
