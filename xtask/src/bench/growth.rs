//! `cargo xtask bench --growth`: how the service's own costs grow with the guest's size.
//!
//! One guest, one axis after the other: addresses on the bond, routes through it, unrelated links (veth), bonds.
//! At each point of an axis the same is measured, all of it by the guest's kernel or by the service's own status:
//! memory, processor time of the step and of a full re-reading, the switchovers to and fro, a start.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tandem_lab::{Lab, command};

use super::machine::Machine;
use super::report::{Claim, Report};
use super::spread::{Spread, show};
use super::table::Table;
use guest::{Measured, Patient};

mod guest;

/// What has to be known to read the table.
const ABOUT: &str = "One guest grows along one axis after the other. Processor time is that of the service's control \
    group. *Step* is from the size of the row before (or from none) to this one, *per item* the same for each thing that \
    the step added. *Re-read* is a full reading of the kernel's state. *Failover* and *failback* are from the decision to \
    the moment the new port was seen active. *Start* is from exec until every bond has its state, its CPU until the service \
    is at rest. Bonds after the first have a standby only.";

/// What `cargo xtask bench --growth` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct GrowthOptions {
    /// Along this axis only
    #[arg(long, value_enum, requires = "growth")]
    axis: Option<Axis>,
    /// Times that what is cheap is measured at each point
    #[arg(long, default_value_t = 3, requires = "growth", value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
}

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
pub(crate) fn run(options: &GrowthOptions, page: bool) -> Result<()> {
    let lab = Lab::new("bench-growth")?;
    let host = lab.host("a")?;
    let mut patient = Patient::boot(&lab, &host)?;
    let machine = Machine::look()?;
    let mut points = Vec::new();
    let mut failure = None;
    for axis in Axis::ALL
        .into_iter()
        .filter(|axis| options.axis.is_none_or(|only| only == *axis))
    {
        // What the axes before came to is not lost by one that fails; the guest is of no more use.
        if let Err(error) = along(&mut patient, axis, options.samples, &mut points) {
            failure = Some(error);
            break;
        }
    }
    let report = Report {
        name: "growth",
        title: "How the guest service's costs grow",
        about: ABOUT.to_owned(),
        machine,
        figures: points.iter().map(Point::json).collect(),
        table: table(&points),
        claims: claim(&points).into_iter().collect(),
        picture: None,
    };
    let published = report.publish(page && failure.is_none());
    failure.map_or(published, Err)
}

fn along(patient: &mut Patient, axis: Axis, samples: u32, points: &mut Vec<Point>) -> Result<()> {
    let mut before = patient.size(axis);
    for &size in axis.sizes() {
        command::progress(&format!("{}: {size}", axis.name()));
        let measured = patient
            .grow(axis, (before, size), samples)
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
    patient.shrink(axis)
}

/// Nothing if links were not measured.
fn claim(points: &[Point]) -> Option<Claim> {
    let links: Vec<f64> = points
        .iter()
        .filter(|point| point.axis == Axis::Links)
        .filter_map(Point::cpu_us_per_item)
        .collect();
    (!links.is_empty()).then(|| Claim {
        text: format!(
            "an unrelated link costs the same however many there are: {links:.1?} µs of the service's CPU (each at most \
             {CONSTANT} times the one before, or {NOTHING_US} µs)"
        ),
        holds: is_constant(&links),
    })
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
    "failover ms",
    "failback ms",
    "switchover CPU ms",
    "start ms",
    "start CPU ms",
];

impl Point {
    fn cpu_us_per_item(&self) -> Option<f64> {
        (self.added > 0).then(|| self.measured.step_cpu_us as f64 / self.added as f64)
    }

    /// In the order of [`COLUMNS`].
    fn values(&self) -> [Option<Spread>; COLUMNS.len()] {
        let measured = &self.measured;
        let one = |value: f64| Spread::of([value]);
        let all = |samples: &[u64], scale: f64| {
            Spread::of(samples.iter().map(|sample| *sample as f64 / scale))
        };
        [
            one(measured.resident_kib as f64),
            one(measured.step_cpu_us as f64 / 1e3),
            self.cpu_us_per_item().and_then(one),
            all(&measured.reread_cpu_us, 1e3),
            all(&measured.failover_us, 1e3),
            all(&measured.failback_us, 1e3),
            all(&measured.switchover_cpu_us, 1e3),
            one(measured.start_ms as f64),
            one(measured.start_cpu_us as f64 / 1e3),
        ]
    }

    fn cells(&self) -> impl Iterator<Item = String> {
        self.values().into_iter().map(|value| show(value, 1))
    }

    fn line(&self) -> String {
        let values = COLUMNS.iter().zip(self.cells());
        let values: Vec<_> = values
            .map(|(name, cell)| format!("{name} {cell}"))
            .collect();
        format!("{} {}: {}", self.axis.name(), self.size, values.join(", "))
    }

    fn json(&self) -> Value {
        let mut object = json!({
            "axis": self.axis.name(),
            "size": self.size,
            "added": self.added,
        });
        for (name, value) in COLUMNS.iter().zip(self.values()) {
            let key = name.to_lowercase().replace(' ', "-").replace('µ', "u");
            object[key] = json!(value);
        }
        object
    }
}

/// A row for each point.
fn table(points: &[Point]) -> Table {
    let head: Vec<_> = ["axis", "size"].into_iter().chain(COLUMNS).collect();
    let mut table = Table::new(&head);
    for point in points {
        let mut row = vec![point.axis.name().to_owned(), point.size.to_string()];
        row.extend(point.cells());
        table.rows.push(row);
    }
    table
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

    fn point(axis: Axis, size: usize, resident_kib: u64) -> Point {
        Point {
            axis,
            size,
            added: size,
            measured: Measured {
                resident_kib,
                step_cpu_us: 100 * size as u64,
                failover_us: vec![5000, 6000, 9000],
                ..Measured::default()
            },
        }
    }

    #[test]
    fn the_table_has_medians_and_spreads() {
        let points = [point(Axis::Links, 10, 1000), point(Axis::Links, 100, 2500)];
        let row = &table(&points).rows[1];
        assert_eq!(row[..5], ["links", "100", "2500.0", "10.0", "100.0"]);
        assert_eq!(row[6], "6.0 (5.0..9.0)");
        let claim = claim(&points).unwrap();
        assert!(
            claim.holds && claim.text.contains("[100.0, 100.0] µs"),
            "{}",
            claim.text
        );
        assert_eq!(super::claim(&[point(Axis::Bonds, 1, 1)]), None);
    }
}
