//! `cargo xtask bench --carry-costs`: what the halves of a carry take of this machine's own processor and memory, for as many frames as
//! they take: `helper/carry/kernel/examples/carry_load.rs`.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use tandem_lab::artifacts::cargo::{Profile, example};
use tandem_lab::command;

use super::machine::Machine;
use super::report::{Claim, Report};
use super::spread::{Spread, show};
use super::table::Table;

/// Rounds of each form.
const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(400);
/// What the figures are told for, in bytes a second: 10 Gbit/s.
const WANTED_BYTES_PER_S: f64 = 1.25e9;
/// A pause that this much memory is told for, in s.
const PAUSE_S: f64 = 0.2;

/// What has to be known to read the table.
const ABOUT: &str = "Both halves of a carry on the machine's own kernel, each a thread, with their tc programs on two taps, a stream \
    between them, and a sender behind a bridge that sends as fast as they take: all while no guest reads. *Whole* frames have 1,514 bytes; \
    a *segmented* one has 64 KB, as TCP's segmentation leaves it. *Taken* is how fast frames were held, carried and \
    kept, with sender, both halves and whatever else the machine does on its processors. *Source* and *destination* are the processor \
    time of each half for a frame, with what the kernel does for it; *program* that of the tc program which holds, in the \
    sender's name. *At 10 Gbit/s* is what that comes to in processors, of each half; *kept for 200 ms* the memory for frames that come at \
    10 Gbit/s during a stop of 200 ms, on each host. *Resident* is what the process of both halves grew by, to the frames' bytes.";

/// What a frame is like, and how many there are.
const FORMS: [(&str, u64); 2] = [("whole", 100_000), ("segmented", 3_000)];

type Figures = BTreeMap<String, f64>;

/// Measures, prints and writes JSON.
pub(super) fn run(page: bool) -> Result<()> {
    let program = example("tandem-carry-kernel", "carry_load", Profile::Release)?;
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); FORMS.len()];
    for _ in 0..ROUNDS {
        for ((form, frames), rounds) in FORMS.iter().zip(&mut rounds) {
            let mut load = Command::new(&program);
            load.args([&frames.to_string(), *form]);
            let said = command::run_shown(&mut load, LIMIT)?;
            command::progress(&format!("{form}: {}", said.trim()));
            rounds.push(parse(&said).context("what carry_load says")?);
        }
    }
    let report = Report {
        name: "carry-costs",
        title: "What a carry costs its hosts",
        about: ABOUT.to_owned(),
        machine: Machine::without_guests()?,
        figures: json!(FORMS.iter().zip(&rounds).collect::<Vec<_>>()),
        table: table(&rounds),
        claims: FORMS.iter().zip(&rounds).map(claim).collect(),
        picture: None,
    };
    report.publish(page)
}

/// A line of `name=number`.
fn parse(said: &str) -> Option<Figures> {
    let parts = said.split_whitespace().map(|part| {
        let (name, value) = part.split_once('=')?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    parts.collect()
}

fn claim(((form, frames), rounds): (&(&str, u64), &Vec<Figures>)) -> Claim {
    let whole =
        |one: &&Figures| one.get("lost") == Some(&0.0) && one.get("got") == Some(&(*frames as f64));
    let clean = rounds.iter().filter(whole).count();
    Claim {
        text: format!(
            "{form}: of {frames} frames all came to the guest, in {clean} of {} rounds",
            rounds.len()
        ),
        holds: clean == rounds.len(),
    }
}

fn table(rounds: &[Vec<Figures>]) -> Table {
    let mut table = Table::new(&[
        "frames",
        "rounds",
        "taken Gbit/s",
        "source µs",
        "destination µs",
        "program µs",
        "at 10 Gbit/s: source",
        "destination",
        "kept for 200 ms: MB",
        "resident",
    ]);
    for ((form, _), rounds) in FORMS.iter().zip(rounds) {
        let row = |figure: &dyn Fn(&Figures) -> Option<f64>, digits| {
            let values: Option<Vec<f64>> = rounds.iter().map(figure).collect();
            show(values.and_then(Spread::of), digits)
        };
        let get = |one: &Figures, name: &str| one.get(name).copied();
        let us = |name: &'static str| {
            move |one: &Figures| Some(get(one, name)? / get(one, "frames")? / 1e3)
        };
        let processors = |name: &'static str| {
            move |one: &Figures| {
                let frames_per_s = WANTED_BYTES_PER_S / get(one, "bytes")?;
                Some(get(one, name)? / get(one, "frames")? * frames_per_s / 1e9)
            }
        };
        let payload = |one: &Figures| Some(get(one, "frames")? * get(one, "bytes")?);
        table.rows.push(vec![
            (*form).to_owned(),
            rounds.len().to_string(),
            row(
                &|one| Some(payload(one)? * 8.0 / get(one, "took-us")? / 1e3),
                2,
            ),
            row(&us("source-ns"), 2),
            row(&us("destination-ns"), 2),
            row(
                &|one| Some(get(one, "program-ns")? / get(one, "program-runs")?.max(1.0) / 1e3),
                2,
            ),
            row(&processors("source-ns"), 2),
            row(&processors("destination-ns"), 2),
            row(
                &|one| {
                    let each = get(one, "source-bytes")?.max(get(one, "destination-bytes")?);
                    Some(each / payload(one)? * WANTED_BYTES_PER_S * PAUSE_S / 1e6)
                },
                0,
            ),
            row(&|one| Some(get(one, "resident-bytes")? / payload(one)?), 2),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frames_cost_is_told_for_ten_gigabits() {
        let said = "frames=1000 bytes=1250 took-us=10000 source-ns=2000000 destination-ns=4000000 program-ns=300000 \
            program-runs=1000 source-bytes=1250000 destination-bytes=2500000 resident-bytes=5000000 lost=0 got=1000";
        let one = parse(said).unwrap();
        let table = table(&[vec![one.clone()], Vec::new()]);
        assert_eq!(
            table.rows[0].join("|"),
            "whole|1|1.00|2.00|4.00|0.30|2.00|4.00|500|4.00"
        );
        assert!(!claim((&("whole", 1001), &vec![one.clone()])).holds);
        assert!(claim((&("whole", 1000), &vec![one])).holds);
        assert_eq!(parse("frames=many"), None);
    }
}
