//! What `migrate` and `recover` do alike: run the evacuation and report.

use std::io::Read as _;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::exit;
use crate::act::{Ended, Runner};
use crate::decide::{Evacuation, Owner};
use crate::report::{ProgressLine, left, text_of};

/// Runs it, reports, and returns the exit code.
pub(super) async fn run(runner: Runner, evacuation: Evacuation, json: bool) -> anyhow::Result<u8> {
    let plan = evacuation.plan().clone();
    let folder = runner.folder.clone();
    let mut line = ProgressLine::new();
    match runner.run(evacuation, &mut line).await? {
        Ended::Left => {
            eprintln!("{}", left(&plan, &folder));
            Ok(exit::INTERRUPTED)
        }
        Ended::With(outcome) => {
            if json {
                println!("{}", serde_json::to_string_pretty(&outcome)?);
            } else {
                print!("{}", text_of(&plan, &outcome, &folder));
            }
            Ok(outcome.exit_code())
        }
    }
}

/// This process.
pub(crate) fn owner() -> anyhow::Result<Owner> {
    Ok(Owner {
        token: random_name()?,
        host: host_name(),
        pid: std::process::id(),
        started_at: utc_text(SystemTime::now()),
    })
}

/// This machine since it was booted: two of them may have one name, and no process outlives a boot.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match boot.split('-').next() {
        Some(boot) if !boot.is_empty() => format!("{name} (boot {boot})"),
        _ => name.into_owned(),
    }
}

/// A name that nobody else chooses.
pub(super) fn random_name() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    let mut source = std::fs::File::open("/dev/urandom").context("/dev/urandom")?;
    source.read_exact(&mut bytes).context("/dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// RFC 3339, whole seconds. Civil date from days by Howard Hinnant's algorithm.
fn utc_text(now: SystemTime) -> String {
    let seconds = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn seconds_become_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
        ] {
            assert_eq!(utc_text(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
