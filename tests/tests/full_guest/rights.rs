//! What the service may do, and what a host can make of the units beside it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tandem_core::input::Source;
use tandem_core::status::SourceHealth;
use tandem_lab::full_guest::{exposure, install, systemd};
use tandem_lab::tandem::{Guest, STEP_LIMIT};

use crate::UNIT;

/// The path unit that has new bonds marked, and what it starts.
const MARKS: [&str; 2] = ["tandem-refresh.path", "tandem-refresh.service"];
/// systemd gives a unit up that was started more often within 10 s, unless it says otherwise.
const USUAL_STARTS: u64 = 5;
/// The numbers of include/uapi/linux/capability.h (6.12): `NET_ADMIN`, `NET_RAW`.
const CAPABILITIES: u64 = 1 << 12 | 1 << 13;
/// `PERFMON`, `BPF`: only until the kernel programs are loaded.
const TO_LOAD: u64 = 1 << 38 | 1 << 39;

/// The process has what the unit says; with that it reaches the channel and loads its eBPF programs.
pub(crate) fn has_what_it_needs_and_no_more(guest: &Guest) -> Result<()> {
    let vm = &guest.vm;
    let pid = systemd::property(vm, UNIT, "MainPID")?;
    let text = vm.sh(&format!("cat /proc/{pid}/status"))?;
    let field = |name: &str| -> Result<&str> {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        Ok(line.with_context(|| format!("no {name} in {text}"))?.trim())
    };
    let bounding = u64::from_str_radix(field("CapBnd")?, 16)?;
    ensure!(bounding == CAPABILITIES | TO_LOAD, "{bounding:#x}");
    // The programs are loaded; no thread could load others.
    // One that has just asked a question ends meanwhile.
    let all = format!("cat /proc/{pid}/task/*/status 2>/dev/null");
    let threads = vm.sh(&format!("{all} | grep '^Cap[PEA]'"))?;
    let expected = format!("{CAPABILITIES:016x}");
    let differs = threads.lines().any(|line| !line.ends_with(&expected));
    ensure!(!differs, "a thread has not just {expected}:\n{threads}");
    ensure!(field("NoNewPrivs")? == "1", "new privileges are possible");
    ensure!(field("Seccomp")? == "2", "there is no system call filter");
    ensure!(!field("Uid")?.starts_with("0\t"), "it runs as root");
    // It is the last to be killed for want of memory, so it must not be who takes all of it.
    let limit = systemd::property(vm, UNIT, "MemoryMax")?;
    let limit_bytes: u64 = limit.parse().with_context(|| format!("limit {limit}"))?;
    ensure!(limit_bytes <= 128 << 20, "it may take {limit_bytes} bytes");
    eprintln!("resident memory: {}", field("VmRSS")?);

    let status = guest.channel()?.status(STEP_LIMIT)?;
    for source in [Source::Links, Source::Ebpf, Source::Channel] {
        let found = status.sources.iter().find(|entry| entry.source == source);
        let health = &found.with_context(|| format!("no {source:?}"))?.health;
        ensure!(*health == SourceHealth::Working, "{source:?}: {found:?}");
    }
    Ok(())
}

/// Units of the guest are looked at as systemd has loaded them, and the host's by its file. docs/trust.md tells the same.
pub(crate) fn are_exposed_no_more_than_they_may(guest: &Guest) -> Result<()> {
    for service in exposure::SERVICES {
        let (unit, file) = (service.unit, service.file);
        let loaded = systemd::property(&guest.vm, unit, "LoadState")? == "loaded";
        let of = match loaded {
            true => unit.to_owned(),
            false => {
                let copy = format!("/run/{unit}");
                let bytes = std::fs::read(install::source(file))?;
                guest.vm.write_file(&copy, &bytes, false)?;
                format!("--offline=yes {copy}")
            }
        };
        let table = guest
            .vm
            .sh(&format!("systemd-analyze security --no-pager {of}"))?;
        let found = exposure::check(&service, &table)?;
        let told = exposure::documented(&service)?;
        ensure!(
            found == told,
            "docs/trust.md tells {told} of {unit}, and it is {found}"
        );
    }
    Ok(())
}

/// However often the host hands over other bonds, the unit that has their ports marked goes on.
pub(crate) fn marks_whatever_the_host_hands_over(guest: &Guest, bond: &Value) -> Result<()> {
    let mut channel = guest.channel()?;
    for change in 1..=USUAL_STARTS + 3 {
        let mut changed = bond.clone();
        changed["timing"] = json!({ "hold-ms": 1_000 + change });
        let bonds = json!({ "bonds": [changed] });
        channel.call("tandem-configure", bonds, STEP_LIMIT)?;
    }
    drop(channel);
    // The last one restores what was there.
    let bonds = json!({ "bonds": [bond] });
    guest
        .channel()?
        .call("tandem-configure", bonds, STEP_LIMIT)?;
    let [path, service] = MARKS;
    systemd::eventually("the marks are set", STEP_LIMIT, || {
        let state = systemd::property(&guest.vm, service, "ActiveState")?;
        Ok((state == "inactive").then_some(()).ok_or(state))
    })?;
    let found = systemd::properties(&guest.vm, path, &["ActiveState", "Result"])?;
    ensure!(
        found["ActiveState"] == "active" && found["Result"] == "success",
        "{path}: {found:?}"
    );
    // A busy machine may be too slow to reach a limit within its time, so that there is none is looked at too.
    for (unit, property) in [
        (service, "StartLimitIntervalUSec"),
        (path, "TriggerLimitIntervalUSec"),
    ] {
        let limit = systemd::property(&guest.vm, unit, property)?;
        ensure!(limit == "0", "{unit} is given up by {property}={limit}");
    }
    Ok(())
}
