//! A guest that boots with Tandem, and nothing but the MACs configured: NetworkManager and ifupdown configure the bond.
//! What they do besides is shown by the suites `long-addressing-network-manager` and `long-addressing-ifupdown`.

use anyhow::{Context, Result, ensure};
use tandem_lab::Lab;
use tandem_lab::addressing::{Machine, said};
use tandem_lab::full_guest::{Manager, systemd};
use tandem_lab::tandem::BOND;

/// Makes udev wait with the standby's first event, so that the VF's comes long before: who makes the bond is known late.
const SLOW_UDEV: &str =
    "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"virtio_net\", PROGRAM==\"/usr/bin/sleep 3\"\n";

#[test]
fn network_manager_configures_the_bond() {
    let wait = "NetworkManager-wait-online.service";
    boots(
        Manager::NetworkManager,
        &[],
        "NetworkManager, as its automatic profile says",
        wait,
    )
    .unwrap();
}

#[test]
fn ifupdown_configures_the_bond() {
    let stanzas = (
        "/etc/network/interfaces.d/lan".to_owned(),
        "allow-hotplug enp0s4\niface enp0s4 inet dhcp\niface enp0s4 inet6 auto\n".to_owned(),
    );
    let words = "ifupdown, as /etc/network/interfaces says of enp0s4";
    boots(Manager::Ifupdown, &[stanzas], words, "networking.service").unwrap();
}

fn boots(manager: Manager, files: &[(String, String)], words: &str, wait: &str) -> Result<()> {
    let Some(lab) = Lab::for_test("addressing at boot") else {
        return Ok(());
    };
    let machine = Machine::new(&lab, manager)?.with_tandem();
    let slow = (
        "/etc/udev/rules.d/05-slow.rules".to_owned(),
        SLOW_UDEV.to_owned(),
    );
    let guest = machine.boot(&[files, &[slow]].concat())?;
    let story = || -> Result<()> {
        machine.is_as_without_tandem(&guest, &machine.lease()?, words)?;
        let waited = systemd::properties(&guest.vm, wait, &["Result", "ActiveState"])?;
        ensure!(
            waited["Result"] == "success" && waited["ActiveState"] == "active",
            "{wait}: {waited:?}"
        );
        let check = guest.tandem(&["check"])?;
        ensure!(
            check.success() && check.text().contains(&format!("addressing: {BOND}: ")),
            "`tandem check`: {}",
            check.text()
        );
        Ok(())
    };
    story().with_context(|| said(&guest))
}
