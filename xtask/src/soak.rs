//! `cargo xtask soak`: a guest and two libvirt hosts under random faults.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use clap::Args;
use tandem_lab::artifacts::cache;
use tandem_lab::soak::{self, Growth, Report};

use crate::setup;

/// What `cargo xtask soak` takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How long faults go on
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// What the faults come from: the same seed, the same faults; without it, one that no run had
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Only faults of the kinds that have this in their names, such as `carry`
    #[arg(long, value_name = "KIND")]
    only: Option<String>,
}

/// Soaks, prints what came of it, and writes target/soak.json.
///
/// # Errors
/// A check failed after a fault, or a service holds more and more.
pub(crate) fn run(options: &Options) -> Result<()> {
    setup::run()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seed = options.seed.unwrap_or(now.map_or(1, |now| now.as_secs()));
    let only = options.only.as_deref();
    let report = soak::run(Duration::from_secs(options.minutes * 60), seed, only)?;
    let path = cache::target_folder().join("soak.json");
    std::fs::write(&path, serde_json::to_string_pretty(&report)?)
        .with_context(|| format!("can't write {}", path.display()))?;
    print!("{}", text(&report));
    println!("figures: target/soak.json");
    let mut again = format!(
        "cargo xtask soak --minutes {} --seed {seed}",
        options.minutes
    );
    if let Some(only) = only {
        again += &format!(" --only '{only}'");
    }
    ensure!(report.is_sound(), "not as it should be; once more: {again}");
    Ok(())
}

/// For people.
fn text(report: &Report) -> String {
    let mut lines = vec![format!(
        "{:38} {:>6} {:>8} {:>14}",
        "faults", "", "s each", "frames lost of"
    )];
    let mut all = 0;
    for (kind, tally) in &report.kinds {
        all += tally.faults;
        lines.push(format!(
            "{kind:38} {:6} {:8} {:>6} {:>7}",
            tally.faults,
            tally.ms / 1000 / u64::from(tally.faults.max(1)),
            tally.frames_lost,
            tally.frames_sent
        ));
    }
    lines.push(format!(
        "{:38} {all:6}   {} checks found nothing wrong; {} s, seed {}",
        "in all", report.checks, report.seconds, report.seed
    ));
    lines.push(format!(
        "{:38} {:>6} {:>18} {:>14} {:>9}",
        "medians, first and last third", "looks", "resident KiB", "descriptors", "tasks"
    ));
    lines.extend(report.growth.iter().map(growth_line));
    if let Some(broken) = &report.broken {
        lines.push(format!("BROKEN: {broken}"));
    }
    lines.join("\n") + "\n"
}

fn growth_line(growth: &Growth) -> String {
    let (first, last) = (growth.first, growth.last);
    let verdict = match (growth.is_judged(), growth.is_too_much()) {
        (false, _) => "  not judged: no life was long enough",
        (true, false) => "",
        (true, true) => "  GROWS",
    };
    format!(
        "{:38} {:6} {:>9}{:>9} {:>7}{:>7} {:>4}{:>5}{verdict}",
        growth.service,
        growth.looks,
        first.memory_kib,
        last.memory_kib,
        first.descriptors,
        last.descriptors,
        first.tasks,
        last.tasks
    )
}
