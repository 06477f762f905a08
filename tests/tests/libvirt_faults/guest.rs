//! Faults of the guest, and of the devices that it has or gets.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use tandem_core::status::Traffic;
use tandem_lab::libvirt::{EVACUATION_LIMIT, LibvirtHost, Ran, file, serve, tandem_host, vf_xml};
use tandem_lab::tandem::STEP_LIMIT;

use crate::world::{DOMAIN, Told, World, at_home, expect, moved, words};

/// Refused, unless the operator says to go on without the guest: here peer to peer, too.
pub(crate) fn agent_is_missing(world: &mut World<'_>) -> Result<()> {
    let gone = "killall tandem; while tandem status >/dev/null 2>&1; do usleep 100000; done";
    world.guest.agent().sh(gone)?;
    let ran = world.migrate(&[])?;
    expect(&ran, 10, Some("agent-missing"), &at_home("refused"))?;
    world.check_without_agent()?;

    world.guest.pause();
    let ran = world.migrate(&["--no-agent", "--p2p"])?;
    let done = json!({"verdict": "done", "runs-on": "destination", "vf-attached": true,
        "guest": "not-asked", "recovery-needed": false, "left": []});
    expect(&ran, 0, None, &done)?;
    world.moved()?;
    // The kernel alone had carried the traffic on; now the service takes care of the VF that came.
    world.guest.start_service()
}

/// The two calls of `docs/managers.md` around what another manager does by itself.
pub(crate) fn another_manager(world: &mut World<'_>) -> Result<()> {
    let one_step = |name: &str, host: &LibvirtHost| -> Result<Ran> {
        let (uri, serve, channels) = (host.uri(), host.serve_socket(), host.channel_folder());
        let there = [
            "-c",
            &uri,
            "--serve-socket",
            &serve,
            "--channel-folder",
            &channels,
        ];
        tandem_host(
            &[&[name, DOMAIN, "--json"][..], &there].concat(),
            STEP_LIMIT,
        )
    };
    let mut arguments = world.arguments(&[])?;
    let mut value_of = |option: &str| -> Result<String> {
        let at = arguments.iter().position(|word| word == option);
        Ok(arguments.remove(at.context("the option")? + 1))
    };
    let (xml, vf) = (value_of("--xml")?, value_of("--vf")?);

    let prepared = one_step("prepare", &world.home)?;
    ensure!(prepared.code == Some(0), "{prepared:?}");
    ensure!(prepared.json()?["ready"] == true, "{prepared:?}");
    let status = world.guest.status()?;
    let bond = status.bonds.first().context("no bond")?;
    ensure!(bond.traffic == Traffic::Standby, "{bond:?}");
    world.detach_vf()?;
    world.guest.pause();
    let (to, by) = (world.other.uri(), world.other.migrate_uri());
    world.home.virsh(&[
        "migrate",
        "--live",
        DOMAIN,
        &to,
        "--migrateuri",
        &by,
        "--xml",
        &xml,
    ])?;
    world
        .other
        .virsh(&["attach-device", DOMAIN, &vf, "--live"])?;
    world.moved()?;
    let resumed = one_step("resume", &world.home)?;
    ensure!(resumed.code == Some(0), "{resumed:?}");
    Ok(())
}

/// Somebody has unplugged the VF before.
pub(crate) fn vf_is_gone(world: &mut World<'_>) -> Result<()> {
    world.detach_vf()?;
    world.guest.pause();
    let ran = world.migrate(&[])?;
    expect(&ran, 0, None, &moved())?;
    world.moved()
}

/// The host is mended: the bridge that the VF's XML names joins the other one.
fn mend(host: &LibvirtHost) -> Result<()> {
    let mend = "ip link add br1 type bridge && ip link add mend0 type veth peer name mend1 && \
                ip link set mend0 master br0 up && ip link set mend1 master br1 up && ip link set br1 up";
    host.host().namespace().exec(mend).map(drop)
}

/// A migration whose VF hangs on a bridge that the other host does not have yet.
fn without_bridge(world: &World<'_>, more: &[&str]) -> Result<Vec<String>> {
    let missing = vf_xml(world.guest.spec().model, world.other_vf).replace("br0", "br1");
    let mut arguments = world.arguments(more)?;
    let at = arguments.iter().position(|word| word == "--vf");
    arguments[at.context("--vf")? + 1] = file(world.lab.folder(), "missing.xml", &missing)?;
    Ok(arguments)
}

/// The host is mended while `tandem-host` tries again and again.
pub(crate) fn attach_fails_three_times(world: &mut World<'_>) -> Result<()> {
    let arguments = without_bridge(world, &[])?;
    world.guest.pause();
    let told = Told::start(&arguments)?;
    told.await_phase("plug")?;
    world.other.await_said("br1", 3)?;
    mend(&world.other)?;
    let ran = told.wait()?;
    world.moved()?;
    expect(&ran, 0, None, &moved())
}

pub(crate) fn degraded_and_recovered(world: &mut World<'_>) -> Result<()> {
    let arguments = without_bridge(world, &["--plug-timeout", "5"])?;
    world.guest.pause();
    let ran = tandem_host(&words(&arguments), EVACUATION_LIMIT)?;
    world.moved()?;
    let degraded = json!({"verdict": "degraded", "runs-on": "destination", "vf-attached": false,
        "recovery-needed": true});
    expect(&ran, 12, Some("plug-failed"), &degraded)?;
    world.guest.check(&world.home, &world.other, None)?;
    let (served, _log) = serve(&world.home)?;
    world
        .home
        .await_metric("tandem_domain_degraded{domain=\"g1\"} 1", true)?;
    served.signal(Signal::TERM)?;
    let ran = served.wait(STEP_LIMIT)?;
    ensure!(ran.code == Some(0), "tandem-host serve: {ran:?}");
    mend(&world.home)?;
    let recovery = world.recover_arguments(&world.home);
    let ran = tandem_host(&words(&recovery), EVACUATION_LIMIT)?;
    ensure!(
        ran.stderr.contains("plug"),
        "it does not say what it does: {ran:?}"
    );
    expect(&ran, 0, None, &moved())
}

/// It keeps its VF and goes on with it, and the report says that the VF may still leave.
pub(crate) fn ignores_the_unplug(world: &mut World<'_>) -> Result<()> {
    let ran = world.migrate(&["--unplug-timeout", "15"])?;
    expect(&ran, 11, Some("unplug-timed-out"), &at_home("rolled-back"))?;
    ensure!(ran.json()?["unplug-may-follow"] == true, "{ran:?}");
    Ok(())
}
