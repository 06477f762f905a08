//! Draws a timeline as a picture: SVG 1.1, without scripts or fonts of its own, for light and dark pages.

use std::fmt::Write;

use super::{Carrier, Frames, PhaseKind, Timeline, seconds, tick_label};

/// Width of the picture in pixels.
const WIDTH: f64 = 960.0;
/// Left end of the time axis, in pixels.
const LEFT: f64 = 90.0;
/// Right end of the time axis, in pixels.
const RIGHT: f64 = WIDTH - 24.0;
/// Top of the band of phases, in pixels.
const BAND_TOP: f64 = 64.0;
/// Height of a lane, in pixels.
const LANE: f64 = 26.0;
/// Distance of two lanes' tops, in pixels.
const LANE_STEP: f64 = 34.0;
/// Height of a table's row, in pixels.
const ROW: f64 = 21.0;
/// About the width of a letter at 12 pixels, to tell whether a name has room.
const LETTER: f64 = 6.8;

const STYLE: &str = "\
.page{fill:#ffffff}.ink{fill:#1f2328}.dim{fill:#656d76}.line{stroke:#d0d7de}\
.even{fill:#eef1f4}.odd{fill:#dde3e9}.vf{fill:#2da44e}.standby{fill:#3b82d0}.nobody{fill:#cf222e}.lost{fill:#b35900}\
@media (prefers-color-scheme:dark){.page{fill:#0d1117}.ink{fill:#e6edf3}.dim{fill:#8d96a0}.line{stroke:#30363d}\
.even{fill:#1b222b}.odd{fill:#262e38}.vf{fill:#3fb950}.standby{fill:#58a6ff}.nobody{fill:#f85149}.lost{fill:#e3a04f}}";

/// Right edges of the table's columns of numbers, in pixels: took, sent and lost from the guest, sent and
/// lost to the guest, longest gap.
const COLUMNS: [f64; 6] = [290.0, 540.0, 600.0, 700.0, 760.0, 900.0];
/// Left edge of the table's column of carriers, in pixels.
const CARRIERS: f64 = 320.0;

/// The whole picture, as the text of an SVG file.
pub fn render(timeline: &Timeline) -> String {
    let mut page = Page::default();
    page.text(24.0, 34.0, "ink title", &timeline.title);
    let table_top = lanes(&mut page, timeline) + 44.0;
    let table_bottom = table(&mut page, timeline, table_top);
    let bottom = verdict(&mut page, timeline, table_bottom + 30.0) + 12.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {bottom}\" width=\"{WIDTH}\" height=\"{bottom}\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"12\">\n\
         <style>{STYLE}.title{{font-size:17px;font-weight:600}}.strong{{font-weight:600}}.end{{text-anchor:end}}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{bottom}\" rx=\"8\"/>\n{}</svg>\n",
        page.body
    )
}

#[derive(Default)]
struct Page {
    body: String,
}

impl Page {
    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(
            self.body,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>",
            escaped(text)
        );
    }

    /// A rectangle with a tooltip; at least a pixel wide, so that nothing short goes unseen.
    fn rect(&mut self, (x, y): (f64, f64), (width, height): (f64, f64), class: &str, tip: &str) {
        let _ = writeln!(
            self.body,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" class=\"{class}\"><title>{}</title></rect>",
            width.max(1.0),
            escaped(tip)
        );
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
        let _ = writeln!(
            self.body,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" class=\"line\"/>"
        );
    }
}

/// The band of phases, a lane for each carrier and the time axis; gives the lower end.
fn lanes(page: &mut Page, timeline: &Timeline) -> f64 {
    let mut carriers = vec![Carrier::Vf, Carrier::Standby];
    if timeline
        .segments()
        .iter()
        .any(|segment| segment.carrier == Carrier::Nobody)
    {
        carriers.push(Carrier::Nobody);
    }
    let bottom = BAND_TOP + LANE_STEP * (carriers.len() + 1) as f64;
    for (index, phase) in timeline.phases.iter().enumerate() {
        let (left, right) = (x(timeline, phase.start_ms), x(timeline, phase.end_ms));
        let shade = if index % 2 == 0 { "even" } else { "odd" };
        let named = format!("{} {}", index + 1, phase.name);
        page.rect(
            (left, BAND_TOP),
            (right - left, bottom - BAND_TOP),
            shade,
            &named,
        );
        let has_room = named.chars().count() as f64 * LETTER + 8.0 < right - left;
        let label = if has_room {
            named
        } else {
            (index + 1).to_string()
        };
        page.text(left + 4.0, BAND_TOP + 17.0, "ink", &label);
    }
    for (index, carrier) in carriers.into_iter().enumerate() {
        lane(
            page,
            timeline,
            carrier,
            BAND_TOP + LANE_STEP * (index + 1) as f64,
        );
    }
    axis(page, timeline, bottom);
    bottom
}

fn lane(page: &mut Page, timeline: &Timeline, carrier: Carrier, top: f64) {
    let class = match carrier {
        Carrier::Vf => "vf",
        Carrier::Standby => "standby",
        Carrier::Nobody => "nobody",
    };
    page.text(LEFT - 10.0, top + 17.0, "ink end", carrier.label());
    for segment in timeline
        .segments()
        .iter()
        .filter(|segment| segment.carrier == carrier)
    {
        let (left, right) = (x(timeline, segment.start_ms), x(timeline, segment.end_ms));
        let tip = format!(
            "{}: {} ms",
            carrier.label(),
            segment.end_ms - segment.start_ms
        );
        page.rect((left, top), (right - left, LANE), class, &tip);
    }
}

fn axis(page: &mut Page, timeline: &Timeline, top: f64) {
    page.line((LEFT, top), (RIGHT, top));
    let step_ms = usize::try_from(timeline.tick_ms(12)).unwrap_or(usize::MAX);
    for at_ms in (0..timeline.length_ms()).step_by(step_ms) {
        let at = x(timeline, timeline.start_ms() + at_ms);
        page.line((at, top), (at, top + 5.0));
        page.text(at + 3.0, top + 16.0, "dim", &tick_label(at_ms));
    }
}

/// The table of phases; gives its lower end.
fn table(page: &mut Page, timeline: &Timeline, top: f64) -> f64 {
    page.text(COLUMNS[2], top, "dim end", "guest → peer");
    page.text(COLUMNS[4], top, "dim end", "peer → guest");
    let mut y = top + ROW;
    page.text(24.0, y, "dim", "phase");
    page.text(CARRIERS, y, "dim", "carried by");
    for (right, heading) in
        COLUMNS
            .into_iter()
            .zip(["took", "sent", "lost", "sent", "lost", "longest gap"])
    {
        page.text(right, y, "dim end", heading);
    }
    page.line((24.0, y + 6.0), (RIGHT, y + 6.0));
    for (index, phase) in timeline.phases.iter().enumerate() {
        y += ROW;
        page.text(24.0, y, "ink", &format!("{} {}", index + 1, phase.name));
        page.text(CARRIERS, y, "ink", &timeline.carriers_in(phase));
        page.text(
            COLUMNS[0],
            y,
            "ink end",
            &seconds(phase.end_ms.saturating_sub(phase.start_ms)),
        );
        frames(page, y, phase.from_guest, phase.to_guest);
        page.text(
            COLUMNS[5],
            y,
            "ink end",
            &format!("{} ms", phase.longest_gap_ms),
        );
    }
    page.line((24.0, y + 6.0), (RIGHT, y + 6.0));
    for (kind, label) in [
        (PhaseKind::Switchover, "switchover phases together"),
        (PhaseKind::Migration, "the migration's own loss: the floor"),
    ] {
        if timeline.has(kind) {
            y += ROW;
            let (from, to) = timeline.frames(kind);
            page.text(24.0, y, "ink strong", label);
            frames(page, y, from, to);
        }
    }
    y
}

fn frames(page: &mut Page, y: f64, from_guest: Frames, to_guest: Frames) {
    for (columns, frames) in [(&COLUMNS[1..3], from_guest), (&COLUMNS[3..5], to_guest)] {
        page.text(columns[0], y, "ink end", &frames.sent.to_string());
        let class = if frames.lost > 0 {
            "lost strong end"
        } else {
            "ink end"
        };
        page.text(columns[1], y, class, &frames.lost.to_string());
    }
}

/// The closing sentences; gives their lower end.
fn verdict(page: &mut Page, timeline: &Timeline, top: f64) -> f64 {
    let mut y = top;
    page.text(24.0, y, "ink", &timeline.tcp_sentence());
    for note in &timeline.notes {
        y += ROW;
        page.text(24.0, y, "ink", note);
    }
    y += ROW;
    let (class, word) = if timeline.verdict.passed {
        ("vf", "Passed")
    } else {
        ("nobody", "Failed")
    };
    page.rect((24.0, y - 10.0), (10.0, 10.0), class, word);
    page.text(
        42.0,
        y,
        "ink strong",
        &format!("{word}: {}", timeline.verdict.text),
    );
    y
}

fn x(timeline: &Timeline, at_ms: u64) -> f64 {
    let since_ms = at_ms
        .saturating_sub(timeline.start_ms())
        .min(timeline.length_ms());
    LEFT + (RIGHT - LEFT) * since_ms as f64 / timeline.length_ms() as f64
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timeline::sample;

    #[test]
    fn what_is_drawn_is_well_formed_and_escaped() {
        let drawn = render(&sample::timeline());
        assert!(
            drawn.contains("a sample &amp; its &lt;parts&gt;"),
            "{drawn}"
        );
        for element in ["text", "rect", "title", "style", "svg"] {
            let opened = drawn.matches(&format!("<{element} ")).count()
                + drawn.matches(&format!("<{element}>")).count();
            let closed = drawn.matches(&format!("</{element}>")).count();
            // The page itself is the one rectangle without a tooltip.
            assert_eq!(opened, closed + usize::from(element == "rect"), "{element}");
        }
    }

    #[test]
    fn a_gap_of_a_millisecond_is_drawn() {
        let drawn = render(&sample::timeline());
        assert!(
            drawn.contains("width=\"1.0\" height=\"26.0\" class=\"nobody\"><title>nobody: 1 ms"),
            "{drawn}"
        );
    }

    #[test]
    fn a_failure_is_drawn_as_one() {
        let mut timeline = sample::timeline();
        timeline.verdict.passed = false;
        timeline.tcp_alive = false;
        let drawn = render(&timeline);
        assert!(drawn.contains("Failed: ") && drawn.contains("TCP connection: LOST"));
        assert!(!drawn.contains("Passed: "));
    }
}
