//! The figures as a picture: SVG 1.1, without scripts or fonts of its own, for light and dark pages. A chart for each
//! axis and figure; the points of a chart are equally far apart, their sizes stand below them.

use std::fmt::Write;

use super::super::svg::text;
use super::{Axis, COLUMNS, Point};

/// Size of a chart's room and of the chart in it, in pixels.
const ROOM: (f64, f64) = (250.0, 130.0);
const CHART: (f64, f64) = (180.0, 60.0);
/// Left and top of the first room, in pixels.
const LEFT: f64 = 24.0;
const TOP: f64 = 60.0;
/// Columns of the table that are drawn.
const DRAWN: [usize; 6] = [0, 2, 3, 4, 5, 8];

const STYLE: &str = "\
.page{fill:#ffffff}.ink{fill:#1f2328}.dim{fill:#656d76}.axis{stroke:#d0d7de}.own{fill:#2da44e}\
.path{stroke:#2da44e;fill:none}\
@media (prefers-color-scheme:dark){.page{fill:#0d1117}.ink{fill:#e6edf3}.dim{fill:#8d96a0}.axis{stroke:#30363d}\
.own{fill:#3fb950}.path{stroke:#3fb950}}";

/// The picture, as the text of an SVG file.
pub(super) fn render(points: &[Point]) -> String {
    let width = LEFT * 2.0 + ROOM.0 * Axis::ALL.len() as f64;
    let height = TOP + ROOM.1 * DRAWN.len() as f64 + 10.0;
    let mut body = String::new();
    text(
        &mut body,
        (LEFT, 34.0),
        "ink title",
        "The guest service's costs, by the guest's size",
    );
    for (across, axis) in Axis::ALL.into_iter().enumerate() {
        let of_axis: Vec<_> = points.iter().filter(|point| point.axis == axis).collect();
        for (down, column) in DRAWN.into_iter().enumerate() {
            let corner = (LEFT + ROOM.0 * across as f64, TOP + ROOM.1 * down as f64);
            chart(&mut body, &of_axis, column, corner);
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"system-ui, 'DejaVu Sans', sans-serif\" font-size=\"11\">\n\
         <style>{STYLE}.title{{font-size:17px;font-weight:600}}.middle{{text-anchor:middle}}</style>\n\
         <rect class=\"page\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n{body}</svg>\n"
    )
}

/// One figure along one axis, from zero up.
fn chart(body: &mut String, points: &[&Point], column: usize, (left, top): (f64, f64)) {
    let values: Vec<_> = points
        .iter()
        .filter_map(|point| Some((point.size, point.values()[column]?.median)))
        .collect();
    let Some(point) = points.first() else {
        return;
    };
    let title = format!("{} by {}", COLUMNS[column], point.axis.name());
    text(body, (left, top + 12.0), "dim", &title);
    let most = values.iter().map(|(_, value)| *value).fold(1e-9, f64::max);
    let base = top + 36.0 + CHART.1;
    let step = CHART.0 / values.len().saturating_sub(1).max(1) as f64;
    let place = |index: usize, value: f64| {
        (
            left + 16.0 + step * index as f64,
            base - CHART.1 * value / most,
        )
    };
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(
        body,
        "<line x1=\"{left:.1}\" y1=\"{base:.1}\" x2=\"{:.1}\" y2=\"{base:.1}\" class=\"axis\"/>",
        left + CHART.0 + 32.0
    );
    let mut path = String::new();
    for (index, (size, value)) in values.iter().enumerate() {
        let (x, y) = place(index, *value);
        let _ = write!(path, "{x:.1},{y:.1} ");
        let _ = writeln!(
            body,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" class=\"own\"/>"
        );
        text(body, (x, y - 6.0), "ink middle", &short(*value));
        text(body, (x, base + 13.0), "dim middle", &size.to_string());
    }
    let _ = writeln!(
        body,
        "<polyline points=\"{}\" class=\"path\"/>",
        path.trim_end()
    );
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::point;
    use super::*;

    #[test]
    fn charts_begin_at_zero() {
        let points = [point(Axis::Links, 10, 1000), point(Axis::Links, 100, 2000)];
        let picture = render(&points);
        assert!(picture.contains(">resident KiB by links<"), "{picture}");
        // Half of the chart's height, and all of it.
        let base = TOP + 36.0 + CHART.1;
        for y in [base - CHART.1 / 2.0, base - CHART.1] {
            assert!(picture.contains(&format!("cy=\"{y:.1}\"")), "{picture}");
        }
        assert!(
            !picture.contains("by routes"),
            "what was not measured is not drawn"
        );
        assert_eq!(picture.matches("NaN").count(), 0);
    }
}
