//! Draws a timeline for a terminal, 100 columns wide.

use std::fmt::Write;

use super::{Carrier, Frames, Phase, PhaseKind, Timeline, seconds, tick_label};

/// Columns of the whole picture.
const WIDTH: usize = 100;
/// Columns left of the time axis.
const MARGIN: usize = 9;
/// Columns of the time axis.
const AXIS: usize = WIDTH - MARGIN;

/// Whether escape sequences are written; only a terminal wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Plain text.
    Off,
    /// ANSI colours.
    On,
}

/// Colours of ECMA-48's SGR, the first eight, so that the terminal's own theme decides their shade.
#[derive(Debug, Clone, Copy)]
enum Ink {
    Red = 31,
    Green = 32,
    Yellow = 33,
    Blue = 34,
    Bold = 1,
}

impl Colour {
    fn paint(self, ink: Ink, text: &str) -> String {
        match self {
            Self::On => format!("\x1b[{}m{text}\x1b[0m", ink as u8),
            Self::Off => text.to_owned(),
        }
    }
}

/// The table of phases, the picture of who carried the traffic, and the verdict.
pub fn render(timeline: &Timeline, colour: Colour) -> String {
    let mut lines = vec![colour.paint(Ink::Bold, &timeline.title), String::new()];
    lines.extend(table(timeline, colour));
    lines.push(String::new());
    lines.extend(picture(timeline, colour));
    lines.push(String::new());
    lines.push(timeline.tcp_sentence());
    lines.extend(timeline.notes.iter().cloned());
    let (ink, word) = if timeline.verdict.passed {
        (Ink::Green, "PASSED")
    } else {
        (Ink::Red, "FAILED")
    };
    lines.push(format!(
        "{} {}",
        colour.paint(ink, &format!("{word}:")),
        timeline.verdict.text
    ));
    let mut text = String::new();
    for line in lines {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn table(timeline: &Timeline, colour: Colour) -> Vec<String> {
    let mut rows = vec![
        format!(
            "{:>64}{:>16}{:>10}",
            "guest → peer", "peer → guest", "longest"
        ),
        format!(
            " #  {:14} {:>8}  {:21} {:>6} {:>6}   {:>6} {:>6}   {:>7}   {:>7}",
            "phase", "took", "active port", "sent", "lost", "sent", "lost", "gap", "carried"
        ),
    ];
    for (index, phase) in timeline.phases.iter().enumerate() {
        rows.push(format!(
            "{:>2}  {:14} {:>8}  {:21} {}   {:>7}   {:>7}",
            index + 1,
            shortened(&phase.name, 14),
            seconds(phase.end_ms.saturating_sub(phase.start_ms)),
            timeline.carriers_in(phase),
            both(phase.from_guest, phase.to_guest, colour),
            format!("{} ms", phase.longest_gap_ms),
            phase
                .carried
                .map_or_else(String::new, |count| count.to_string()),
        ));
    }
    for (kind, label) in [
        (PhaseKind::Switchover, "switchover phases together"),
        (PhaseKind::Migration, "migration's own"),
    ] {
        if timeline.has(kind) {
            let (from, to) = timeline.frames(kind);
            rows.push(format!("    {label:46} {}", both(from, to, colour)));
        }
    }
    rows
}

fn both(from: Frames, to: Frames, colour: Colour) -> String {
    format!("{}   {}", frames(from, colour), frames(to, colour))
}

fn frames(frames: Frames, colour: Colour) -> String {
    let lost = format!("{:>6}", frames.lost);
    let lost = if frames.lost > 0 {
        colour.paint(Ink::Yellow, &lost)
    } else {
        lost
    };
    format!("{:>6} {lost}", frames.sent)
}

fn picture(timeline: &Timeline, colour: Colour) -> Vec<String> {
    let mut rows = vec![
        row("phase", &phase_row(timeline)),
        row(
            "VF",
            &carrier_row(timeline, Carrier::Vf, '█', Ink::Green, colour),
        ),
        row(
            "standby",
            &carrier_row(timeline, Carrier::Standby, '█', Ink::Blue, colour),
        ),
    ];
    if timeline
        .segments()
        .iter()
        .any(|segment| segment.carrier == Carrier::Nobody)
    {
        rows.push(row(
            "nobody",
            &carrier_row(timeline, Carrier::Nobody, '!', Ink::Red, colour),
        ));
    }
    rows.extend(axis_rows(timeline));
    rows
}

fn row(label: &str, cells: &str) -> String {
    format!("{label:MARGIN$}{cells}")
}

/// The phases' names between their borders, or their numbers in the table where a name has no room.
fn phase_row(timeline: &Timeline) -> String {
    let mut cells = vec![' '; AXIS];
    for (index, phase) in timeline.phases.iter().enumerate() {
        let (start, end) = columns(timeline, phase.start_ms, phase.end_ms);
        for (offset, cell) in phase_cells(index + 1, phase, end - start)
            .into_iter()
            .enumerate()
        {
            cells[start + offset] = cell;
        }
    }
    cells.into_iter().collect()
}

fn phase_cells(number: usize, phase: &Phase, width: usize) -> Vec<char> {
    let named = format!("{number} {}", phase.name);
    let label = if named.chars().count() < width {
        named
    } else {
        number.to_string()
    };
    let mut cells = vec!['─'; width];
    cells[0] = '├';
    for (cell, letter) in cells.iter_mut().skip(1).zip(label.chars()) {
        *cell = letter;
    }
    cells
}

fn carrier_row(
    timeline: &Timeline,
    carrier: Carrier,
    mark: char,
    ink: Ink,
    colour: Colour,
) -> String {
    let mut cells = vec!['·'; AXIS];
    for segment in timeline
        .segments()
        .iter()
        .filter(|segment| segment.carrier == carrier)
    {
        let (start, end) = columns(timeline, segment.start_ms, segment.end_ms);
        cells[start..end].fill(mark);
    }
    let mut text = String::new();
    for run in cells.chunk_by(|a, b| a == b) {
        let cells: String = run.iter().collect();
        text += &if run[0] == mark {
            colour.paint(ink, &cells)
        } else {
            cells
        };
    }
    text
}

fn axis_rows(timeline: &Timeline) -> [String; 2] {
    let step_ms = timeline.tick_ms(10);
    let mut line = vec!['─'; AXIS];
    let mut labels = vec![' '; AXIS];
    for at_ms in (0..timeline.length_ms()).step_by(usize::try_from(step_ms).unwrap_or(usize::MAX)) {
        let at = column(timeline, timeline.start_ms() + at_ms);
        line[at] = '┴';
        for (cell, letter) in labels.iter_mut().skip(at).zip(tick_label(at_ms).chars()) {
            *cell = letter;
        }
    }
    [
        row("", &line.into_iter().collect::<String>()),
        row("", &labels.into_iter().collect::<String>()),
    ]
}

/// From which column to before which: at least one, so that nothing short goes unseen.
fn columns(timeline: &Timeline, start_ms: u64, end_ms: u64) -> (usize, usize) {
    let start = column(timeline, start_ms).min(AXIS - 1);
    (start, column(timeline, end_ms).max(start + 1))
}

fn column(timeline: &Timeline, at_ms: u64) -> usize {
    let since_ms = at_ms
        .saturating_sub(timeline.start_ms())
        .min(timeline.length_ms());
    usize::try_from(since_ms * AXIS as u64 / timeline.length_ms()).unwrap_or(AXIS)
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::sample;

    #[test]
    fn the_sample_looks_as_it_should() {
        let drawn = render(&sample::timeline(), Colour::Off);
        assert_eq!(drawn, include_str!("sample.txt"), "drawn:\n{drawn}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let mut timeline = sample::timeline();
        timeline.phases[0].name = "a name that is much longer than its column".to_owned();
        let drawn = render(&timeline, Colour::Off);
        let widest = drawn.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(WIDTH), "{drawn}");
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let timeline = sample::timeline();
        let mut plain = render(&timeline, Colour::On);
        assert!(plain.contains('\x1b'));
        for code in ["0", "1", "31", "32", "33", "34"] {
            plain = plain.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(plain, render(&timeline, Colour::Off));
    }
}
