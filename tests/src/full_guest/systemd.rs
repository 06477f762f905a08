//! Questions to the systemd in a full guest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::agent::Agent;

/// Between two looks at something that nothing announces.
const LOOK_INTERVAL: Duration = Duration::from_millis(300);

/// Waits until systemd has no more jobs from the boot, and fails if a unit failed.
pub fn wait_started(guest: &Agent, limit: Duration) -> Result<()> {
    let state = guest
        .run(&["systemctl", "is-system-running", "--wait"], limit)?
        .text();
    if state != "running" {
        let failed = guest
            .sh("systemctl --no-pager --no-legend --failed; journalctl -b -p warning --no-pager")?;
        bail!("the system is `{state}`; failed units and warnings:\n{failed}");
    }
    Ok(())
}

/// Properties of a unit, as `systemctl show` gives them.
pub fn properties(guest: &Agent, unit: &str, names: &[&str]) -> Result<BTreeMap<String, String>> {
    let text = guest.sh(&format!(
        "systemctl show --property={} -- {unit}",
        names.join(",")
    ))?;
    let found: BTreeMap<_, _> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for name in names {
        ensure!(
            found.contains_key(*name),
            "{unit} has no property {name}:\n{text}"
        );
    }
    Ok(found)
}

/// One property of a unit.
pub fn property(guest: &Agent, unit: &str, name: &str) -> Result<String> {
    let mut found = properties(guest, unit, &[name])?;
    found
        .remove(name)
        .with_context(|| format!("{unit} has no property {name}"))
}

/// When a unit became active, in µs of the monotonic clock; fails if it never did.
pub fn active_since_us(guest: &Agent, unit: &str) -> Result<u64> {
    let value = property(guest, unit, "ActiveEnterTimestampMonotonic")?;
    let since: u64 = value
        .parse()
        .with_context(|| format!("{unit}: timestamp `{value}`"))?;
    ensure!(since > 0, "{unit} was never active");
    Ok(since)
}

/// What a unit wrote to the journal since boot, messages only.
pub fn journal(guest: &Agent, unit: &str) -> Result<String> {
    guest.sh(&format!("journalctl --no-pager -b -o cat -u {unit}"))
}

/// Looks until `look` gives something; at `limit`, fails with what it said last.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<std::result::Result<T, String>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match look()? {
            Ok(found) => return Ok(found),
            Err(seen) if Instant::now() >= deadline => {
                bail!(
                    "{what}: not within {} s; seen last:\n{seen}",
                    limit.as_secs()
                )
            }
            Err(_) => std::thread::sleep(LOOK_INTERVAL),
        }
    }
}
