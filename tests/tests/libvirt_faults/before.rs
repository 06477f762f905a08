//! Faults before the guest runs on the destination: it stays where it is, with its VF.

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result, ensure};
use tandem_lab::libvirt::{DOMAIN, EVACUATION_LIMIT, SLOW, World, file, tandem_host, words};

use crate::reports::{at_home, expect};

pub(crate) fn unreachable(world: &mut World<'_>) -> Result<()> {
    let mut arguments = world.arguments(&[])?;
    let uri = world.other.uri();
    let at = arguments.iter().position(|word| *word == uri);
    arguments[at.context("the destination")?] = format!("{uri}-that-nobody-serves");
    let ran = tandem_host(&words(&arguments), EVACUATION_LIMIT)?;
    expect(&ran, 10, Some("unreachable"), &at_home("refused"))
}

/// The function that is named for it does not exist there.
pub(crate) fn no_vf(world: &mut World<'_>) -> Result<()> {
    let missing = "<hostdev mode='subsystem' type='pci' managed='yes'><source>\
                   <address domain='0x0000' bus='0x7f' slot='0x1f' function='0x7'/>\
                   </source></hostdev>";
    let mut arguments = world.arguments(&[])?;
    let at = arguments.iter().position(|word| word == "--vf");
    arguments[at.context("--vf")? + 1] = file(world.lab.folder(), "no-vf.xml", missing)?;
    let ran = tandem_host(&words(&arguments), EVACUATION_LIMIT)?;
    expect(&ran, 10, Some("vf-taken"), &at_home("refused"))
}

/// QEMU itself fails there, for lack of memory, when libvirt starts it for the domain that comes.
pub(crate) fn no_memory(world: &mut World<'_>) -> Result<()> {
    let mut arguments = world.arguments(&[])?;
    let folder = world.lab.folder();
    let xml = std::fs::read_to_string(folder.join("destination.xml"))?;
    let (before, rest) = xml.split_once("<emulator>").context("an emulator")?;
    let (emulator, after) = rest.split_once("</emulator>").context("its end")?;
    // libvirt first asks it what it can do, which needs memory too.
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *-incoming*) ulimit -v 400000 ;; esac\nexec {emulator} \"$@\"\n"
    );
    let script = file(folder, "small-qemu", &script)?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let xml = format!("{before}<emulator>{script}</emulator>{after}");
    let at = arguments.iter().position(|word| word == "--xml");
    arguments[at.context("--xml")? + 1] = file(folder, "small.xml", &xml)?;
    let ran = tandem_host(&words(&arguments), EVACUATION_LIMIT)?;
    expect(&ran, 11, Some("migration-failed"), &at_home("rolled-back"))?;
    let said = ran.json()?["cause"]["message"].to_string();
    ensure!(said.contains("Cannot allocate memory"), "why? {said}");
    Ok(())
}

pub(crate) fn interrupted_in_prepare(world: &mut World<'_>) -> Result<()> {
    interrupted_in(world, "prepare")
}

pub(crate) fn interrupted_in_unplug(world: &mut World<'_>) -> Result<()> {
    interrupted_in(world, "unplug")
}

/// However far it gets until the signal comes, it is not over by then.
fn interrupted_in(world: &World<'_>, phase: &str) -> Result<()> {
    let told = world.start(&SLOW)?;
    told.await_phase(phase)?;
    let ran = told.interrupt()?;
    expect(&ran, 11, Some("aborted"), &at_home("rolled-back"))
}

/// From this machine the lock refuses it, from another one the record in the domain. Ctrl-C ends the first.
pub(crate) fn second_is_refused(world: &mut World<'_>) -> Result<()> {
    let first = world.start_slow(&[])?;
    let held = world.locks()?;
    ensure!(held == ["domain", "vf"], "it has claimed {held:?}");
    let second = world.migrate(&[])?;
    ensure!(second.code == Some(10), "not refused: {second:#?}");
    let why = "in use by another tandem-host on this machine";
    ensure!(second.stderr.contains(why), "not by the lock: {second:#?}");
    ensure!(second.json()?["verdict"] == "refused", "{second:#?}");
    let mut arguments = world.arguments(&[])?;
    for option in ["--state-dir", "--records-dir"] {
        let at = arguments.iter().position(|word| word == option);
        let elsewhere = world.lab.folder().join(format!("elsewhere{option}"));
        arguments[at.context("the option")? + 1] = elsewhere.to_string_lossy().into_owned();
    }
    let third = tandem_host(&words(&arguments), EVACUATION_LIMIT)?;
    ensure!(third.code == Some(10), "not refused: {third:#?}");
    ensure!(third.json()?["cause"]["code"] == "claimed", "{third:#?}");
    ensure!(first.running.runs()?, "the first one did not go on");
    let ran = first.interrupt()?;
    expect(&ran, 11, Some("aborted"), &at_home("rolled-back"))
}

pub(crate) fn cancelled(world: &mut World<'_>) -> Result<()> {
    let told = world.start_slow(&[])?;
    world.home.virsh(&["domjobabort", DOMAIN])?;
    let ran = told.wait()?;
    expect(
        &ran,
        11,
        Some("migration-cancelled"),
        &at_home("rolled-back"),
    )
}
