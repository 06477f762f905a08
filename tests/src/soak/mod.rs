//! A guest and two libvirt hosts under faults that a seed stands for, the same check after each.

mod faults;
mod holdings;
mod schedule;
mod site;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use crate::Lab;
use crate::agent::milliseconds;
use crate::command::progress;
use schedule::Fault;
use site::Site;

pub use holdings::{Growth, Holdings};
pub use schedule::Schedule;

/// So many have each kind among them.
const MANY_FAULTS: usize = 1_000;

/// Faults of one kind, and what they cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tally {
    /// How many there were.
    pub faults: u32,
    /// Until all was calm and checked, in ms, in all.
    pub ms: u64,
    /// Frames that were lost from before the fault until after it, both ways, in all.
    pub frames_lost: u64,
    /// Of so many.
    pub frames_sent: u64,
}

/// What a soak came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// What its faults came from.
    pub seed: u64,
    /// How long it took, in s.
    pub seconds: u64,
    /// Faults by kind.
    pub kinds: BTreeMap<&'static str, Tally>,
    /// Checks that found nothing wrong: one at the start, and one after each fault.
    pub checks: u32,
    /// What the services held.
    pub growth: Vec<Growth>,
    /// What was wrong, after which fault; none if nothing was.
    pub broken: Option<String>,
}

impl Report {
    /// Nothing was wrong and nothing grew.
    pub fn is_sound(&self) -> bool {
        self.broken.is_none() && !self.growth.iter().any(Growth::is_too_much)
    }
}

/// Injects the seed's faults until the time is over; the last one is ended and checked. With `only`, those of the kinds
/// that have this in their names. Whatever is found is in the report.
///
/// # Errors
/// If there is no guest to begin with, or no such kind.
pub fn run(limit: Duration, seed: u64, only: Option<&str>) -> Result<Report> {
    let is_meant = |fault: &Fault| only.is_none_or(|only| fault.kind().contains(only));
    let mut some = Schedule::new(seed).take(MANY_FAULTS);
    ensure!(some.any(|fault| is_meant(&fault)), "no such fault");
    let lab = Lab::new("soak")?;
    let began = Instant::now();
    progress(&format!("seed {seed}"));
    let mut site = Site::new(&lab).context("two hosts and a guest")?;
    let mut report = Report {
        seed,
        ..Report::default()
    };
    // The boot does not count: under emulation it takes long.
    let deadline = Instant::now() + limit;
    let mut faults = Schedule::new(seed).filter(is_meant).zip(1..);
    while report.broken.is_none() && Instant::now() < deadline {
        let Some((fault, number)) = faults.next() else {
            break;
        };
        let begun = Instant::now();
        let tally = report.kinds.entry(fault.kind()).or_default();
        tally.faults += 1;
        match one(&mut site, fault) {
            Ok((lost, sent)) => {
                report.checks += 1;
                tally.frames_lost += lost;
                tally.frames_sent += sent;
                progress(&format!(
                    "{number:4}  {fault}: {} s, {lost} of {sent} frames lost",
                    begun.elapsed().as_secs()
                ));
            }
            Err(error) => {
                report.broken = Some(format!("fault {number}, {fault}: {error:?}"));
                progress(&site.log_tails());
            }
        }
        tally.ms += milliseconds(begun.elapsed());
    }
    report.growth = site.looks().growth();
    report.seconds = began.elapsed().as_secs();
    Ok(report)
}

/// One fault and its check; frames lost and sent, both ways.
fn one(site: &mut Site<'_>, fault: Fault) -> Result<(u64, u64)> {
    let frames = site.probe()?;
    site.inject(fault)?;
    let frames = site.check(frames)?;
    let ways = [frames.to_guest.total, frames.to_client.total];
    let sum = |of: fn(&crate::probe::Count) -> u64| ways.iter().map(of).sum();
    Ok((sum(|way| way.lost), sum(|way| way.sent)))
}
