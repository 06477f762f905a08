//! Faults of the guest, and of the devices that it has or gets.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::json;
use tandem_core::status::Traffic;
use tandem_lab::libvirt::{
    DOMAIN, EVACUATION_LIMIT, LibvirtHost, Told, VF_ALIAS, World, file, serve, tandem_host, vf_xml,
    words,
};
use tandem_lab::tandem::STEP_LIMIT;

use crate::reports::{at_home, expect, moved};

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
    let mut arguments = world.arguments(&[])?;
    let mut value_of = |option: &str| -> Result<String> {
        let at = arguments.iter().position(|word| word == option);
        Ok(arguments.remove(at.context("the option")? + 1))
    };
    let xml = value_of("--xml")?;

    let prepared = world.one_step("prepare")?;
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
    world.moved()?;
    world.attach_vf()?;
    let resumed = world.one_step("resume")?;
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
fn mend(host: &LibvirtHost, bridge: &str) -> Result<()> {
    let (here, there) = (format!("{bridge}a"), format!("{bridge}b"));
    let mend = format!(
        "ip link add {bridge} type bridge && ip link add {here} type veth peer name {there} && \
         ip link set {here} master br0 up && ip link set {there} master {bridge} up && \
         ip link set {bridge} up"
    );
    host.host().namespace().exec(&mend).map(drop)
}

/// A migration whose VF hangs on a bridge that the other host does not have yet.
fn without_bridge(world: &World<'_>, bridge: &str, more: &[&str]) -> Result<Vec<String>> {
    let missing = vf_xml(world.guest.spec().model, world.other_vf, VF_ALIAS).replace("br0", bridge);
    let mut arguments = world.arguments(more)?;
    let at = arguments.iter().position(|word| word == "--vf");
    arguments[at.context("--vf")? + 1] = file(world.lab.folder(), "missing.xml", &missing)?;
    Ok(arguments)
}

/// The host is mended while `tandem-host` tries again and again.
pub(crate) fn attach_fails_three_times(world: &mut World<'_>) -> Result<()> {
    let arguments = without_bridge(world, "br3", &[])?;
    world.guest.pause();
    let told = Told::start(&arguments)?;
    told.await_phase("plug")?;
    world.other.await_said("br3", 3)?;
    mend(&world.other, "br3")?;
    let ran = told.wait()?;
    world.moved()?;
    expect(&ran, 0, None, &moved())
}

/// It has come without its VF. `serve` there has no record of its own and no file that allows a network: it
/// plugs nothing in, and says so.
fn degrade(world: &mut World<'_>, bridge: &str) -> Result<()> {
    let arguments = without_bridge(world, bridge, &["--plug-timeout", "5"])?;
    world.guest.pause();
    let ran = tandem_host(&words(&arguments), EVACUATION_LIMIT)?;
    world.moved()?;
    let degraded = json!({"verdict": "degraded", "runs-on": "destination", "vf-attached": false,
        "recovery-needed": true});
    expect(&ran, 12, Some("plug-failed"), &degraded)?;
    world.guest.check(&world.home, &world.other, None)?;
    let (served, log) = serve(&world.home)?;
    world
        .home
        .await_metric("tandem_domain_degraded{domain=\"g1\"} 1", true)?;
    let deadline = Instant::now() + EVACUATION_LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = log.recv_timeout(left).context("it names no command")?;
        if line.contains("`tandem-host recover g1 --vf FILE`") {
            break;
        }
    }
    served.signal(Signal::TERM)?;
    let ran = served.wait(STEP_LIMIT)?;
    ensure!(ran.code == Some(0), "tandem-host serve: {ran:?}");
    mend(&world.home, bridge)
}

/// From the machine that evacuated it, which has the whole record.
pub(crate) fn degraded_and_recovered(world: &mut World<'_>) -> Result<()> {
    degrade(world, "br1")?;
    let recovery = world.recover_arguments(&world.home);
    let ran = tandem_host(&words(&recovery), EVACUATION_LIMIT)?;
    ensure!(
        ran.stderr.contains("plug"),
        "it does not say what it does: {ran:?}"
    );
    expect(&ran, 0, None, &moved())
}

/// From the machine that it has come to, which has no record: the operator names the VF. Afterwards the
/// other machine finds that nothing is left to do.
pub(crate) fn degraded_and_recovered_there(world: &mut World<'_>) -> Result<()> {
    degrade(world, "br2")?;
    let mut there = world.recover_arguments(&world.home);
    let at = there.iter().position(|word| word == "--records-dir");
    let records = world.home.folder().join("records");
    there[at.context("--records-dir")? + 1] = records.to_string_lossy().into_owned();
    let ran = tandem_host(&words(&there), EVACUATION_LIMIT)?;
    let refused = json!({"verdict": "refused", "looked": false});
    expect(&ran, 10, Some("no-vf-named"), &refused)?;
    let vf = vf_xml(world.guest.spec().model, world.vf, VF_ALIAS).replace("br0", "br2");
    let vf = file(world.lab.folder(), "there.xml", &vf)?;
    there.extend(["--vf".to_owned(), vf]);
    let ran = tandem_host(&words(&there), EVACUATION_LIMIT)?;
    expect(&ran, 0, None, &moved())?;
    let recovery = world.recover_arguments(&world.home);
    let ran = tandem_host(&words(&recovery), EVACUATION_LIMIT)?;
    expect(&ran, 0, None, &moved())
}

/// It keeps its VF and goes on with it, and the report says that the VF may still leave.
pub(crate) fn ignores_the_unplug(world: &mut World<'_>) -> Result<()> {
    let ran = world.migrate(&["--unplug-timeout", "15"])?;
    expect(&ran, 11, Some("unplug-timed-out"), &at_home("rolled-back"))?;
    ensure!(ran.json()?["unplug-may-follow"] == true, "{ran:?}");
    Ok(())
}
