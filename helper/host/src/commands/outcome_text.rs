//! The final report.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::evacuate::{
    AgentUse, CarryOutcome, DeviceOutcome, GuestVerdict, Leftover, Outcome, Side, Spec, Verdict,
};
use crate::execute::default_records_folder;
use crate::files::default_folder;
use crate::words::{message, printable, quoted};

/// Where a recovery finds locks and records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Folders {
    /// Locks.
    pub(super) state: PathBuf,
    /// This host's own records.
    pub(super) records: PathBuf,
}

impl Default for Folders {
    fn default() -> Self {
        Self {
            state: default_folder(),
            records: default_records_folder(),
        }
    }
}

/// The report for people.
pub(super) fn text_of(spec: &Spec, outcome: &Outcome, folders: &Folders) -> String {
    let mut text = String::new();
    let mut line = |what: String| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{what}");
    };
    line(headline(spec, outcome));
    for cause in outcome.cause.iter().chain(&outcome.more_causes) {
        line(format!("  why       {}", message(&cause.message)));
    }
    if outcome.unplug_may_follow {
        line(
            "  beware    the unplug that was asked for may still happen; `tandem-host recover` then \
             plugs the VF in again"
                .to_owned(),
        );
    }
    let times = outcome.phases.iter().filter(|one| one.ms > 0);
    let times = times.map(|one| format!("{} {} ms", one.phase.as_str(), one.ms));
    line(format!(
        "  phases    {}",
        times.collect::<Vec<_>>().join(", ")
    ));
    if let Some(downtime_ms) = outcome.downtime_ms {
        line(format!(
            "  downtime  {downtime_ms} ms (the hypervisor's figure)"
        ));
    }
    if let Some(carry) = &outcome.carry {
        line(format!("  carry     {}", carry_text(carry)));
    }
    line(format!("  guest     {}", guest_text(spec, outcome)));
    let is_seen = outcome.runs_on.or(outcome.last_seen_on).is_some();
    let several = outcome.devices.len() > 1;
    let told = |one: &&DeviceOutcome| is_seen && (several || one.plug_failure.is_some());
    for device in outcome.devices.iter().filter(told) {
        line(format!("  device    {}", device_text(device)));
    }
    for leftover in &outcome.left {
        line(format!("  left      {}", leftover_text(*leftover)));
    }
    if outcome.recovery_needed {
        let side = outcome.runs_on.or(outcome.last_seen_on);
        line(format!("  next      {}", recover(spec, side, folders)));
    }
    text
}

/// What is said when the operator left at once.
pub(super) fn left(spec: &Spec, runs_on: Option<Side>, folders: &Folders) -> String {
    format!(
        "interrupted; run `{}`, which finishes or undoes it",
        recover(spec, runs_on, folders)
    )
}

/// The command that goes on, asked where the domain is; on the source as long as that is open.
fn recover(spec: &Spec, side: Option<Side>, folders: &Folders) -> String {
    let mut side = side.unwrap_or(Side::Source);
    if spec.uri(side).is_empty() {
        side = Side::Destination;
    }
    let uri = spec.uri(side);
    let mut command = format!(
        "tandem-host recover {} --connect {}",
        quoted(spec.name(side)),
        quoted(uri)
    );
    let usual = Folders::default();
    for (option, folder, usual) in [
        ("--state-dir", &folders.state, &usual.state),
        ("--records-dir", &folders.records, &usual.records),
    ] {
        if folder != usual {
            // Writing to a String does not fail.
            let _ = write!(command, " {option} {}", quoted(&folder.to_string_lossy()));
        }
    }
    command
}

/// What became of the frames for the guest.
fn carry_text(carry: &CarryOutcome) -> String {
    let mut text = match &carry.reason {
        Some(reason) if carry.held == 0 => return format!("none: {}", message(reason)),
        Some(reason) => format!("ended early: {}; ", message(reason)),
        None => String::new(),
    };
    let left = match carry.left_in_queue {
        0 => String::new(),
        left => format!(" ({left} of them in the tap's queue when the guest was stopped)"),
    };
    let swept = match carry.swept {
        0 => String::new(),
        swept => format!(" ({swept} of them swept from the tap's queue)"),
    };
    let left_there = match carry.left_to_the_source {
        0 => String::new(),
        left => format!(" {left} carried and left to the source,"),
    };
    let forwarded = match carry.forwarded {
        0 => String::new(),
        forwarded => format!(" {forwarded} given to the network,"),
    };
    let drain = carry
        .drain_ms
        .map(|ms| format!(", the guest was stopped {ms} ms after the hold"));
    let pause = carry
        .pause_ms
        .map(|ms| format!(", the guest stood still for {ms} ms"));
    if !carry.stop_was_ours {
        text.push_str("the hypervisor stopped the guest by itself; ");
    }
    // Writing to a String does not fail.
    let _ = write!(
        text,
        "{} frames held{swept}, {} carried,{left_there} {} given back,{forwarded} {} lost{left}{}; the latest waited {} ms{}{}, {} KiB kept at most",
        carry.held,
        carry.carried,
        carry.given_back,
        carry.lost,
        match carry.maybe_lost {
            0 => String::new(),
            unseen => format!(" or {unseen} more"),
        },
        carry.latest_ms,
        drain.unwrap_or_default(),
        pause.unwrap_or_default(),
        carry.most_bytes.div_ceil(1024)
    );
    text
}

fn headline(spec: &Spec, outcome: &Outcome) -> String {
    let domain = printable(spec.name(outcome.runs_on.unwrap_or(Side::Source)));
    let place = match outcome.runs_on {
        Some(side) => format!("on the {} ({})", side.as_str(), printable(spec.uri(side))),
        None => "on neither host as far as can be seen".to_owned(),
    };
    let vf = with_devices(outcome);
    let vf = vf.as_str();
    match outcome.verdict {
        Verdict::Done => format!("done: domain {domain} runs {place} {vf}"),
        Verdict::Degraded => {
            let vf = match (outcome.vf_attached, outcome.guest) {
                (false, _) => vf.to_owned(),
                (true, GuestVerdict::UsesStandby) => {
                    format!("{vf}, which its guest does not use{}", whose(outcome))
                }
                (true, _) => format!("{vf}, and it is not known whether its guest uses it"),
            };
            format!("degraded: domain {domain} runs {place} {vf}")
        }
        Verdict::RolledBack => {
            let unused = match outcome.guest {
                GuestVerdict::UsesStandby if outcome.vf_attached => {
                    format!(", which its guest does not use{}", whose(outcome))
                }
                _ => String::new(),
            };
            format!("rolled back: domain {domain} runs {place} {vf}{unused}")
        }
        Verdict::Refused => format!("refused: domain {domain} is as it was, {place}"),
        Verdict::Interrupted => {
            format!("interrupted: the evacuation of domain {domain} is neither finished nor undone")
        }
        Verdict::Ready => {
            let vf = if outcome.vf_attached {
                vf
            } else {
                "without a VF now"
            };
            format!(
                "ready: domain {domain} can be evacuated; it runs {place} {vf}, and nothing was changed"
            )
        }
        Verdict::Stopped => format!("domain {domain} does not run any more"),
    }
}

/// What is there of what should be, and by name what is not.
fn with_devices(outcome: &Outcome) -> String {
    // A bond that ends without a VF, as agreed, lacks it all the same.
    let counts = |one: &&DeviceOutcome| one.wanted || one.bond.is_some();
    let wanted = outcome.devices.iter().filter(counts).count();
    let missing = outcome.devices.iter().filter(counts);
    let missing = missing.filter(|one| !one.attached);
    let name = |one: &DeviceOutcome| match &one.bond {
        Some(bond) if !one.wanted => format!("a VF for {}", printable(bond)),
        _ => one.device.clone(),
    };
    let missing: Vec<String> = missing.map(name).collect();
    match (wanted, missing.as_slice()) {
        (0 | 1, _) if outcome.vf_attached => "with its VF".to_owned(),
        (0 | 1, _) => "without a VF".to_owned(),
        (all, []) => format!("with all {all} of its devices"),
        (_, some) => format!("without {}", some.join(", ")),
    }
}

/// Of which bonds the guest does not use the VF, where there are several.
fn whose(outcome: &Outcome) -> String {
    let bonds = || {
        outcome
            .devices
            .iter()
            .filter_map(|one| one.bond.as_ref().map(|bond| (one, bond)))
    };
    let unused = bonds().filter(|(one, _)| one.guest == GuestVerdict::UsesStandby);
    let unused: Vec<String> = unused.map(|(_, bond)| printable(bond)).collect();
    match bonds().count() {
        0 | 1 => String::new(),
        _ => format!(" for {}", unused.join(", ")),
    }
}

fn device_text(one: &DeviceOutcome) -> String {
    let place = match (one.wanted, one.attached) {
        (false, _) => "is not to be there".to_owned(),
        (true, true) => match one.plug_ms {
            Some(ms) => format!("is there, plugged in within {ms} ms"),
            None => "is there".to_owned(),
        },
        (true, false) => match &one.plug_failure {
            Some(failure) => format!("is missing: {}", message(failure)),
            None => "is missing".to_owned(),
        },
    };
    let guest = match one.guest {
        GuestVerdict::NotAsked => "",
        GuestVerdict::Silent => "; the guest says nothing of it",
        GuestVerdict::UsesVf => "; it carries traffic",
        GuestVerdict::UsesStandby => "; it carries no traffic",
    };
    format!("{} {place}{guest}", message(&one.device))
}

fn guest_text(spec: &Spec, outcome: &Outcome) -> String {
    let side = outcome.runs_on.unwrap_or(Side::Source);
    let out_of_reach = spec.agent != AgentUse::Never && !spec.asks_guest(side);

    let gap = outcome.guest_status.as_ref().and_then(|one| one.gap_us);
    let gap = gap.map(|us| format!(", longest gap that it measured {us} µs"));
    let gap = gap.unwrap_or_default();
    match outcome.guest {
        GuestVerdict::NotAsked if out_of_reach => format!(
            "was not asked: its channel is on the machine of {}; there, `tandem-host status {}` asks it",
            printable(spec.uri(side)),
            quoted(spec.name(side))
        ),
        GuestVerdict::NotAsked => "was not asked".to_owned(),
        GuestVerdict::Silent => "does not answer".to_owned(),
        GuestVerdict::UsesVf => format!("says that the VF carries its traffic{gap}"),
        GuestVerdict::UsesStandby => format!("says that the VF does not carry its traffic{gap}"),
    }
}

fn leftover_text(leftover: Leftover) -> String {
    let record = |side: Side| {
        format!(
            "the record in the domain's metadata on the {}; `tandem-host recover` removes it",
            side.as_str()
        )
    };
    match leftover {
        Leftover::Claim => "this process's claim in the domain's metadata".to_owned(),
        Leftover::VfClaim => "the reservation of the destination's devices".to_owned(),
        Leftover::RecordOnSource => record(Side::Source),
        Leftover::RecordOnDestination => record(Side::Destination),
    }
}

#[cfg(test)]
mod tests {
    use super::super::dry_run::{dry_run_text, steps};
    use super::*;
    use crate::evacuate::{Cause, CauseCode};
    use serde_json::json;

    #[test]
    fn a_recovery_is_asked_for_where_the_domain_is() {
        let spec: Spec =
            serde_json::from_value(json!({"domain": "g1", "source-uri": "qemu:///system",
            "destination-uri": "qemu+ssh://b/system", "bond": null, "source-vf": null,
            "destination-vf": null, "agent": "never", "reaches-destination-agent": false,
            "configure": true, "yes-degraded": false}))
            .unwrap();
        let on_source = "`tandem-host recover g1 --connect qemu:///system`";
        let on_destination = "`tandem-host recover g1 --connect qemu+ssh://b/system`";
        for (side, command) in [
            (None, on_source),
            (Some(Side::Source), on_source),
            (Some(Side::Destination), on_destination),
        ] {
            let said = left(&spec, side, &Folders::default());
            assert!(said.contains(command), "{said}");
            let cause = Cause::new(CauseCode::Unclear, "a host is silent");
            let outcome = Outcome {
                last_seen_on: side,
                recovery_needed: true,
                ..Outcome::without_run(Verdict::Interrupted, cause)
            };
            let said = text_of(&spec, &outcome, &Folders::default());
            assert!(said.contains(command.trim_matches('`')), "{said}");
        }
    }

    #[test]
    fn a_bond_that_ends_without_a_vf_is_said_to_lack_it() {
        let device = |name: &str, bond: Option<&str>, there: bool| DeviceOutcome {
            device: name.to_owned(),
            bond: bond.map(str::to_owned),
            wanted: there,
            attached: there,
            unplug_may_follow: false,
            guest: GuestVerdict::NotAsked,
            guest_status: None,
            plug_failure: None,
            plug_ms: None,
        };
        let cause = Cause::new(CauseCode::Unclear, "");
        let mut outcome = Outcome::without_run(Verdict::Done, cause);
        outcome.devices = vec![
            device("device ua-vf0 of bond0", Some("bond0"), true),
            device("device ua-vf1 of bond1", Some("bond1"), false),
            device("device ua-gpu", None, false),
        ];
        assert_eq!(with_devices(&outcome), "without a VF for bond1");
        outcome.devices.remove(1);
        outcome.vf_attached = true;
        assert_eq!(with_devices(&outcome), "with its VF");
    }

    #[test]
    fn the_command_to_copy_runs_nothing_else_whatever_the_domain_is_called() {
        let spec: Spec =
            serde_json::from_value(json!({"domain": "x;id\u{1b}[2J", "source-uri": "",
            "destination-uri": "qemu:///system?socket=/a b", "bond": null, "source-vf": null,
            "destination-vf": null, "agent": "never", "reaches-destination-agent": false,
            "configure": true, "yes-degraded": false}))
            .unwrap();
        let said = left(&spec, None, &Folders::default());
        let command = "tandem-host recover 'x;id [2J' --connect 'qemu:///system?socket=/a b'`";
        assert!(said.contains(command), "{said}");
        let cause = Cause::new(CauseCode::Unclear, "by \u{202e}x\u{1b}[31m");
        let outcome = Outcome {
            recovery_needed: true,
            ..Outcome::without_run(Verdict::Interrupted, cause)
        };
        let said = text_of(&spec, &outcome, &Folders::default());
        assert!(!said.contains(['\u{1b}', '\u{202e}']), "{said:?}");
    }

    #[test]
    fn a_guest_on_another_machine_was_not_asked_and_that_is_said() {
        let spec = |agent: &str, reaches: bool| -> Spec {
            let spec = json!({"domain": "g1", "source-uri": "qemu:///system",
                "destination-uri": "qemu+ssh://b/system", "bond": null, "source-vf": null,
                "destination-vf": null, "agent": agent, "reaches-destination-agent": reaches,
                "configure": true, "yes-degraded": false});
            serde_json::from_value(spec).unwrap()
        };
        let outcome = json!({"verdict": "done", "looked": true, "runs-on": "destination", "vf-attached": true,
            "unplug-may-follow": false, "guest": "not-asked", "guest-status": null, "cause": null,
            "left": [], "recovery-needed": false, "phases": [], "downtime-ms": null});
        let outcome: Outcome = serde_json::from_value(outcome).unwrap();
        let remote = spec("required", false);
        let said = text_of(&remote, &outcome, &Folders::default());
        for words in [
            "on the machine of qemu+ssh://b/system",
            "`tandem-host status g1`",
        ] {
            assert!(said.contains(words), "{said}");
        }
        let said = text_of(&spec("never", false), &outcome, &Folders::default());
        assert!(said.contains("guest     was not asked\n"), "{said}");
        let planned = |spec: &Spec| {
            let (limits, options) = Default::default();
            dry_run_text(&steps(spec, &limits, &options, ""))
        };
        assert!(planned(&remote).contains("verify    by the domain's XML alone"));
        assert!(planned(&spec("required", true)).contains("verify    the guest uses it"));
    }
}
