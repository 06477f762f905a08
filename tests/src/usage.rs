//! What a process in a guest uses: memory, and how often it is woken.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use crate::agent::Agent;

/// How often each thread of a process gave up its CPU to wait, and so was woken again.
pub fn wake_ups(guest: &Agent, pid: u32) -> Result<BTreeMap<String, u64>> {
    let said = guest.sh(&format!(
        "grep -H voluntary_ctxt_switches /proc/{pid}/task/*/status"
    ))?;
    let counts = parse_wake_ups(&said);
    ensure!(!counts.is_empty(), "the process {pid} has no thread");
    Ok(counts)
}

/// Wake-ups of all threads; one that ended woke for that, and one that began woke as often as it says.
pub fn woken_between(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> u64 {
    let ended = before
        .keys()
        .filter(|thread| !after.contains_key(*thread))
        .count();
    let counted: u64 = after
        .iter()
        .map(|(thread, count)| count.saturating_sub(*before.get(thread).unwrap_or(&0)))
        .sum();
    counted + ended as u64
}

/// Lines such as `/proc/7/task/9/status:voluntary_ctxt_switches: 12`.
fn parse_wake_ups(said: &str) -> BTreeMap<String, u64> {
    said.lines()
        .filter(|line| !line.contains("nonvoluntary"))
        .filter_map(|line| {
            let (thread, count) = line.split_once("voluntary_ctxt_switches:")?;
            let thread = thread.split('/').rev().nth(1)?;
            Some((thread.to_owned(), count.trim().parse().ok()?))
        })
        .collect()
}

/// A size of `/proc/PID/status`, such as `VmRSS`, in KiB.
pub fn memory_kib(guest: &Agent, pid: u32, key: &str) -> Result<u64> {
    let said = guest.sh(&format!("grep {key}: /proc/{pid}/status"))?;
    said.split_whitespace()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("`{said}` is not a size in KiB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_ups_are_read_by_thread() {
        let said = "/proc/7/task/7/status:voluntary_ctxt_switches:\t12\n\
                    /proc/7/task/7/status:nonvoluntary_ctxt_switches:\t3\n\
                    /proc/7/task/9/status:voluntary_ctxt_switches:\t1\n";
        let counts = parse_wake_ups(said);
        assert_eq!(
            counts.into_iter().collect::<Vec<_>>(),
            [("7".to_owned(), 12), ("9".to_owned(), 1)]
        );
    }

    #[test]
    fn threads_that_come_and_go_count() {
        let counts =
            |list: &[(&str, u64)]| list.iter().map(|(t, n)| ((*t).to_owned(), *n)).collect();
        let before: BTreeMap<String, u64> = counts(&[("7", 12), ("9", 1)]);
        assert_eq!(woken_between(&before, &before), 0);
        assert_eq!(woken_between(&before, &counts(&[("7", 14), ("9", 1)])), 2);
        assert_eq!(woken_between(&before, &counts(&[("7", 12)])), 1);
        assert_eq!(
            woken_between(&before, &counts(&[("7", 12), ("9", 1), ("11", 3)])),
            3
        );
    }
}
