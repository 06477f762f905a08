//! The losses as a picture: SVG 1.1, without scripts or fonts of its own, for light and dark pages. A bar is the
//! median, the line over it reaches from the least to the most.

use std::fmt::Write;

use tandem_lab::evacuation::PhaseLoss;

use super::super::spread::Spread;
use super::samples::Samples;

const WIDTH: f64 = 1160.0;
/// Right end of the names, in pixels.
const NAMES: f64 = 360.0;
/// Height of a row, in pixels.
const ROW: f64 = 24.0;
/// Top of the first row, in pixels.
const TOP: f64 = 84.0;
/// Left end and width of each panel's bars, in pixels; values stand right of them.
const PANELS: [(f64, f64); 2] = [(NAMES + 14.0, 240.0), (NAMES + 400.0, 240.0)];

const STYLE: &str = "\
.page{fill:#ffffff}.ink{fill:#1f2328}.dim{fill:#656d76}.line{stroke:#656d76}.axis{stroke:#d0d7de}\
.own{fill:#2da44e}.peer{fill:#b35900}.floor{fill:#3b82d0}\
@media (prefers-color-scheme:dark){.page{fill:#0d1117}.ink{fill:#e6edf3}.dim{fill:#8d96a0}.line{stroke:#8d96a0}\
.axis{stroke:#30363d}.own{fill:#3fb950}.peer{fill:#e3a04f}.floor{fill:#58a6ff}}";

/// The picture, as the text of an SVG file.
pub(super) fn render(all: &[Samples]) -> String {
    let bottom = TOP + ROW * all.len() as f64 + 20.0;
    let mut body = String::new();
    text(
        &mut body,
        (24.0, 34.0),
        "ink title",
        "Frames lost in an evacuation: median, least and most",
    );
    let switchover =
        |samples: &Samples| samples.spread(|one| Some(one.loss_outside_migration() as f64));
    let total = |samples: &Samples| samples.of_phase(None, PhaseLoss::lost);
    panel(
        &mut body,
        all,
        PANELS[0],
        "while the VF leaves and comes",
        switchover,
    );
    panel(
        &mut body,
        all,
        PANELS[1],
        "in all, the migration included",
        total,
    );
    for (index, samples) in all.iter().enumerate() {
        text(
            &mut body,
            (NAMES, baseline(index)),
            "ink end",
            &samples.name(),
        );
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {bottom}\" width=\"{WIDTH}\" height=\"{bottom}\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"12\">\n\
         <style>{STYLE}.title{{font-size:17px;font-weight:600}}.end{{text-anchor:end}}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{bottom}\" rx=\"8\"/>\n{body}</svg>\n"
    )
}

/// Adds a text in a class of the picture's style.
fn text(body: &mut String, (x, y): (f64, f64), class: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        body,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>"
    );
}

fn baseline(row: usize) -> f64 {
    TOP + ROW * row as f64 + 15.0
}

fn panel(
    body: &mut String,
    all: &[Samples],
    (left, width): (f64, f64),
    title: &str,
    figure: impl Fn(&Samples) -> Option<Spread>,
) {
    text(body, (left, TOP - 16.0), "dim", title);
    let spreads: Vec<_> = all.iter().map(figure).collect();
    let most = spreads
        .iter()
        .flatten()
        .map(|one| one.max)
        .fold(1.0, f64::max);
    let x = |value: f64| left + width * value / most;
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(
        body,
        "<line x1=\"{left:.1}\" y1=\"{:.1}\" x2=\"{left:.1}\" y2=\"{:.1}\" class=\"axis\"/>",
        TOP - 4.0,
        TOP + ROW * all.len() as f64
    );
    for (index, (samples, spread)) in all.iter().zip(&spreads).enumerate() {
        let Some(spread) = spread else {
            text(body, (left + 4.0, baseline(index)), "dim", "no figure");
            continue;
        };
        let top = TOP + ROW * index as f64;
        let class = match samples.case.system {
            system if system.is_tandem() || system.is_carried() => "own",
            tandem_lab::evacuation::System::Floor => "floor",
            _ => "peer",
        };
        let middle = top + 11.0;
        let _ = writeln!(
            body,
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"14\" class=\"{class}\"/>\n\
             <line x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" class=\"line\"/>",
            top + 4.0,
            x(spread.median) - left,
            x(spread.min),
            x(spread.max)
        );
        text(
            body,
            (x(spread.max) + 6.0, baseline(index)),
            "ink",
            &spread.to_string(),
        );
    }
}

#[cfg(test)]
mod tests {
    use tandem_lab::evacuation::System;

    use super::super::samples::tests::samples;
    use super::*;

    #[test]
    fn bars_are_to_scale() {
        let all = [
            samples(System::TandemPlanned, &[[0, 40, 0]]),
            samples(
                System::UnmanagedBond,
                &[[100, 40, 0], [200, 40, 0], [150, 40, 0]],
            ),
            samples(System::NetworkManager, &[]),
        ];
        let picture = render(&all);
        assert!(
            picture.contains("width=\"0.0\" height=\"14\" class=\"own\""),
            "{picture}"
        );
        // 150 of at most 200, of 240 pixels.
        assert!(
            picture.contains("width=\"180.0\" height=\"14\" class=\"peer\""),
            "{picture}"
        );
        assert!(picture.contains(">150 (100..200)<"), "{picture}");
        assert!(
            picture.contains(">NetworkManager's bond (e1000e, ACPI, 1000/s)<"),
            "{picture}"
        );
        assert_eq!(picture.matches(">no figure<").count(), 2);
    }
}
