//! `cargo xtask test`: every suite in turn, a line for each, and a closing total.

mod binaries;
mod integration;
mod libtest;
mod outcome;
mod process;
mod suite;
mod suites;

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tandem_lab::Kernel;
use tandem_lab::artifacts::cache;

use outcome::{Deferred, Outcome};
use suite::Suite;

/// The whole run ends within this time, whatever hangs.
const TOTAL_LIMIT: Duration = Duration::from_secs(60 * 60);

/// What `cargo xtask test` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run this suite and what it needs; may be repeated
    #[arg(long, value_name = "SUITE")]
    only: Vec<String>,
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
            println!("{:24} {}", suite.name, suite.about);
        }
        return Ok(());
    }
    let wanted = wanted(&suites, &options.only)?;
    let logs = cache::target_folder().join("test-logs");
    fs::create_dir_all(&logs).with_context(|| format!("cannot create {}", logs.display()))?;
    let mut run = suite::Run::new(logs, Instant::now() + TOTAL_LIMIT, options.kernel)?;
    let mut total = Outcome::default();
    let mut failed: Vec<&Suite> = Vec::new();
    // Those that did not pass: what needs them cannot run.
    let mut missing: Vec<&str> = Vec::new();
    let mut done: Vec<&Suite> = Vec::new();
    let mut cut_short = None;
    for suite in suites
        .iter()
        .filter(|suite| wanted.contains(suite.name.as_str()))
    {
        let need = missing.iter().find(|need| suite.needs.contains(need));
        let outcome = if let Some(reason) = run.stopped() {
            cut_short = Some(reason);
            Outcome::not_run(reason.to_owned())
        } else if let Some(need) = need {
            Outcome::not_run(format!("it needs `{need}`, which did not pass"))
        } else if options.skip_lab && suite.is_lab {
            Outcome::not_run("left out by --skip-lab".to_owned())
        } else {
            done.push(suite);
            run.suite(suite)
        };
        println!("{}", outcome.line(&suite.name));
        if outcome.failed > 0 {
            println!("{}", run.tail(suite));
            failed.push(suite);
        }
        if outcome.failed > 0 || outcome.passed == 0 {
            missing.push(&suite.name);
        }
        total.add(&outcome);
    }
    for suite in &failed {
        println!(
            "FAILED: {} (all of its output: {})",
            suite.name,
            run.log_path(suite).display()
        );
    }
    let lost = settle_deferred(&mut total, &done, |suite| run.log(suite));
    for Deferred { test, suite } in &lost {
        println!("FAILED: {test} is left to {suite}, which did not pass it");
    }
    println!("{}", total.closing_line());
    if let Some(reason) = cut_short {
        bail!("not everything was run: {reason}");
    }
    match (failed.len(), lost.len()) {
        (0, 0) => Ok(()),
        (0, count) => bail!("{count} tests were run by no suite"),
        (count, _) => bail!("{count} suites failed"),
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

/// The names to run: all, or those asked for with everything they need.
fn wanted<'a>(suites: &'a [Suite], only: &'a [String]) -> Result<HashSet<&'a str>> {
    let mut wanted = HashSet::new();
    let mut open: Vec<&str> = only.iter().map(String::as_str).collect();
    if open.is_empty() {
        open = suites.iter().map(|suite| suite.name.as_str()).collect();
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
