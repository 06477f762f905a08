//! Guests that lack something: the service goes on with what there is, says what is missing, and what to do.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tandem_core::Status;
use tandem_core::input::Source;
use tandem_core::status::{BondState, ProblemCode, SourceHealth};
use tandem_lab::agent::proto::Exit;
use tandem_lab::agent::{Background, Output};
use tandem_lab::net::{CLIENT_V4, CLIENT_V6, GUEST_V4};
use tandem_lab::tandem::{BOND, CONFIG, Guest, LOG, PROGRAM, STEP_LIMIT, Setup};
use tandem_lab::{Lab, command};

const SETPRIV: &str = "/usr/bin/setpriv";
/// Exit status of `tandem check`: it works, with less than it could have.
const DEGRADED: Exit = Exit::Status(5);
/// Exit status of `tandem check`: it can't work.
const FAILED: Exit = Exit::Status(1);
/// Exit status of `tandem run` where the configuration is at fault: `EX_CONFIG` of sysexits.h.
const WRONG_CONFIGURATION: Exit = Exit::Status(78);

fn in_state(status: &Status, state: BondState) -> bool {
    status.bonds.first().is_some_and(|bond| bond.state == state)
}

/// Why a source is missing, as the status says.
fn missing_reason(status: &Status, source: Source) -> Result<&str> {
    let known = status
        .sources
        .iter()
        .find(|known| known.source == source)
        .with_context(|| format!("the status does not know {source:?}"))?;
    match &known.health {
        SourceHealth::Missing { reason } => Ok(reason),
        other => anyhow::bail!("{source:?} is {other:?}"),
    }
}

/// The remedy of a problem of the first bond that has this code.
fn remedy(status: &Status, code: ProblemCode) -> Result<&str> {
    let problems = &status.bonds.first().context("no bond")?.problems;
    let problem = problems
        .iter()
        .find(|problem| problem.code == code)
        .with_context(|| format!("{code:?} is not among {problems:?}"))?;
    Ok(&problem.remedy)
}

fn check_says(output: &Output, exit: Exit, words: &[&str]) -> Result<()> {
    let text = format!("{}\n{}", output.text(), output.error_text());
    ensure!(
        output.exit == exit,
        "ended with {:?}, not {exit:?}: {text}",
        output.exit
    );
    for word in words {
        ensure!(text.contains(word), "`{word}` is not in: {text}");
    }
    Ok(())
}

/// Starts the service from another program that changes what it may do; to be ended with [`end`].
fn start_with(guest: &Guest, launcher: &[&str]) -> Result<Background> {
    let argv: Vec<&str> = launcher.iter().copied().chain([PROGRAM, "run"]).collect();
    guest.vm.spawn(&argv, &[("TANDEM_LOG", "debug")], LOG)
}

fn end(guest: &Guest, service: Background) -> Result<()> {
    guest.vm.signal(service, 9)?;
    guest
        .vm
        .wait(service, STEP_LIMIT)?
        .context("the service outlived SIGKILL")?;
    Ok(())
}

/// The service is the process that was started, not a successor of it.
fn still_runs(guest: &Guest, pid: u32) -> Result<()> {
    let pids = guest.vm.sh("pidof tandem")?;
    ensure!(
        pids.trim() == pid.to_string(),
        "the service was process {pid}; now: {pids}"
    );
    Ok(())
}

#[test]
fn channel_capabilities_and_type_information_may_be_missing() {
    let Some(lab) = Lab::for_test("less") else {
        return;
    };
    with_less(&lab).unwrap();
}

fn with_less(lab: &Lab) -> Result<()> {
    lab.client()?;
    let setup = Setup::new()?;
    let setpriv = command::find_program("setpriv").context("`setpriv` is missing (util-linux)")?;
    let vm = setup
        .guest(lab)?
        .without_channel()
        .program(&setpriv, SETPRIV)
        .boot(&lab.host("a")?)?;
    let mut guest = Guest::new(vm, setup.standby);
    guest.put_addresses_on_standby()?;

    taken_name(&mut guest)?;
    let status = guest.reach_here(BondState::Accelerated)?;
    without_channel(&guest, &status)?;
    refused_configurations(&guest)?;
    guest.kill_service()?;

    let service = start_with(
        &guest,
        &[SETPRIV, "--bounding-set", "-bpf,-perfmon,-sys_admin"],
    )?;
    let status = guest.reach_here(BondState::Accelerated)?;
    let reason = missing_reason(&status, Source::Ebpf)?;
    ensure!(
        reason.contains("CAP_BPF") && reason.contains("early warning"),
        "cause and consequence are not said: {reason}"
    );
    unplugged_and_plugged(&mut guest, &setup)?;
    end(&guest, service)?;

    // As on a kernel built without type information.
    guest.vm.sh("mount -t tmpfs none /sys/kernel/btf")?;
    let service = start_with(&guest, &[])?;
    let status = guest.reach_here(BondState::Accelerated)?;
    let reason = missing_reason(&status, Source::Ebpf)?;
    ensure!(
        reason.contains("/sys/kernel/btf") && reason.contains("early warning"),
        "cause and consequence are not said: {reason}"
    );
    let remedy = remedy(&status, ProblemCode::NotArmed)?;
    ensure!(remedy.contains("tandem check"), "no remedy: {remedy}");
    let output = guest.tandem(&["check"])?;
    check_says(
        &output,
        DEGRADED,
        &["degraded  eBPF monitor", "CONFIG_DEBUG_INFO_BTF"],
    )?;
    unplugged_and_plugged(&mut guest, &setup)?;
    end(&guest, service)
}

/// Starts the service while another kind of device has the bond's name; then that one goes.
fn taken_name(guest: &mut Guest) -> Result<()> {
    guest.vm.sh(&format!("ip link add {BOND} type dummy"))?;
    guest.start(&[])?;
    let status = guest.await_here("blocked", |status| in_state(status, BondState::Blocked))?;
    let remedy = remedy(&status, ProblemCode::NameTaken)?;
    ensure!(remedy.contains("rename or remove"), "no remedy: {remedy}");
    let output = guest.tandem(&["check"])?;
    check_says(
        &output,
        Exit::Status(1),
        &[
            &format!("{CONFIG}:2:1: key `name`: {BOND}"),
            "rename or remove",
        ],
    )?;
    guest.vm.sh(&format!("ping -c 1 -W 10 {CLIENT_V4}"))?;
    let kind = guest.vm.sh(&format!("ip -d link show {BOND}"))?;
    ensure!(
        kind.contains("dummy") && !kind.contains("bond mode"),
        "the other device was touched: {kind}"
    );
    let pid = guest.pid()?;
    guest.vm.sh(&format!("ip link delete {BOND}"))?;
    guest.reach_here(BondState::Accelerated)?;
    still_runs(guest, pid)
}

fn without_channel(guest: &Guest, status: &Status) -> Result<()> {
    let reason = missing_reason(status, Source::Channel)?;
    ensure!(
        reason.contains("org.tandem.agent.0") && reason.contains("give the VM a channel"),
        "cause and remedy are not said: {reason}"
    );
    let output = guest.tandem(&["check"])?;
    check_says(
        &output,
        DEGRADED,
        &[
            "degraded  host channel",
            "org.tandem.agent.0",
            "remedy: give the VM a virtio-serial channel",
        ],
    )
}

/// Each is refused by `run` and by `check`, with file, line, key and what to do.
fn refused_configurations(guest: &Guest) -> Result<()> {
    const BEGINNING: &str = "[[bond]]\nname = \"bond0\"\n";
    const STANDBY: &str = "standby = { mac = \"52:54:00:00:00:01\" }\n";
    let cases = [
        (
            "unknown-key",
            format!("{BEGINNING}{STANDBY}vfs = [{{ mac = \"52:54:00:00:00:02\" }}]\nhold = 3\n"),
            5,
            ["`hold`", "expected one of"],
        ),
        (
            "duplicate-mac",
            format!(
                "{BEGINNING}{STANDBY}vfs = [{{ mac = \"52:54:00:00:00:02\" }}, \
                 {{ mac = \"52:54:00:00:00:02\" }}]\n"
            ),
            4,
            ["key `vfs`", "remove one"],
        ),
        (
            "standby-is-vf",
            format!("{BEGINNING}vfs = [{{ mac = \"52:54:00:00:00:01\" }}]\n{STANDBY}"),
            3,
            ["key `vfs`", "describe the VF by its own MAC"],
        ),
    ];
    for (name, text, line, [key, remedy]) in cases {
        let file = format!("/tmp/{name}.toml");
        guest.vm.write_file(&file, text.as_bytes(), false)?;
        let place = format!("{file}:{line}:");
        let output = guest.tandem(&["check", "--config", &file])?;
        check_says(
            &output,
            FAILED,
            &["FATAL     configuration", &place, key, remedy],
        )?;
        let socket = format!("/tmp/{name}.sock");
        let output = guest.tandem(&["run", "--config", &file, "--socket", &socket])?;
        check_says(&output, WRONG_CONFIGURATION, &[&place, key, remedy])?;
        // The service that runs is not touched by it.
        guest.check().with_context(|| name)?;
    }
    Ok(())
}

/// Without early warning the VF's leaving is seen all the same, later.
fn unplugged_and_plugged(guest: &mut Guest, setup: &Setup) -> Result<()> {
    guest.vm.unplug_vf()?;
    guest.reach_here(BondState::Standby)?;
    guest.vm.plug_vf(setup.model, setup.vf)?;
    guest.reach_here(BondState::Accelerated)?;
    Ok(())
}

#[test]
fn a_kernel_without_the_bonding_driver_keeps_the_service_waiting() {
    let Some(lab) = Lab::for_test("no bonding") else {
        return;
    };
    without_bonding(&lab).unwrap();
}

fn without_bonding(lab: &Lab) -> Result<()> {
    /// Looks at a service that must not come and go.
    const LOOKS: u32 = 10;
    lab.client()?;
    let setup = Setup::new()?;
    let vm = setup
        .guest(lab)?
        .without_module("bonding")
        .boot(&lab.host("a")?)?;
    let mut guest = Guest::new(vm, setup.standby);
    guest.put_addresses_on_standby()?;
    guest.start(&[])?;
    let mut channel = guest.channel()?;
    let status = channel
        .await_status("blocked", STEP_LIMIT, |status| {
            in_state(status, BondState::Blocked)
        })
        .with_context(|| format!("the service's log ends:\n{}", guest.log_tail()))?;
    let text = remedy(&status, ProblemCode::BondingMissing)?;
    ensure!(text.contains("modprobe bonding"), "no remedy: {text}");
    let pid = guest.pid()?;
    for _ in 0..LOOKS {
        channel.listen(Duration::from_secs(1))?;
        let status = guest.status()?;
        remedy(&status, ProblemCode::BondingMissing)?;
        still_runs(&guest, pid)?;
    }
    let output = guest.tandem(&["check"])?;
    check_says(
        &output,
        FAILED,
        &["FATAL     bonding driver", "CONFIG_BONDING"],
    )?;
    // What the guest had it keeps.
    guest.vm.sh(&format!("ping -c 1 -W 10 {CLIENT_V4}"))?;
    guest.vm.sh(&format!("ping -c 1 -W 10 {CLIENT_V6}"))?;
    let standby = guest.status()?.bonds[0]
        .standby
        .clone()
        .context("the standby is not known")?;
    let addresses = guest
        .vm
        .sh(&format!("ip -o address show dev {}", standby.name))?;
    ensure!(
        addresses.contains(&format!("{GUEST_V4}/24")),
        "the standby lost its address: {addresses}"
    );
    Ok(())
}
