//! `cargo xtask bench --armed`: how long it takes until a VF is armed, after a start of the service and after the VF came.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_core::status::BondState;
use tandem_lab::Lab;
use tandem_lab::artifacts::past;
use tandem_lab::command;
use tandem_lab::tandem::switchover::is_armed;
use tandem_lab::tandem::{Guest, PROGRAM, Setup};

use super::machine::Machine;
use super::report::Report;
use super::spread::Spread;
use super::table::Table;

/// Rounds of each row, unless the command line says otherwise.
const ROUNDS: usize = 5;
/// How long it is looked whether the load runs.
const LOOK: Duration = Duration::from_secs(2);
/// A loop for each processor, for as long as the file is there. The guest has no `nproc`.
const LOAD: &str = "for _ in $(seq $(grep -c ^processor /proc/cpuinfo)); do \
     while [ -e /run/busy ]; do :; done & done; wait";
/// SIGTERM (signal(7)).
const TERMINATE: i32 = 15;

/// What has to be known to read the table.
const ABOUT: &str = "By this machine's clock, from the moment the service is started, or the VF is plugged in, until the \
    status in the guest says that the VF carries the traffic and the fast path is armed; it is asked for some times a \
    second. *Before* is the program of an earlier commit. *A start* includes loading the kernel programs, *a VF* the PCI \
    hot-plug, its driver and the time that a VF has to hold its carrier (`hold-ms`). Each of a *busy* guest's processors has an endless loop beside all else.";

/// What the options of `cargo xtask bench --armed` are.
#[derive(Debug, clap::Args)]
pub(super) struct ArmedOptions {
    /// Rounds of each row with --armed
    #[arg(long, value_name = "NUMBER", requires = "armed")]
    armed_rounds: Option<usize>,
    /// With --armed: the guest's program of this earlier commit too
    #[arg(long, value_name = "COMMIT", requires = "armed")]
    armed_before: Option<String>,
}

/// What a time begins with.
#[derive(Clone, Copy)]
enum Since {
    Start,
    Vf,
}

struct Row {
    program: &'static str,
    since: Since,
    busy: bool,
    /// In seconds.
    times_s: Vec<f64>,
}

/// Measures, prints and writes JSON.
pub(super) fn run(options: &ArmedOptions, page: bool) -> Result<()> {
    let rounds = options.armed_rounds.unwrap_or(ROUNDS);
    let lab = Lab::new("bench-armed")?;
    let setup = Setup::new()?;
    let mut guest = setup.boot(&lab, &lab.host("a")?)?;
    await_armed(&guest)?;
    let mut rows = measure(&mut guest, &setup, "this", rounds)?;
    if let Some(commit) = &options.armed_before {
        let before = past::guest_as_shipped(commit)?;
        guest.end_service(TERMINATE)?;
        guest.vm.push_file(&before, PROGRAM, true)?;
        guest.start(&[])?;
        await_armed(&guest)?;
        rows.extend(measure(&mut guest, &setup, "before", rounds)?);
    }
    let report = Report {
        name: "armed",
        title: "Until a VF is armed",
        about: ABOUT.to_owned(),
        machine: Machine::look()?,
        figures: rows.iter().map(Row::json).collect(),
        table: table(&rows),
        claims: Vec::new(),
        picture: None,
    };
    report.publish(page)
}

/// In an idle guest, and in a busy one.
fn measure(
    guest: &mut Guest,
    setup: &Setup,
    program: &'static str,
    rounds: usize,
) -> Result<Vec<Row>> {
    let mut rows = rows(guest, setup, program, rounds, false)?;
    guest.vm.sh("touch /run/busy")?;
    guest.vm.spawn(&["sh", "-c", LOAD], &[], "/dev/null")?;
    let busy = busy_share(guest)?;
    ensure!(
        busy > 0.9,
        "the load takes {busy:.2} of the processors only"
    );
    rows.extend(self::rows(guest, setup, program, rounds, true)?);
    let busy = busy_share(guest)?;
    ensure!(
        busy > 0.9,
        "the load took {busy:.2} of the processors at the end"
    );
    guest.vm.sh("rm /run/busy")?;
    Ok(rows)
}

fn rows(
    guest: &mut Guest,
    setup: &Setup,
    program: &'static str,
    rounds: usize,
    busy: bool,
) -> Result<Vec<Row>> {
    let row = |since: Since| {
        let times_s = (0..rounds).map(|_| since.time_s(guest, setup));
        Ok(Row {
            program,
            since,
            busy,
            times_s: times_s.collect::<Result<_>>()?,
        })
    };
    [Since::Start, Since::Vf].into_iter().map(row).collect()
}

/// The part of their time that the guest's processors do something.
fn busy_share(guest: &Guest) -> Result<f64> {
    let look = || {
        let said = guest.vm.sh("grep '^cpu ' /proc/stat")?;
        // User, nice, system, idle, waiting and more (proc_stat(5)).
        let fields = said.split_whitespace().skip(1).map(str::parse::<f64>);
        let fields: Vec<f64> = fields.collect::<Result<_, _>>()?;
        let idle = *fields.get(3).context("no time of rest is counted")?;
        Ok::<_, anyhow::Error>((fields.iter().sum::<f64>(), idle))
    };
    let (all, idle) = look()?;
    // Nothing to wait for: what passes in this time is what is measured.
    std::thread::sleep(LOOK);
    let (all_then, idle_then) = look()?;
    Ok(1.0 - (idle_then - idle) / (all_then - all).max(1.0))
}

impl Since {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "a start",
            Self::Vf => "a VF",
        }
    }

    fn time_s(self, guest: &mut Guest, setup: &Setup) -> Result<f64> {
        let begun = match self {
            Self::Start => {
                guest.end_service(TERMINATE)?;
                let begun = Instant::now();
                guest.start(&[])?;
                begun
            }
            Self::Vf => {
                guest.vm.unplug_vf()?;
                guest.reach_here(BondState::Standby)?;
                let begun = Instant::now();
                guest.vm.plug_vf(setup.model, setup.vf)?;
                begun
            }
        };
        await_armed(guest)?;
        let time = begun.elapsed();
        command::progress(&format!("armed {time:.1?} after {}", self.name()));
        Ok(time.as_secs_f64())
    }
}

fn await_armed(guest: &Guest) -> Result<()> {
    let armed = guest.await_here("armed", |status| {
        let bond = status.bonds.first();
        bond.is_some_and(|bond| bond.state == BondState::Accelerated && bond.fast_path_armed)
            && is_armed(status)
    });
    armed.map(|_| ())
}

impl Row {
    fn load(&self) -> &'static str {
        if self.busy { "busy" } else { "idle" }
    }

    fn json(&self) -> Value {
        json!({ "program": self.program, "from": self.since.name(), "load": self.load(), "seconds": self.times_s })
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&["program", "from", "guest", "rounds", "armed after, s"]);
    for row in rows {
        let spread = Spread::of(row.times_s.iter().copied());
        table.rows.push(vec![
            row.program.to_owned(),
            row.since.name().to_owned(),
            row.load().to_owned(),
            row.times_s.len().to_string(),
            spread.map_or_else(String::new, |spread| spread.show(1)),
        ]);
    }
    table
}
