//! Faults while memory is copied.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tandem_lab::libvirt::{DOMAIN, Told, World};
use tandem_lab::process::find_processes;

use crate::reports::{at_home, expect, moved};

/// The virsh that does the migration is not killed with `tandem-host`: killed in the moment of the
/// switch-over it would leave the domain paused on both hosts. A recovery waits for what it brings about.
pub(crate) fn killed(world: &mut World<'_>) -> Result<()> {
    let told = world.start_slow(&[])?;
    world.guest.pause();
    told.running.signal(Signal::KILL)?;
    let ran = told.wait()?;
    ensure!(ran.code.is_none(), "it was not killed: {ran:?}");
    ensure!(migrations(world)? == 1, "virsh does not go on");
    let recovery = Told::start(&world.recover_arguments(&world.home))?;
    recovery.await_phase("takeover")?;
    world.home.hurry_migration(DOMAIN)?;
    expect(&recovery.wait()?, 0, None, &moved())?;
    ensure!(migrations(world)? == 0, "virsh does not end");
    world.moved()
}

/// libvirt gives up a migration whose libvirtd was started anew on the source; the domain runs on.
pub(crate) fn libvirtd_restarted(world: &mut World<'_>) -> Result<()> {
    let told = world.start_slow(&[])?;
    world.home.restart_libvirtd()?;
    let ran = told.wait()?;
    expect(&ran, 11, Some("migration-failed"), &at_home("rolled-back"))
}

/// A guest that boots anew has forgotten all, its bond too: it is configured again on the destination.
pub(crate) fn rebooted(world: &mut World<'_>) -> Result<()> {
    let told = world.start_slow(&["--verify-timeout", "200"])?;
    world.guest.reboot(&world.home)?;
    ensure!(told.running.runs()?, "it did not wait for the guest");
    world.guest.pause();
    world.home.hurry_migration(DOMAIN)?;
    told.await_phase("verify")?;
    world.moved()?;
    world.guest.await_boot(&world.home)?;
    expect(&told.wait()?, 0, None, &moved())
}

/// How many `virsh migrate` of this domain run on this machine.
fn migrations(world: &World<'_>) -> Result<usize> {
    let uri = world.home.uri();
    let found = find_processes(|process| {
        process.words.iter().any(|word| word == "migrate")
            && process.words.iter().any(|word| word.contains(&uri))
            && process.words[0].ends_with("virsh")
    })?;
    Ok(found.len())
}
