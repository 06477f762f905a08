//! What would be done (`--dry-run`).

use serde_json::{Value, json};

use crate::carry::Foreseen;
use crate::evacuate::{AgentUse, Limits, Phase, Side, Spec};
use crate::hypervisor::MigrateOptions;
use crate::words::printable;

/// A line for each phase.
pub(super) fn dry_run_text(steps: &[(Phase, String)]) -> String {
    let steps = steps.iter();
    let lines = steps.map(|(phase, what)| format!("{:<9} {what}\n", phase.as_str()));
    lines.collect()
}

/// The same for programs, with the spec itself.
pub(super) fn dry_run_json(spec: &Spec, steps: &[(Phase, String)], warnings: &[String]) -> Value {
    let steps = steps.iter();
    let steps = steps.map(|(phase, what)| json!({ "phase": phase, "does": what }));
    let mut plan = json!({ "spec": spec, "steps": steps.collect::<Vec<_>>() });
    if !warnings.is_empty() {
        plan["warnings"] = json!(warnings);
    }
    plan
}

/// What would become of frames for the guest while it moves.
pub(super) fn carry_text(foreseen: Option<Result<Foreseen, String>>) -> String {
    match foreseen {
        None => "frames are not carried, as asked".to_owned(),
        Some(Err(reason)) => format!("frames are not carried: {}", printable(&reason)),
        Some(Ok(Foreseen { alone: None, .. })) => "frames are carried".to_owned(),
        Some(Ok(Foreseen {
            alone: Some(reason),
            ..
        })) => format!(
            "frames are held and go back to the network, as they can't be carried: {}",
            printable(&reason)
        ),
    }
}

/// What would be done in each phase.
pub(super) fn steps(
    spec: &Spec,
    limits: &Limits,
    options: &MigrateOptions,
    carry: &str,
) -> Vec<(Phase, String)> {
    let mut steps = Vec::new();
    let mut line = |phase: Phase, what: String| steps.push((phase, what));
    let names = |side: Side| {
        let wanted = spec.devices.iter().filter(|one| one.vf(side).is_some());
        let names: Vec<String> = wanted.map(|one| printable(&one.describe(side))).collect();
        match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        }
    };
    // One device after the other may take as long as one alone.
    let at_most = |each_ms: u64, devices: usize| {
        let devices = u64::try_from(devices.max(1)).unwrap_or(u64::MAX);
        format!("at most {} s", each_ms.saturating_mul(devices) / 1000)
    };
    let on = |side: Side| {
        let there = spec.devices.iter().filter(|one| one.vf(side).is_some());
        there.count()
    };
    let domain = &spec.domain;
    line(
        Phase::Check,
        format!(
            "domain {} on {}, and the destination {}",
            printable(domain),
            spec.source_uri,
            spec.destination_uri
        ),
    );
    let there = names(Side::Destination);
    line(
        Phase::Claim,
        format!("the domain; on the destination: {there}"),
    );
    let agent = match spec.agent {
        AgentUse::Required => "the guest moves its traffic to the standby",
        AgentUse::IfThere => "the guest moves its traffic to the standby, if it answers",
        AgentUse::Never => "the guest is not asked",
    };
    line(
        Phase::Prepare,
        format!(
            "{agent} ({})",
            at_most(limits.prepare_ms, spec.of_bonds().count())
        ),
    );
    let here = names(Side::Source);
    line(
        Phase::Unplug,
        format!("{here} ({})", at_most(limits.unplug_ms, on(Side::Source))),
    );
    line(
        Phase::Migrate,
        format!(
            "{} (at most {} s); {carry}",
            how(options),
            limits.migrate_ms / 1000
        ),
    );
    let there_too = match (spec.agent, spec.reaches_destination_agent) {
        (AgentUse::Never, _) => "by the guest itself",
        (_, true) => "the guest tells the network where it is",
        (_, false) => "by the guest itself: its channel is on another machine",
    };
    line(Phase::Announce, there_too.to_owned());
    line(
        Phase::Plug,
        format!(
            "{there} ({})",
            at_most(limits.plug_ms, on(Side::Destination))
        ),
    );
    let verified = if spec.asks_guest(Side::Destination) {
        format!("the guest uses it (at most {} s)", limits.verify_ms / 1000)
    } else {
        "by the domain's XML alone: the guest is not asked".to_owned()
    };
    line(Phase::Verify, verified);
    let released = "the domain's record and the reservations on the destination are removed";
    line(Phase::Release, released.to_owned());
    steps
}

fn how(options: &MigrateOptions) -> String {
    let mut words = vec!["live".to_owned()];
    for (wanted, word) in [
        (options.peer_to_peer, "peer to peer"),
        (options.postcopy, "post-copy"),
        (options.auto_converge, "auto-converge"),
        (options.tls, "TLS"),
        (options.xml.is_some(), "another XML on the destination"),
        (options.storage.is_some(), "with its disks"),
        (options.parallel, "several connections"),
        (options.compressed, "compressed"),
        (options.timeout.is_some(), "hurried if it takes long"),
        (options.is_unsafe, "unsafe"),
    ] {
        if wanted {
            words.push(word.to_owned());
        }
    }
    words.extend(
        options
            .bandwidth_mib_s
            .map(|limit| format!("at most {limit} MiB/s")),
    );
    if !options.more.is_empty() {
        words.push(printable(&options.more.join(" ")));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_phase_of_a_migration_that_works_is_told_for_both() {
        let spec: Spec =
            serde_json::from_value(json!({"domain": "g1", "source-uri": "qemu:///system",
            "destination-uri": "qemu+ssh://b/system", "bond": null, "source-vf": null,
            "destination-vf": null, "agent": "required", "reaches-destination-agent": true,
            "configure": true, "yes-degraded": false}))
            .unwrap();
        let (limits, options) = Default::default();
        let steps = steps(&spec, &limits, &options, "frames are carried");
        let (text, json) = (dry_run_text(&steps), dry_run_json(&spec, &steps, &[]));
        assert_eq!(json.get("warnings"), None);
        assert_eq!(json["spec"]["domain"], "g1");
        let told = json["steps"].as_array().unwrap();
        let phases = [
            "check", "claim", "prepare", "unplug", "migrate", "announce", "plug", "verify",
            "release",
        ];
        assert_eq!(text.lines().count(), phases.len(), "{text}");
        assert_eq!(told.len(), phases.len(), "{json:#}");
        for ((line, step), phase) in text.lines().zip(told).zip(phases) {
            assert_eq!(step["phase"], phase);
            let (first, rest) = line.split_once(' ').unwrap();
            assert_eq!(
                (first, rest.trim()),
                (phase, step["does"].as_str().unwrap())
            );
        }
    }

    /// As the machine waits: each device adds the time of one.
    #[test]
    fn what_is_done_for_each_device_may_take_as_long_for_each() {
        let vf = |alias: &str| json!({"identity": {"pci": null, "alias": alias, "mac": null}, "guest-mac": null, "device": ""});
        let bond = |name: &str| json!({"role": {"vf": {"bond": name}}, "source": vf(name), "destination": vf(name)});
        let gpu = json!({"role": "let-go", "source": vf("ua-gpu"), "destination": null});
        let spec: Spec = serde_json::from_value(json!({"domain": "g1", "source-uri": "qemu:///system",
            "destination-uri": "qemu+ssh://b/system", "devices": [bond("bond0"), bond("bond1"), gpu],
            "agent": "required", "reaches-destination-agent": true, "configure": true,
            "yes-degraded": false}))
        .unwrap();
        let (limits, options) = Default::default();
        let text = dry_run_text(&steps(&spec, &limits, &options, ""));
        for (phase, seconds) in [
            ("prepare", 40),
            ("unplug", 180),
            ("plug", 240),
            ("verify", 60),
        ] {
            let mut lines = text.lines();
            let line = lines.find(|line| line.starts_with(&format!("{phase} ")));
            let said = format!("(at most {seconds} s)");
            assert!(line.unwrap().contains(&said), "{phase}: {text}");
        }
    }
}
