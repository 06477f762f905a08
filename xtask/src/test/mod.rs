//! `cargo xtask test`: every suite, some at a time where they allow it; a line for each, and a closing total.

mod binaries;
mod integration;
mod libtest;
mod outcome;
mod process;
mod schedule;
mod suite;
mod suites;

use std::collections::HashSet;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tandem_lab::Kernel;
use tandem_lab::artifacts::cache;

use outcome::{Deferred, Outcome};
use schedule::{LANES, Schedule};
use suite::Suite;

/// The whole run ends within this time and the limits of the long suites in it, whatever hangs.
const TOTAL_LIMIT: Duration = Duration::from_secs(60 * 60);

/// What `cargo xtask test` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run this suite and what it needs; may be repeated
    #[arg(long, value_name = "SUITE")]
    only: Vec<String>,
    /// Run the long suites too, which run only by name otherwise
    #[arg(long, conflicts_with = "only")]
    all: bool,
    /// Print the suites, in the order they run, and end
    #[arg(long)]
    list: bool,
    /// Leave out the suites that boot virtual machines
    #[arg(long)]
    skip_lab: bool,
    /// The guest's Linux in all suites that boot one and do not name theirs: 6.1, 6.12 or 7.3
    #[arg(long, value_name = "VERSION")]
    kernel: Option<Kernel>,
}

/// Runs what the options ask for; an error if any suite failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let suites = suites::all()?;
    if options.list {
        for suite in &suites {
            let long = match suite.is_long {
                true => "  (long: by name or --all)",
                false => "",
            };
            println!("{:24} {}{long}", suite.name, suite.about);
        }
        return Ok(());
    }
    let wanted = wanted(&suites, options)?;
    let logs = cache::target_folder().join("test-logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let long = suites
        .iter()
        .filter(|suite| suite.is_long && wanted.contains(suite.name.as_str()));
    let limit = TOTAL_LIMIT + long.map(|suite| suite.limit).sum::<Duration>();
    let run = suite::Run::new(logs, Instant::now() + limit, options.kernel)?;
    let mut tally = Tally::default();
    let chosen = suites
        .iter()
        .filter(|suite| wanted.contains(suite.name.as_str()));
    run_all(&run, chosen.collect(), options.skip_lab, &mut tally);
    tally.close(&run)
}

/// Runs the suites, some at a time, and settles each as it ends.
fn run_all<'a>(run: &suite::Run, suites: Vec<&'a Suite>, skip_lab: bool, tally: &mut Tally<'a>) {
    let schedule = Schedule::new(suites);
    let tally = Mutex::new(tally);
    let tally = || tally.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                while let Some(suite) = schedule.next() {
                    let lack = tally().lack(suite, skip_lab);
                    match lack {
                        Some(lack) => tally().settle(run, suite, Outcome::not_run(lack)),
                        None => {
                            let outcome = run.stopped().map_or_else(|| Ok(run.suite(suite)), Err);
                            tally().ended(run, suite, outcome);
                        }
                    }
                    schedule.settle(suite);
                }
            });
        }
    });
}

/// What the suites came to so far.
#[derive(Default)]
struct Tally<'a> {
    total: Outcome,
    failed: Vec<&'a Suite>,
    /// Those that did not pass: what needs them cannot run.
    missing: Vec<&'a str>,
    /// Those that ran.
    done: Vec<&'a Suite>,
    cut_short: Option<&'static str>,
}

impl<'a> Tally<'a> {
    /// Why a suite cannot or shall not run.
    fn lack(&self, suite: &Suite, skip_lab: bool) -> Option<String> {
        let need = self.missing.iter().find(|need| suite.needs.contains(need));
        match need {
            Some(need) => Some(format!("it needs `{need}`, which did not pass")),
            None if skip_lab && suite.is_lab => Some("left out by --skip-lab".to_owned()),
            None => None,
        }
    }

    /// Settles a suite that ran, or did not because the whole run has to end.
    fn ended(
        &mut self,
        run: &suite::Run,
        suite: &'a Suite,
        outcome: Result<Outcome, &'static str>,
    ) {
        match outcome {
            Ok(outcome) => {
                self.done.push(suite);
                self.settle(run, suite, outcome);
            }
            Err(reason) => {
                self.cut_short = Some(reason);
                self.settle(run, suite, Outcome::not_run(reason.to_owned()));
            }
        }
    }

    /// Tells how a suite ended, and adds it up.
    fn settle(&mut self, run: &suite::Run, suite: &'a Suite, outcome: Outcome) {
        println!("{}", outcome.line(&suite.name));
        if outcome.failed > 0 {
            println!("{}", run.tail(suite));
            self.failed.push(suite);
        }
        if outcome.failed > 0 || outcome.passed == 0 {
            self.missing.push(&suite.name);
        }
        self.total.add(&outcome);
    }

    /// The closing lines; an error if anything failed.
    fn close(mut self, run: &suite::Run) -> Result<()> {
        for suite in &self.failed {
            println!(
                "FAILED: {} (all of its output: {})",
                suite.name,
                run.log_path(suite).display()
            );
        }
        let lost = settle_deferred(&mut self.total, &self.done, |suite| run.log(suite));
        for Deferred { test, suite } in &lost {
            println!("FAILED: {test} is left to {suite}, which did not pass it");
        }
        println!("{}", self.total.closing_line());
        if let Some(reason) = self.cut_short {
            bail!("not everything was run: {reason}");
        }
        match (self.failed.len(), lost.len()) {
            (0, 0) => Ok(()),
            (0, count) => bail!("{count} tests were run by no suite"),
            (count, _) => bail!("{count} suites failed"),
        }
    }
}

/// Tests that a suite left to another: skipped where that one was not run, failed where it ran without them.
/// Gives the latter.
fn settle_deferred(
    total: &mut Outcome,
    done: &[&Suite],
    log: impl Fn(&Suite) -> String,
) -> Vec<Deferred> {
    let mut lost = Vec::new();
    for deferred in std::mem::take(&mut total.deferred) {
        match done.iter().find(|suite| suite.name == deferred.suite) {
            None => total.skipped += 1,
            Some(suite) if libtest::passed(&log(suite), &deferred.test) => {}
            Some(_) => {
                total.failed += 1;
                lost.push(deferred);
            }
        }
    }
    lost
}

/// The names to run: all but the long ones, or those asked for with everything they need.
fn wanted<'a>(suites: &'a [Suite], options: &'a Options) -> Result<HashSet<&'a str>> {
    let mut wanted = HashSet::new();
    let mut open: Vec<&str> = options.only.iter().map(String::as_str).collect();
    if open.is_empty() {
        let usual = suites.iter().filter(|suite| options.all || !suite.is_long);
        open = usual.map(|suite| suite.name.as_str()).collect();
    }
    while let Some(name) = open.pop() {
        let suite = suites
            .iter()
            .find(|suite| suite.name == name)
            .with_context(|| {
                format!("no suite is called `{name}`; `cargo xtask test --list` names them")
            })?;
        if wanted.insert(suite.name.as_str()) {
            open.extend(suite.needs);
        }
    }
    Ok(wanted)
}
