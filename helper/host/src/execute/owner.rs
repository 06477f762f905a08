//! Which process drives an evacuation, and whether it still can.

use std::io::Read as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::lock::Lock;
use crate::evacuate::{Owner, Record};

/// Whoever drove that evacuation is gone for sure: nobody does, or it was a process of this machine, which
/// would have this lock, that of the domain's name in the spec. Where it was begun under another name, it would have
/// the lock of that one.
pub(crate) fn owner_is_dead(record: &Record, _lock: &Lock) -> bool {
    let Record { progress, spec, .. } = record;
    let has_its_lock = progress.domain == spec.domain;
    let is_gone = |owner: &Owner| has_its_lock && is_of_this_machine(owner);
    progress.owner.as_ref().is_none_or(is_gone)
}

/// The owner says that it is a process of this machine, since it was booted. Whether it lives, the domain's
/// lock tells: numbers of processes are used again.
pub(crate) fn is_of_this_machine(owner: &Owner) -> bool {
    owner.host == host_name()
}

/// This process.
pub(crate) fn this_process() -> std::io::Result<Owner> {
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
pub(crate) fn random_name() -> std::io::Result<String> {
    let mut bytes = [0_u8; 16];
    let mut source = std::fs::File::open("/dev/urandom")?;
    source.read_exact(&mut bytes)?;
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
    use crate::evacuate::{AgentUse, Progress, Spec};
    use std::time::Duration;

    #[test]
    fn an_owner_of_this_machine_is_told_by_its_boot() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path(), "domain", "g1").unwrap();
        let record = |owner: Option<Owner>, first_name: &str| Record {
            progress: Progress {
                owner,
                stage: crate::evacuate::Stage::Claimed,
                migration_begun: false,
                home: None,
                ..Progress::degraded("e", first_name)
            },
            spec: Spec {
                domain: "g1".to_owned(),
                renamed: None,
                source_uri: String::new(),
                destination_uri: String::new(),
                devices: Vec::new(),
                agent: AgentUse::Never,
                reaches_destination_agent: false,
                configure: false,
                yes_degraded: false,
            },
            pace: None,
        };
        let us = this_process().unwrap();
        let elsewhere = Owner {
            host: "b (boot 1)".to_owned(),
            ..us.clone()
        };
        // The first process lives; its number says nothing.
        let first = Owner {
            pid: 1,
            ..us.clone()
        };
        for (owner, first_name, is_dead) in [
            (None, "g1", true),
            (Some(us.clone()), "g1", true),
            (Some(first), "g1", true),
            (Some(elsewhere), "g1", false),
            // It has a lock of another name, if it lives.
            (Some(us), "g0", false),
            (None, "g0", true),
        ] {
            let record = record(owner, first_name);
            assert_eq!(owner_is_dead(&record, &lock), is_dead, "{record:?}");
        }
    }

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
