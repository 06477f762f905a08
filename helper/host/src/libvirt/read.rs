//! Reads what virsh prints. Pure; what is not known is passed over.

use crate::hypervisor::{
    ActiveDomain, DomainEvent, DomainState, EventKind, JobFacts, JobOperation, JobPhase, Lifecycle,
};

/// The reason of `domstate` while a migration has stopped a domain's processors.
pub(super) const MIGRATING: &str = "migrating";
/// Reasons of `domstate` for a pause that may be that of a domain which comes in.
pub(super) const MAY_COME_IN: [&str; 2] = [MIGRATING, "starting up"];
/// The reason of `domstate`, on both hosts, in a post-copy whose connection is gone.
pub(super) const POSTCOPY_BROKEN: &str = "post-copy failed";
/// libvirt's words on the destination of a migration under way.
pub(super) const ONLY_ON_SOURCE: &str = "only on the source host";

/// `virDomainJobOperation` (include/libvirt/libvirt-domain.h, libvirt 11.3).
const OPERATION_MIGRATION_IN: u64 = 4;

/// What a job of that number is.
fn operation(number: Option<u64>) -> JobOperation {
    match number {
        None | Some(OPERATION_MIGRATION_IN | 5) => JobOperation::Migration,
        Some(2 | 3) => JobOperation::Save,
        Some(6 | 7 | 10) => JobOperation::Snapshot,
        Some(8) => JobOperation::Dump,
        Some(9) => JobOperation::Backup,
        Some(_) => JobOperation::Other,
    }
}

/// `virsh domstate --reason`: `running (booted)`.
pub(super) fn state(text: &str) -> Option<(DomainState, String)> {
    let line = text.lines().find(|line| !line.trim().is_empty())?.trim();
    let (state, reason) = match line.split_once(" (") {
        Some((state, reason)) => (state, reason.strip_suffix(')').unwrap_or(reason)),
        None => (line, ""),
    };
    let state = match state {
        // On its way down or blocked it still runs.
        "running" | "idle" | "in shutdown" => DomainState::Running,
        "paused" | "pmsuspended" => DomainState::Paused,
        "shut off" | "crashed" => DomainState::ShutOff,
        _ => return None,
    };
    Some((state, reason.to_owned()))
}

/// `virsh list --all --uuid --name`: a UUID, one blank and a name in each line. A name may begin and end
/// with blanks of its own.
pub(super) fn uuids(text: &str) -> Vec<(&str, &str)> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(uuid, _)| !uuid.is_empty()).collect()
}

/// `virsh snapshot-list --name`: a name in each line.
pub(super) fn names(text: &str) -> Vec<String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

/// `virsh list --id --name`: the number of a running domain, one blank and its name in each line.
pub(super) fn active(text: &str) -> Vec<ActiveDomain> {
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    let known = lines.filter(|(run_id, name)| !run_id.is_empty() && !name.is_empty());
    let known = known.map(|(run_id, name)| ActiveDomain {
        name: name.to_owned(),
        run_id: run_id.to_owned(),
    });
    known.collect()
}

/// What decides for which of a domain's definitions a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Info {
    /// It has one that lasts as long as it runs.
    pub(super) runs: bool,
    /// It has one that survives its end.
    pub(super) is_persistent: bool,
}

/// `virsh dominfo`: lines `State: running` and `Persistent: yes` among others. `None` without a state.
pub(super) fn info(text: &str) -> Option<Info> {
    let (state, _) = state(value(text, "State")?)?;
    Some(Info {
        runs: state != DomainState::ShutOff,
        is_persistent: value(text, "Persistent") == Some("yes"),
    })
}

/// The value of the first line `KEY: VALUE`.
fn value<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
    let mut pairs = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = pairs.find(|(key, _)| key.trim() == wanted)?;
    Some(value.trim())
}

/// `virsh net-info`: a line `Active: yes`, or `no`.
pub(super) fn is_active(text: &str) -> Option<bool> {
    match value(text, "Active")? {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// `virsh domstats --interface`: a line `net.N.name=NAME` for each NIC that has a device on the host.
pub(super) fn taps(text: &str) -> Vec<String> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    let names = pairs.filter(|(key, name)| {
        let number = key
            .strip_prefix("net.")
            .and_then(|key| key.strip_suffix(".name"));
        number.is_some_and(|number| number.parse::<u32>().is_ok()) && !name.is_empty()
    });
    names.map(|(_, name)| name.to_owned()).collect()
}

/// `virsh migrate-getspeed`: a number of MiB/s.
pub(super) fn speed(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A job's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) facts: JobFacts,
    /// It receives a migration.
    pub(super) incoming: bool,
}

/// `virsh domjobinfo --rawstats`: `KEY: NUMBER` in each line. `None` without a job type.
pub(super) fn job(text: &str) -> Option<Job> {
    let number = |wanted: &str| -> Option<u64> { value(text, wanted)?.parse().ok() };
    // `virDomainJobType`, same header.
    let phase = match number("Job type")? {
        0 => JobPhase::None,
        // Without figures yet the hosts still get ready.
        1 | 2 if number("memory_total").is_none_or(|total| total == 0) => JobPhase::Setup,
        1 | 2 => JobPhase::PreCopy,
        3 => JobPhase::Completed,
        4 => JobPhase::Failed,
        5 => JobPhase::Cancelled,
        _ => JobPhase::Other,
    };
    let told = number("operation");
    let operation = operation(told);
    let facts = JobFacts {
        phase: if operation == JobOperation::Migration {
            phase
        } else {
            JobPhase::Other
        },
        operation,
        memory_total_bytes: number("memory_total"),
        memory_remaining_bytes: number("memory_remaining"),
        rate_bytes_per_s: number("memory_bps"),
        dirty_bytes_per_s: number("memory_dirty_rate")
            .zip(number("memory_page_size"))
            .map(|(pages, bytes)| pages.saturating_mul(bytes)),
        downtime_ms: number("downtime"),
        elapsed_ms: number("time_elapsed"),
        passes: number("memory_iteration"),
    };
    Some(Job {
        facts,
        incoming: told == Some(OPERATION_MIGRATION_IN),
    })
}

/// What a migration does that copies memory, by `virsh domstate --reason` on the source.
pub(super) fn copy_phase(text: &str) -> JobPhase {
    match state(text) {
        Some((_, reason)) if reason == POSTCOPY_BROKEN => JobPhase::PostCopyBroken,
        Some((_, reason)) if reason.starts_with("post-copy") => JobPhase::PostCopy,
        Some((DomainState::Paused, reason)) if reason == MIGRATING => JobPhase::SwitchOver,
        _ => JobPhase::PreCopy,
    }
}

/// A line of `virsh event --all --loop --timestamp`:
/// `2026-01-02 03:04:05.678+0000: event 'lifecycle' for domain 'g1': Started Booted`.
pub(super) fn event(line: &str) -> Option<DomainEvent> {
    let (_, rest) = line.split_once("event '")?;
    let (name, rest) = rest.split_once("' for domain '")?;
    // What follows the name never has a quote and a colon, but a name may.
    let (domain, details) = rest.rsplit_once("':")?;
    let details = details.trim();
    let alias = || details.to_owned();
    let kind = match name {
        "device-removed" => EventKind::DeviceRemoved { alias: alias() },
        "device-added" => EventKind::DeviceAdded { alias: alias() },
        "device-removal-failed" => EventKind::UnplugRefused { alias: alias() },
        "reboot" => EventKind::Reboot,
        "metadata-change" => EventKind::MetadataChanged,
        "job-completed" => EventKind::JobFinished,
        "lifecycle" => EventKind::Lifecycle(lifecycle(details)?),
        _ => return None,
    };
    Some(DomainEvent::of(domain, kind))
}

fn lifecycle(details: &str) -> Option<Lifecycle> {
    match details.split(' ').next()? {
        "Defined" => Some(Lifecycle::Defined),
        "Undefined" => Some(Lifecycle::Undefined),
        "Started" => Some(Lifecycle::Started),
        "Suspended" | "PMSuspended" => Some(Lifecycle::Paused),
        "Resumed" => Some(Lifecycle::Resumed),
        "Stopped" | "Shutdown" | "Crashed" => Some(Lifecycle::Stopped),
        _ => None,
    }
}

/// A line of `virsh qemu-monitor-event --event VSERPORT_CHANGE --loop --timestamp`:
/// `…: event VSERPORT_CHANGE for domain 'g1': {"open":true,"id":"channel0"}`. Which channel it is the
/// domain's XML tells, so any that opens or closes is a reason to look.
pub(super) fn monitor_event(line: &str) -> Option<DomainEvent> {
    let (_, rest) = line.split_once(": event VSERPORT_CHANGE for domain '")?;
    let (domain, details) = rest.rsplit_once("': ")?;
    let details: serde_json::Value = serde_json::from_str(details).ok()?;
    let connected = details.get("open")?.as_bool()?;
    Some(DomainEvent::of(domain, EventKind::Agent { connected }))
}
