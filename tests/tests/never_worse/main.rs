//! Whatever is wrong with Tandem, the guest has the network that it would have without it: Debian 13 with
//! systemd-networkd, set up by nothing but README.md's commands, and then broken on purpose.

mod guest;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guest::{Broken, Guest, Machine, PROGRAM};
use tandem_core::Status;
use tandem_core::status::BondState;
use tandem_lab::Lab;
use tandem_lab::full_guest::systemd;
use tandem_lab::tandem::{CONFIG, STEP_LIMIT};

/// How much later than without Tandem the guest may have its network, by its own clock.
const LATER: Duration = Duration::from_secs(30);
const UNIT: &str = "tandem.service";

#[test]
fn a_guest_with_a_broken_tandem_has_its_plain_network() {
    let Some(lab) = Lab::for_test("never worse") else {
        return;
    };
    let story = || -> Result<()> {
        let mut machine = Machine::new(&lab)?;

        // Without Tandem, and then installed as README.md says.
        let plain = machine.boot()?;
        let plain_delay = plain.online_after()?;
        plain.has_plain_network(STEP_LIMIT)?;
        plain.install_as_the_readme_says()?;
        works_at_once(&plain)?;

        let guest = machine.reboot(plain)?;
        works_after_a_boot(&guest)?;
        let fresh_delay = breaks_in_a_row(&guest)?;

        // Booted: the service crashes, and nothing tells so before it is started.
        guest.restore()?;
        guest.break_by(Broken::CrashesInRun)?;
        let crashing = machine.reboot(guest)?;
        crashing.has_plain_network(STEP_LIMIT)?;
        on_time(&crashing, plain_delay)?;
        tells(&crashing, "given back", "killed by signal 6")?;
        is_mended(&crashing)?;

        // Booted: nobody made the user.
        crashing.sh(&format!("systemctl stop {UNIT}"))?;
        crashing.break_by(Broken::NoUser)?;
        let userless = machine.reboot(crashing)?;
        userless.has_plain_network(STEP_LIMIT)?;
        on_time(&userless, plain_delay)?;
        tells(&userless, "user", "the user `tandem` does not exist")?;
        eprintln!("without Tandem online after {plain_delay:?}; NICs anew: {fresh_delay:?}");
        Ok(())
    };
    story().unwrap();
}

/// Right after the installation, without a boot: the channel's port belongs to the new user too.
fn works_at_once(guest: &Guest<'_>) -> Result<()> {
    guest.sh(&format!("systemctl start {UNIT}"))?;
    guest.tandem.reach(BondState::Accelerated)?;
    // `networkd` was there first and has let go.
    guest.is_marked(true)?;
    guest.answers_the_client(STEP_LIMIT).map(|_| ())
}

fn works_after_a_boot(guest: &Guest<'_>) -> Result<()> {
    guest.tandem.reach(BondState::Accelerated)?;
    guest.is_marked(true)?;
    guest.answers_the_client(STEP_LIMIT)?;
    let check = guest.tandem.tandem(&["check"])?;
    ensure!(check.success(), "`tandem check`: {}", check.text());
    let watch = systemd::property(guest.vm(), "tandem-nics.service", "ActiveState")?;
    ensure!(watch == "inactive", "nothing is left to watch: {watch}");

    guest.sh(&format!("systemctl stop {UNIT}"))?;
    guest.is_marked(true)?;
    guest.answers_the_client(STEP_LIMIT).map(|_| ())
}

/// What is seen before the service starts needs no boot each: NICs that appear anew meet the same rules.
fn breaks_in_a_row(guest: &Guest<'_>) -> Result<Duration> {
    let files = [
        (Broken::Typo, "configuration", "the configuration is wrong"),
        (
            Broken::Blacklisted,
            "bonding driver",
            "no-bonding.conf says `blacklist bonding`",
        ),
        (Broken::Masked, "service", "tandem.service is masked"),
        (Broken::Disabled, "service", "tandem.service is not enabled"),
        (Broken::NoUnit, "service", "tandem.service is not installed"),
    ];
    let mut slowest = Duration::ZERO;
    for (broken, finding, why) in files {
        guest.break_by(broken)?;
        let took = guest.nics_come_anew()?;
        eprintln!("{broken:?}: plain network {took:?} after the NICs");
        ensure!(took < LATER, "{broken:?}: {took:?}");
        guest.is_marked(false)?;
        tells(guest, finding, why).with_context(|| format!("{broken:?}"))?;
        slowest = slowest.max(took);
        guest.restore()?;
    }
    // Nobody is left to tell; systemd's own log does.
    for broken in [Broken::NoProgram, Broken::CrashesAlways] {
        guest.break_by(broken)?;
        let took = guest.nics_come_anew()?;
        eprintln!("{broken:?}: plain network {took:?} after the NICs");
        ensure!(took < LATER, "{broken:?}: {took:?}");
        guest.is_marked(false)?;
        slowest = slowest.max(took);
        guest.restore()?;
    }
    Ok(slowest)
}

/// `tandem check` fails by this finding, and the service or whoever looks in its place says why.
fn tells(guest: &Guest<'_>, finding: &str, why: &str) -> Result<()> {
    let check = guest.tandem.tandem(&["check", "--json"])?;
    ensure!(!check.success(), "`tandem check` finds nothing");
    let report: serde_json::Value = serde_json::from_str(&check.text())?;
    let found = report["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|found| found["name"] == finding)
        .with_context(|| format!("no finding `{finding}` in {report:#}"))?;
    ensure!(found["level"] == "fatal", "`tandem check` says {found:#}");

    let status = guest.tandem.tandem(&["status"])?;
    let said = format!("{}\n{}", status.text(), status.error_text());
    ensure!(said.contains(why), "`tandem status` says:\n{said}");
    Ok(())
}

/// Not much later than without Tandem, from when udevd was there.
fn on_time(guest: &Guest<'_>, plain: Duration) -> Result<()> {
    let took = guest.online_after()?;
    eprintln!("online after {took:?}, without Tandem after {plain:?}");
    ensure!(
        took <= plain + LATER,
        "online after {took:?}, without Tandem after {plain:?}"
    );
    Ok(())
}

/// The program works again, somebody starts it, and the NICs are Tandem's.
fn is_mended(guest: &Guest<'_>) -> Result<()> {
    let journal = systemd::journal(guest.vm(), UNIT)?;
    ensure!(
        journal.contains("are given back to their network manager"),
        "the journal does not say so:\n{journal}"
    );
    guest.is_marked(false)?;
    guest.restore()?;
    ensure!(
        guest.vm().read_file(CONFIG).is_ok(),
        "the configuration is there"
    );
    guest.sh(&format!("test -x {PROGRAM} && systemctl restart {UNIT}"))?;
    guest.tandem.reach(BondState::Accelerated)?;
    systemd::eventually("the NICs are taken again", STEP_LIMIT, || {
        Ok(guest.is_marked(true).map_err(|error| format!("{error:#}")))
    })?;
    guest.answers_the_client(STEP_LIMIT)?;
    let is_well = |status: &Status| status.problems.is_empty();
    guest.tandem.await_here("without a problem", is_well)?;
    Ok(())
}
