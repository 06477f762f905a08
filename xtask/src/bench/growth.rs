//! `cargo xtask bench --growth`: how the service's own costs grow with the guest's size.
//!
//! One guest, one axis after the other: addresses on the bond, routes through it, unrelated links (veth), bonds.
//! At each point of an axis the same is measured, all of it by the guest's kernel or by the service's own status:
//! memory, processor time of the step and of a full re-reading, the switches of a hand-over to and fro, a start.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tandem_lab::artifacts::cache;
use tandem_lab::{Lab, command};

use guest::{Measured, Patient};

mod guest;

/// Once a link more costs more processor time than this, in µs, it has to cost the same at each number of links.
const NOTHING_US: f64 = 20.0;
/// How much more a link may cost than at the point before.
const CONSTANT: f64 = 1.5;

/// What grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Axis {
    /// Addresses on the bond beyond the lab's two.
    Addresses,
    /// Routes through the bond.
    Routes,
    /// Links that have nothing to do with any bond.
    Links,
    /// Bonds; those after the first have a standby only, as during a migration.
    Bonds,
}

impl Axis {
    /// Bonds last: their NICs are there from the start, and links leave nothing behind.
    const ALL: [Self; 4] = [Self::Addresses, Self::Routes, Self::Links, Self::Bonds];

    fn name(self) -> &'static str {
        match self {
            Self::Addresses => "addresses",
            Self::Routes => "routes",
            Self::Links => "links",
            Self::Bonds => "bonds",
        }
    }

    fn sizes(self) -> &'static [usize] {
        match self {
            Self::Addresses => &[1, 10, 100, 500],
            Self::Routes => &[10, 100, 1000, 10_000],
            Self::Links => &[10, 100, 1000, 5000],
            Self::Bonds => &[1, 4, 16, 32],
        }
    }
}

/// One point of an axis.
struct Point {
    axis: Axis,
    size: usize,
    /// Items that the step added.
    added: usize,
    measured: Measured,
}

/// Measures, prints, writes JSON, and fails if an unrelated link costs more the more there are.
pub(crate) fn run(only: Option<Axis>) -> Result<()> {
    let lab = Lab::new("bench-growth")?;
    let host = lab.host("a")?;
    let mut patient = Patient::boot(&lab, &host)?;
    let mut points = Vec::new();
    for axis in Axis::ALL
        .into_iter()
        .filter(|axis| only.is_none_or(|only| only == *axis))
    {
        let mut before = patient.size(axis);
        for &size in axis.sizes() {
            command::progress(&format!("{}: {size}", axis.name()));
            let measured = patient
                .grow(axis, before, size)
                .with_context(|| format!("{} {size}", axis.name()))?;
            let point = Point {
                axis,
                size,
                added: size.saturating_sub(before),
                measured,
            };
            println!("{}", point.line());
            points.push(point);
            before = size;
        }
        patient.shrink(axis)?;
    }
    print!("{}", table(&points));
    let folder = cache::target_folder().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let path = folder.join("growth.json");
    let document = json!({
        "kernel": patient.kernel()?,
        "points": points.iter().map(Point::json).collect::<Vec<_>>(),
    });
    fs::write(&path, serde_json::to_vec_pretty(&document)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("written to {}", path.display());
    let links: Vec<f64> = points
        .iter()
        .filter(|point| point.axis == Axis::Links)
        .filter_map(Point::cpu_us_per_item)
        .collect();
    match is_constant(&links) {
        true => Ok(()),
        false => bail!("an unrelated link costs more the more there are: {links:.1?} µs"),
    }
}

/// Whether no step's cost for a link outgrows the one before, beyond what is next to nothing.
fn is_constant(us_per_link: &[f64]) -> bool {
    us_per_link
        .windows(2)
        .all(|pair| pair[1] <= NOTHING_US || pair[1] <= pair[0] * CONSTANT)
}

const COLUMNS: [&str; 9] = [
    "resident KiB",
    "step CPU ms",
    "per item µs",
    "re-read CPU ms",
    "failover µs",
    "failback µs",
    "hand-over CPU ms",
    "start ms",
    "start CPU ms",
];

impl Point {
    fn cpu_us_per_item(&self) -> Option<f64> {
        (self.added > 0).then(|| self.measured.step_cpu_us as f64 / self.added as f64)
    }

    /// In the order of [`COLUMNS`].
    fn values(&self) -> [Option<f64>; COLUMNS.len()] {
        let measured = &self.measured;
        let ms = |us: u64| Some(us as f64 / 1000.0);
        [
            Some(measured.resident_kib as f64),
            ms(measured.step_cpu_us),
            self.cpu_us_per_item(),
            ms(measured.reread_cpu_us),
            measured.failover_us.map(|us| us as f64),
            measured.failback_us.map(|us| us as f64),
            ms(measured.handover_cpu_us),
            Some(measured.start_ms as f64),
            ms(measured.start_cpu_us),
        ]
    }

    fn line(&self) -> String {
        let values = COLUMNS.iter().zip(self.values()).map(|(name, value)| {
            format!(
                "{name} {}",
                value.map_or("-".to_owned(), |value| format!("{value:.1}"))
            )
        });
        let values: Vec<_> = values.collect();
        format!("{} {}: {}", self.axis.name(), self.size, values.join(", "))
    }

    fn json(&self) -> Value {
        let mut object = json!({
            "axis": self.axis.name(),
            "size": self.size,
            "added": self.added,
        });
        for (name, value) in COLUMNS.iter().zip(self.values()) {
            object[name.to_lowercase().replace(' ', "-").replace('µ', "u")] = json!(value);
        }
        object
    }
}

/// A row for each point; under each value how many times the point before it is.
fn table(points: &[Point]) -> String {
    let mut text = format!("\n{:10} {:>6}", "axis", "size");
    for column in COLUMNS {
        text += &format!(" {column:>17}");
    }
    text.push('\n');
    let mut before: Option<&Point> = None;
    for point in points {
        text += &format!("{:10} {:>6}", point.axis.name(), point.size);
        let same = before.filter(|before| before.axis == point.axis);
        for (column, value) in point.values().into_iter().enumerate() {
            let factor = same
                .and_then(|before| before.values()[column])
                .zip(value)
                .filter(|(before, _)| *before > 0.0)
                .map_or(String::new(), |(before, value)| {
                    format!(" (x{:.1})", value / before)
                });
            let value = value.map_or("-".to_owned(), |value| format!("{value:.1}"));
            text += &format!(" {:>17}", value + &factor);
        }
        text.push('\n');
        before = Some(point);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_that_costs_more_each_time_is_found() {
        assert!(is_constant(&[500.0, 110.0, 100.0, 140.0]));
        assert!(!is_constant(&[500.0, 110.0, 100.0, 160.0]));
        // Next to nothing may be any multiple of nothing.
        assert!(is_constant(&[0.0, 0.1, 2.0, 19.0]));
        assert!(is_constant(&[]));
    }

    #[test]
    fn the_table_tells_how_much_a_value_grew() {
        let point = |axis, size, resident_kib| Point {
            axis,
            size,
            added: size,
            measured: Measured {
                resident_kib,
                ..Measured::default()
            },
        };
        let points = [
            point(Axis::Links, 10, 1000),
            point(Axis::Links, 100, 2500),
            point(Axis::Bonds, 1, 5000),
        ];
        let text = table(&points);
        assert!(text.contains("2500.0 (x2.5)"), "{text}");
        assert!(!text.contains("x2.0"), "another axis is no growth: {text}");
    }
}
