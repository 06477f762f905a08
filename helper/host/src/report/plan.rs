//! What would be done (`--dry-run`).

use std::fmt::Write as _;

use crate::decide::{AgentUse, Limits, Plan, Side, Vf};
use crate::hypervisor::MigrateOptions;

/// The plan, a line for each phase.
pub fn plan_text(plan: &Plan, limits: &Limits, options: &MigrateOptions) -> String {
    let mut text = String::new();
    let mut line = |phase: &str, what: String| {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{phase:<9} {what}");
    };
    let name = |vf: Option<&Vf>| vf.map_or("none".to_owned(), |vf| vf.identity.describe());
    let domain = &plan.domain;
    line(
        "check",
        format!(
            "domain {domain} on {}, and the destination {}",
            plan.source_uri, plan.destination_uri
        ),
    );
    let there = name(plan.vf(Side::Destination));
    line(
        "claim",
        format!("the domain; the destination's VF: {there}"),
    );
    let agent = match plan.agent {
        AgentUse::Required => "the guest moves its traffic to the standby",
        AgentUse::IfThere => "the guest moves its traffic to the standby, if it answers",
        AgentUse::Never => "the guest is not asked",
    };
    line(
        "prepare",
        format!("{agent} (at most {} s)", limits.prepare_ms / 1000),
    );
    let here = name(plan.vf(Side::Source));
    line(
        "unplug",
        format!("{here} (at most {} s)", limits.unplug_ms / 1000),
    );
    line(
        "migrate",
        format!("{} (at most {} s)", how(options), limits.migrate_ms / 1000),
    );
    let there_too = match (plan.agent, plan.reaches_destination_agent) {
        (AgentUse::Never, _) => "by the guest itself",
        (_, true) => "the guest tells the network where it is",
        (_, false) => "by the guest itself: its channel is on another machine",
    };
    line("announce", there_too.to_owned());
    line(
        "plug",
        format!("{there} (at most {} s)", limits.plug_ms / 1000),
    );
    let verified = if plan.asks_guest(Side::Destination) {
        format!("the guest uses it (at most {} s)", limits.verify_ms / 1000)
    } else {
        "by the domain's XML alone: the guest is not asked".to_owned()
    };
    line("verify", verified);
    text
}

fn how(options: &MigrateOptions) -> String {
    let mut words = vec!["live".to_owned()];
    for (wanted, word) in [
        (options.peer_to_peer, "peer to peer"),
        (options.postcopy, "post-copy"),
        (options.auto_converge, "auto-converge"),
        (options.tls, "TLS"),
        (options.xml.is_some(), "another XML on the destination"),
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
    words.join(", ")
}
