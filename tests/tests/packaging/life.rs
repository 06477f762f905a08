//! A guest on which apt installs the package as README.md says: an upgrade loses no frame, and without the package
//! the guest has its plain network again.

use anyhow::{Context, Result, ensure};
use tandem_core::status::BondState;
use tandem_lab::Lab;
use tandem_lab::artifacts::packages;
use tandem_lab::full_guest::machine::{CHECKOUT, Guest, Machine};
use tandem_lab::full_guest::systemd;
use tandem_lab::net::GUEST_V4;
use tandem_lab::probe::FrameOptions;
use tandem_lab::tandem::{BOND, STEP_LIMIT};

/// Set by the long suite: it is also rebooted after the installation, and after the removal.
const EVERYTHING: &str = "TANDEM_PACKAGING_EVERYTHING";
const UNIT: &str = "tandem.service";
/// Where README.md finds the package.
const PACKAGES: &str = "target/packages";
/// So slowly that sockets and rings hold seconds of them: a busy machine loses none.
const FRAMES: FrameOptions = FrameOptions {
    rate_hz: 50,
    payload_bytes: 64,
};

pub(crate) fn story(lab: &Lab) -> Result<()> {
    let everything = std::env::var_os(EVERYTHING).is_some();
    let deb = packages::deb("tandem")?;
    let newer = packages::newer(&deb, lab.folder())?;
    let mut machine = Machine::new(lab)?;
    let name = deb.file_name().context("a file without a name")?;
    machine.checkout(&deb, &format!("{PACKAGES}/{}", name.to_string_lossy()));
    machine.checkout(&newer, "newer.deb");

    let mut guest = machine.boot()?;
    guest.has_plain_network()?;
    guest.run_block("README.md", "apt install ")?;
    nothing_happens_by_itself(&guest)?;
    guest.configure()?;
    if everything {
        guest = machine.reboot(guest)?;
        guest.service_is_up()?;
    } else {
        guest.sh(&format!("systemctl start {UNIT}"))?;
    }
    guest.tandem.reach(BondState::Accelerated)?;
    guest.is_marked(true)?;
    guest.answers_the_client()?;

    upgrade_loses_nothing(lab, &guest)?;
    removal_cuts_nobody_off(&guest)?;
    if everything {
        a_waiting_bond_is_taken_care_of_again(&guest)?;
        removal_cuts_nobody_off(&guest)?;
        guest = machine.reboot(guest)?;
        is_as_without_tandem(&guest)?;
    }
    apt(&guest, "purge tandem")?;
    guest.answers_the_client()?;
    let guest = machine.reboot(guest)?;
    is_as_without_tandem(&guest)
}

fn apt(guest: &Guest<'_>, what: &str) -> Result<()> {
    let command = format!("cd {CHECKOUT} && DEBIAN_FRONTEND=noninteractive apt-get -q -y {what}");
    let said = guest.sh(&format!("{command} 2>&1"))?;
    eprintln!("apt-get {what}:\n{said}");
    Ok(())
}

/// The package is there, and the network is as it was.
fn nothing_happens_by_itself(guest: &Guest<'_>) -> Result<()> {
    guest.sh("getent passwd tandem")?;
    let state = systemd::properties(guest.vm(), UNIT, &["UnitFileState", "ActiveState"])?;
    ensure!(
        state["UnitFileState"] == "enabled" && state["ActiveState"] == "inactive",
        "after the installation: {state:?}"
    );
    guest.is_marked(false)?;
    guest.has_plain_network()
}

/// Another process takes care of the same bond, and of the frames in both directions none is missing.
fn upgrade_loses_nothing(lab: &Lab, guest: &Guest<'_>) -> Result<()> {
    let process = || systemd::property(guest.vm(), UNIT, "MainPID");
    let bond = || {
        guest.sh(&format!(
            "cat /sys/class/net/{BOND}/ifindex /sys/class/net/{BOND}/bonding/slaves"
        ))
    };
    let (process_before, bond_before) = (process()?, bond()?);
    let mut probe = lab.probe_frames(guest.vm(), GUEST_V4.into(), FRAMES)?;
    probe.mark("upgrade");
    apt(guest, "install ./newer.deb")?;
    guest.tandem.reach(BondState::Accelerated)?;
    let report = probe.finish()?;
    for (way, direction) in [
        ("to the guest", &report.to_guest),
        ("from it", &report.to_client),
    ] {
        let count = direction.phase("upgrade").context("no frame was sent")?;
        eprintln!("{way}: {count:?}");
        ensure!(count.sent > 0, "nothing was sent {way}");
        ensure!(
            direction.losses.is_empty(),
            "lost {way}: {:?}",
            direction.losses
        );
    }
    ensure!(
        process()? != process_before,
        "the service was not restarted"
    );
    ensure!(bond()? == bond_before, "the bond is another one");
    let moved = guest.tandem.status()?.bonds[0].switchover_count;
    ensure!(moved == 0, "the upgrade moved the traffic {moved} times");
    let version = guest.sh("dpkg-query --show --showformat '${Version}' tandem")?;
    ensure!(version.starts_with("1:"), "the version is still {version}");
    Ok(())
}

/// Whoever removes it over the network can go on working: the bond stays until the next boot, whatever udev and
/// the network manager look at anew.
fn removal_cuts_nobody_off(guest: &Guest<'_>) -> Result<()> {
    apt(guest, "remove tandem")?;
    guest.answers_the_client()?;
    let state = systemd::property(guest.vm(), UNIT, "ActiveState")?;
    ensure!(
        state == "inactive",
        "the service is {state} without its package"
    );
    guest
        .sh("udevadm trigger --settle --subsystem-match=net --action=change; networkctl reload")?;
    guest.is_marked(true)?;
    let active = format!("cat /sys/class/net/{BOND}/bonding/active_slave");
    let vf = guest.nic(guest.setup.vf)?;
    ensure!(
        guest.sh(&active)? == vf,
        "the VF no longer carries the traffic"
    );
    guest.answers_the_client()
}

/// Installed again before the boot that would end the bond.
fn a_waiting_bond_is_taken_care_of_again(guest: &Guest<'_>) -> Result<()> {
    apt(guest, "install ./newer.deb")?;
    guest.service_is_up()?;
    guest.tandem.reach(BondState::Accelerated)?;
    guest.is_marked(true)?;
    guest.answers_the_client()
}

fn is_as_without_tandem(guest: &Guest<'_>) -> Result<()> {
    guest.has_plain_network()?;
    guest.is_marked(false)?;
    guest.sh(&format!("test ! -e /sys/class/net/{BOND}"))?;
    systemd::wait_started(guest.vm(), STEP_LIMIT)
}
