//! The progress of an evacuation: one line that changes on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};

use crate::evacuate::{Evacuation, Phase};
use crate::execute::Watcher;
use crate::hypervisor::{JobFacts, JobPhase};
use crate::words::message;

/// Between two plain lines of one migration, in ms.
const PLAIN_EVERY_MS: u64 = 5_000;
/// Cells of the bar.
const BAR_CELLS: u64 = 20;

/// Writes to standard error, so that the report has the standard output for itself.
#[derive(Debug)]
pub(super) struct ProgressLine {
    terminal: bool,
    phase: Option<Phase>,
    told_ms: u64,
    /// What stands on the terminal's line.
    shown: String,
}

impl ProgressLine {
    /// For this process's standard error.
    pub(super) fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            phase: None,
            told_ms: 0,
            shown: String::new(),
        }
    }

    fn write(&mut self, text: &str) {
        // Nobody reads it: nothing to be done about that.
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    fn end_line(&mut self) {
        if !std::mem::take(&mut self.shown).is_empty() {
            self.write("\n");
        }
    }
}

impl Default for ProgressLine {
    fn default() -> Self {
        Self::new()
    }
}

impl Watcher for ProgressLine {
    fn show(&mut self, evacuation: &Evacuation, now_ms: u64) {
        let phase = evacuation.phase();
        let entered = self.phase != Some(phase);
        let mut text = phase.as_str().to_owned();
        if phase == Phase::Migrate
            && let Some(job) = evacuation.job()
        {
            text = format!("{text}  {}", job_text(job));
        }
        if let Some(cause) = evacuation.cause().filter(|_| entered) {
            text = format!("{text}  ({})", message(&cause.message));
        }
        let due = now_ms >= self.told_ms + PLAIN_EVERY_MS && phase == Phase::Migrate;
        if self.terminal {
            if entered {
                self.end_line();
            }
            if text != self.shown {
                self.write(&format!("\r\x1b[K{text}"));
                self.shown = text;
            }
        } else if entered || due {
            self.write(&format!("{:>7.1} s  {text}\n", seconds(now_ms)));
            self.told_ms = now_ms;
        }
        self.phase = Some(phase);
        if evacuation.outcome().is_some() {
            self.end_line();
        }
    }

    fn say(&mut self, text: &str) {
        self.end_line();
        self.write(&format!("{text}\n"));
    }
}

fn seconds(ms: u64) -> f64 {
    std::time::Duration::from_millis(ms).as_secs_f64()
}

/// A migration in one line: bar, what is left, rate, time to go, downtime.
fn job_text(job: &JobFacts) -> String {
    let mut parts = Vec::new();
    match job.phase {
        JobPhase::PostCopy => parts.push("post-copy".to_owned()),
        JobPhase::PostCopyBroken => parts.push("post-copy broke off, and is resumed".to_owned()),
        JobPhase::SwitchOver => parts.push("switching over".to_owned()),
        JobPhase::Setup => parts.push("connecting".to_owned()),
        _ => {}
    }
    let left = job.memory_remaining_bytes;
    if job.phase == JobPhase::PreCopy && left == Some(0) {
        parts.push("beginning".to_owned());
    } else if job.phase == JobPhase::Setup {
        // Nothing was counted yet.
    } else if let (Some(total), Some(left)) = (job.memory_total_bytes, left) {
        parts.push(bar(total, left));
        parts.push(format!("{} left", bytes(left)));
        if let Some(rate) = job.rate_bytes_per_s.filter(|rate| *rate > 0) {
            parts.push(format!("{}/s", bytes(rate)));
            parts.push(format!("{} s to go", left.div_ceil(rate)));
        }
    }
    if let Some(downtime_ms) = job.downtime_ms {
        parts.push(format!("downtime {downtime_ms} ms"));
    }
    parts.join("  ")
}

fn bar(total: u64, left: u64) -> String {
    let done = total.saturating_sub(left);
    let cells = done
        .saturating_mul(BAR_CELLS)
        .checked_div(total)
        .unwrap_or(BAR_CELLS)
        .min(BAR_CELLS);
    let full = usize::try_from(cells).unwrap_or_default();
    let empty = usize::try_from(BAR_CELLS - cells).unwrap_or_default();
    format!("[{}{}]", "#".repeat(full), ".".repeat(empty))
}

fn bytes(count: u64) -> String {
    let mib = count / (1024 * 1024);
    match mib {
        0 => format!("{} KiB", count / 1024),
        1..10_240 => format!("{mib} MiB"),
        _ => format!("{} GiB", mib / 1024),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::JobOperation;

    #[test]
    fn a_migration_fits_one_line_whatever_is_known_of_it() {
        assert_eq!(job_text(&JobFacts::default()), "");
        let job = JobFacts {
            phase: JobPhase::PreCopy,
            operation: JobOperation::Migration,
            memory_total_bytes: Some(4 << 30),
            memory_remaining_bytes: Some(1 << 30),
            rate_bytes_per_s: Some(100 << 20),
            dirty_bytes_per_s: None,
            downtime_ms: Some(40),
            elapsed_ms: None,
            passes: None,
        };
        assert_eq!(
            job_text(&job),
            "[###############.....]  1024 MiB left  100 MiB/s  11 s to go  downtime 40 ms"
        );
        let odd = JobFacts {
            memory_total_bytes: Some(0),
            memory_remaining_bytes: Some(u64::MAX),
            rate_bytes_per_s: Some(0),
            ..job
        };
        assert!(job_text(&odd).starts_with("[####"));
        // Before its first pass a hypervisor tells of nothing that is left.
        let begins = JobFacts {
            memory_remaining_bytes: Some(0),
            ..job
        };
        assert_eq!(job_text(&begins), "beginning  downtime 40 ms");
        let connects = JobFacts {
            phase: JobPhase::Setup,
            ..begins
        };
        assert_eq!(job_text(&connects), "connecting  downtime 40 ms");
    }
}
