//! What an operator types while a domain runs, and what it tells.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tandem_lab::libvirt::{
    EVACUATION_LIMIT, LibvirtGuest, LibvirtHost, Running, file, operate, tandem_host,
};
use tandem_lab::tandem::STEP_LIMIT;
use tandem_lab::{Lab, Mac};

use crate::DOMAIN;

/// In the metrics of the host where it is.
pub(crate) const ON_VF: &str = "tandem_bond_on_vf{domain=\"g1\",bond=\"bond0\"} 1";

fn contains(text: &str, wanted: &[&str]) -> Result<()> {
    for words in wanted {
        ensure!(text.contains(words), "no {words}: {text}");
    }
    Ok(())
}

/// `xml check`, `show`, `clear` and `set`: the bonds are as before.
pub(crate) fn handles_xml(lab: &Lab, host: &LibvirtHost, guest: &LibvirtGuest<'_>) -> Result<()> {
    let (standby, vf) = (
        guest.spec().standby.to_string(),
        guest.spec().vf.to_string(),
    );
    let sound = operate(host, &["xml", "check", DOMAIN])?;
    contains(
        &sound,
        &["bond0: sound", "standby: ", "VF: ", &standby, &vf],
    )?;
    let shown = operate(host, &["xml", "show", DOMAIN])?;
    contains(&shown, &["<bond name=\"bond0\"", &standby, &vf])?;

    operate(host, &["xml", "clear", DOMAIN])?;
    ensure!(
        !host.virsh(&["dumpxml", DOMAIN])?.contains("bond0"),
        "they stay"
    );
    let arguments = ["xml", "check", DOMAIN, "-c", &host.uri()];
    let none = tandem_host(&arguments, STEP_LIMIT)?;
    ensure!(none.code == Some(1), "{none:?}");
    contains(&none.stderr, &["has no bonds"])?;

    let saved = file(lab.folder(), "bonds.xml", &shown)?;
    operate(host, &["xml", "set", DOMAIN, &saved])?;
    let again = operate(host, &["xml", "show", DOMAIN])?;
    ensure!(again == shown, "it was {shown}, and is {again}");
    Ok(())
}

/// `status`, in words and as JSON, from `serve` and by asking the guest; and the metrics.
pub(crate) fn sees_a_guest(host: &LibvirtHost) -> Result<()> {
    let text = operate(host, &["status", DOMAIN])?;
    contains(&text, &[DOMAIN, "the VF carries its traffic"])?;
    for (more, channel) in [(None, "subscribed"), (Some("--ask"), "asked")] {
        let words = ["status", DOMAIN, "--json"].into_iter().chain(more);
        let words: Vec<&str> = words.collect();
        let told: Value = serde_json::from_str(&operate(host, &words)?)?;
        let bond = &told["guest"]["status"]["bonds"][0];
        let so = (&told["state"], &told["channel"], &bond["traffic"]);
        ensure!(
            so.0 == "running" && so.1 == channel && so.2 == "vf",
            "{so:?}: {told:#}"
        );
    }
    let all: Value = serde_json::from_str(&operate(host, &["status", "--json"])?)?;
    ensure!(all.as_array().map(Vec::len) == Some(1), "{all:#}");
    for line in [
        ON_VF,
        "tandem_guest_answers{domain=\"g1\"} 1",
        "tandem_domain_degraded{domain=\"g1\"} 0",
    ] {
        host.await_metric(line, true)?;
    }
    Ok(())
}

/// `migrate --dry-run`: each phase, for people and programs.
pub(crate) fn sees_the_steps(
    guest: &LibvirtGuest<'_>,
    here: &LibvirtHost,
    there: &LibvirtHost,
    vf: Mac,
) -> Result<()> {
    let mut arguments = guest.migrate_arguments(here, there, vf)?;
    arguments.push("--dry-run".to_owned());
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let dry_run = tandem_host(&words, EVACUATION_LIMIT)?;
    ensure!(dry_run.code == Some(0), "{dry_run:?}");
    let steps = &dry_run.json()?["steps"];
    let phases = steps.as_array().context("the steps")?.iter();
    let phases: Vec<&str> = phases.filter_map(|step| step["phase"].as_str()).collect();
    ensure!(
        phases.first() == Some(&"check") && phases.last() == Some(&"release"),
        "{phases:?}"
    );
    let words: Vec<&str> = words.into_iter().filter(|word| *word != "--json").collect();
    let dry_run = tandem_host(&words, EVACUATION_LIMIT)?;
    for phase in phases {
        let told = dry_run.stdout.lines().any(|line| line.starts_with(phase));
        ensure!(told, "no {phase}: {dry_run:?}");
    }
    Ok(())
}

/// `watch`, from now on.
pub(crate) fn watch(host: &LibvirtHost) -> Result<Running> {
    let (uri, socket) = (host.uri(), host.serve_socket());
    let words = [
        "watch",
        DOMAIN,
        "--json",
        "-c",
        &uri,
        "--serve-socket",
        &socket,
    ];
    Running::start(&words)
}

/// It told of the domain as it was, then of its evacuation, and that it has gone.
pub(crate) fn saw_it_leave(watch: Running) -> Result<()> {
    watch.signal(Signal::TERM)?;
    let ran = watch.wait(STEP_LIMIT)?;
    let told: Vec<Value> = ran
        .stdout
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("{ran:?}"))?;
    let traffic = |one: &Value| one["guest"]["status"]["bonds"][0]["traffic"] == "vf";
    let evacuates = |one: &Value| one["evacuation"]["stage"].is_string();
    ensure!(told.first().is_some_and(traffic), "not as it was: {ran:?}");
    ensure!(told.iter().any(evacuates), "no evacuation: {ran:?}");
    let last = told.last().map(|one| &one["state"]);
    ensure!(
        last.is_some_and(|state| state == "absent"),
        "it stays: {ran:?}"
    );
    Ok(())
}

/// How long the switchover left the guest without frames, as the guest itself measured it.
pub(crate) fn was_told_of_the_gap(report: &Value) -> Result<()> {
    let gap_us = report["guest-status"]["gap-us"].as_u64();
    ensure!(gap_us.is_some_and(|us| us > 0), "no gap: {report:#}");
    Ok(())
}
